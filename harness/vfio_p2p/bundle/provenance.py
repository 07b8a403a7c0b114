# SPDX-License-Identifier: GPL-2.0-or-later
"""The contribution of a place to the result of a run.

A bundle's manifest records the provenance of its run.  It is a tagged union:
the key ``place`` says which of the classes below it is.
"""

from __future__ import annotations

import hashlib

import msgspec

from vfio_p2p.clock import ClockOffset

_SEED = "-seed"


class SealedProvenance(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="place",
    tag="sealed",
):
    """The testbed in which a sealed run was made.

    :param image: SHA-256 by name of the image's files: the kernel, the
        initramfs (modules, Python, the runner) and the firmware.
    :param outer: The version string of the QEMU that ran the outer VM.
    :param outer_sha256: The SHA-256 of that QEMU's binary.
    :param arguments: That QEMU's arguments, without the paths of files.
    :param snapshot: The hash of the booted VM from which the run went on,
        without the host's clocks; empty if the run booted a VM.
    :param driver: The kernel module that provided the devices.
    :param kernel_kind: Which of the testbed's kernels it was: Debian's, or one
        of our own.
    :param kernel: The name and the version of the kernel's package, or of its
        source's.
    :param compiler: The first line of the version that the compiler of the
        kernel module reports.
    """

    image: dict[str, str]
    outer: str
    outer_sha256: str
    arguments: tuple[str, ...]
    snapshot: str = ""
    driver: str = "p2psim"
    kernel_kind: str = "debian"
    kernel: str = ""
    compiler: str = ""

    @property
    def exact(self) -> bool:
        """True: the same inputs give the same bundle, to the byte."""
        return True

    @property
    def testbed(self) -> str:
        """A hash of everything except the seed.

        In another testbed, timers fire elsewhere, so that times differ for
        no reason that has to do with QEMU.
        """
        at = len(self.arguments)
        if _SEED in self.arguments:
            at = self.arguments.index(_SEED)
        text = msgspec.json.encode(
            (
                self.image,
                self.outer_sha256,
                self.arguments[:at] + self.arguments[at + 2 :],
                self.snapshot,
                self.driver,
            ),
            order="sorted",
        )
        return hashlib.sha256(text).hexdigest()


class AttachedMachine(msgspec.Struct, frozen=True, kw_only=True):
    """One QEMU that somebody else started.

    :param hostname: The name of its host.
    :param guest: The name of its guest; empty if it has none.
    :param devices: Its VFIO devices, by their names in its traces.
    :param log: Where its log was found: ``-D``, ``stderr``, ``virtlogd``, or
        why there was none.
    :param timestamps: Whether its messages have times.
    :param events: The trace events that were on.
    :param cut: Whether the log was not kept whole: it was too long, or was
        removed before it was read.
    """

    hostname: str
    guest: str = ""
    devices: tuple[str, ...] = ()
    log: str = ""
    timestamps: bool = False
    events: tuple[str, ...] = ()
    cut: bool = False


class AttachedProvenance(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="place",
    tag="attached",
):
    """QEMUs that somebody else started, or logs that somebody brought.

    :param source_qemu: The version of the source's QEMU; may be empty.
    :param destination_qemu: The same for the destination.
    :param source: The source's QEMU; None if it was not attached to.
    :param destination: The same for the destination.
    """

    source_qemu: str = ""
    destination_qemu: str = ""
    source: AttachedMachine | None = None
    destination: AttachedMachine | None = None

    @property
    def driver(self) -> str:
        """Empty: no log names the kernel module of the devices."""
        return ""

    @property
    def exact(self) -> bool:
        """False: another run may differ."""
        return False


class FunctionProvenance(msgspec.Struct, frozen=True, kw_only=True):
    """One virtual function that a QEMU was given.

    :param address: Its PCI address.
    :param ids: Its PCI ids, as ``VENDOR:DEVICE``.
    :param firmware: The version of its card's firmware; empty if unknown.
    :param psid: The PSID of its card; empty if unknown.
    :param numa_node: Its NUMA node; None if the host has none.
    """

    address: str
    ids: str
    firmware: str = ""
    psid: str = ""
    numa_node: int | None = None


class GuestProvenance(msgspec.Struct, frozen=True, kw_only=True):
    """A guest of the user that a QEMU ran.

    :param files: SHA-256 by the names ``kernel``, ``initrd`` and ``image``;
        an image to which the guest writes has none.
    :param append: The command line of its kernel.
    :param memory_mib: Its memory.
    :param smp: The number of its processors.
    :param cpu: QEMU's model of the processor; empty for QEMU's default.
    :param image_mode: Who writes to its image; empty without one.
    """

    files: dict[str, str]
    append: str = ""
    memory_mib: int
    smp: int
    cpu: str = ""
    image_mode: str = ""


class MachineProvenance(msgspec.Struct, frozen=True, kw_only=True):
    """One machine on which a QEMU ran.

    :param name: Its name in hosts.toml.
    :param hostname: Its own name.
    :param kernel: The release of its kernel.
    :param cpu: The model of its CPU.
    :param cores: The number of its CPUs.
    :param driver: The variant driver of the functions.
    :param functions: The functions, in the order of QEMU's devices.
    :param properties: The properties of QEMU's vfio-pci, as ``-device``
        takes them.
    :param reasons: Why the driver needs some of them, by property.
    :param accelerator: ``kvm`` or ``tcg``.
    :param guest: The guest of the user; missing if QEMU ran the scenario's.
    :param load: Its load averages before the run, over 1, 5 and 15 minutes.
    """

    name: str
    hostname: str
    kernel: str
    cpu: str
    cores: int
    driver: str
    functions: tuple[FunctionProvenance, ...]
    properties: str = ""
    reasons: dict[str, str] = msgspec.field(default_factory=dict)
    accelerator: str = "tcg"
    # Without the key, results of other guests stay comparable with older
    # ones in a history.
    guest: GuestProvenance | msgspec.UnsetType = msgspec.UNSET
    load: tuple[float, ...] = ()


class HostProvenance(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="place",
    tag="host",
):
    """The machine or the machines with real devices of a measured run.

    :param name: The name of the place in hosts.toml.
    :param source: The machine of the source.
    :param destination: The machine of the destination; the same one unless
        the place is a pair.
    :param transport: What carried the migration: ``unix``, ``tcp`` or
        ``tls``.
    :param clock: The offset of the destination's clock; None on one machine.
    """

    name: str
    source: MachineProvenance
    destination: MachineProvenance
    transport: str = "unix"
    clock: ClockOffset | None = None

    @property
    def driver(self) -> str:
        """The variant driver of the source's functions."""
        return self.source.driver

    @property
    def exact(self) -> bool:
        """False: times are measured, and another run differs."""
        return False


Provenance = SealedProvenance | HostProvenance | AttachedProvenance
