# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU that runs the outer VM, and its arguments.

It is Debian's, from the testbed's kit, whatever QEMU the machine has.  The
reasons for the arguments, all confirmed by experiments:

* ``icount`` makes the guest's clock a count of its instructions.
  ``sleep=off`` skips idle time, and ``align=off`` never waits for the host.
* With one vCPU in one thread, nothing depends on the host's scheduler.
* A named CPU does not depend on the host's CPU or on QEMU's version.
  With ``rdrand``, ``-seed`` fixes the kernel's first randomness.
  Without ``cx16``, Linux does not use CMPXCHG16B: up to QEMU 7.2, TCG leaves
  wrong EFLAGS after that instruction (target/i386/tcg/mem_helper.c takes the
  flags from a stale CC_OP), and an interrupt at that moment crashes Linux,
  whose SLUB allocator uses it all the time.
* The memory is a file, so that a snapshot has it without a copy.  The
  mailbox is memory as well: a PCI device with memory cannot be restored.  It
  is above 4 GiB, since the firmware takes some memory below.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vfio_p2p.choice import VmKernel
from vfio_p2p.devices import Driver
from vfio_p2p.devices.p2pvf import MAX_DEVICES
from vfio_p2p.machine.process import bound
from vfio_p2p.places.sealed.image import Image
from vfio_p2p.places.sealed.kit import LIBRARIES, Kit
from vfio_p2p.places.sealed.mailbox import ADDRESS, SIZE_BYTES
from vfio_p2p.side import Side

RAM_MIB = 1024

# The files of a VM, in the folder in which it runs.
CONSOLE = "console.txt"
INITRAMFS = "initramfs.cpio"
RAM = "ram"

CPU = "Nehalem-v1,rdrand=on,cx16=off"
_COMMON = (
    *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
    *("-machine", "q35,max-ram-below-4g=1G"),
)
_SEALED = (
    *("-accel", "tcg,thread=single"),
    *("-icount", "shift=1,align=off,sleep=off"),
    *("-smp", "1"),
    *("-cpu", CPU),
    *("-rtc", "base=2026-01-01T00:00:00,clock=vm"),
    *("-m", f"{RAM_MIB + (SIZE_BYTES >> 20)}"),
    *("-numa", "node,memdev=ram,cpus=0", "-numa", "node,memdev=mailbox"),
    *("-device", "pvpanic-pci", "-action", "panic=pause"),
)
# Self-tests, certificates and tracing take half of the kernel's boot, 1.5 s of
# guest time, and no run needs them. Modules load without certificates, too.
# Mitigations are pointless on an emulated CPU, and they are slow: with page
# tables of its own for the kernel, every system call flushes the TLB, which
# takes 12 % of a run.
_DEBIAN = (
    "quiet mitigations=off cryptomgr.notests "
    "initcall_blacklist=jent_mod_init,crypto_kdf108_init,"
    "load_system_certificate_list,init_kprobe_trace,trace_eval_init"
)
# Without a PM timer, which would make each look at the clock slower, Linux
# calibrates the local APIC's timer for seconds, and then does not trust it.
_OWN = "nolapic_timer"
_KERNEL_ARGUMENTS = {
    VmKernel.DEBIAN: _DEBIAN,
    VmKernel.OWN: f"quiet {_OWN}",
    # Lockdep's warnings do not come to a quiet console.
    VmKernel.DEBUG: _OWN,
}
_ALWAYS = "console=ttyS0 panic=-1"
# The kernel must not use the mailbox.
_RESERVED = f"memmap={SIZE_BYTES >> 20}M${ADDRESS:#x}"

_PROGRAM = "bin/qemu-system-x86_64"
_MODULES = f"usr/{LIBRARIES}/qemu"


@dataclass(frozen=True)
class Outer:
    """The QEMU that runs outer VMs.

    :param argv: The beginning of its command line.
    :param environment: Its whole environment.
    :param version: The version that it reports.
    :param sha256: The SHA-256 of the binary.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    version: str
    sha256: str


@dataclass(frozen=True)
class _Board:
    """What the VM has for a driver, beside what it always has.

    :param arguments: Arguments of the QEMU that runs the VM.
    :param kernel: Words of the kernel's command line.
    :param lasting: Whether QEMU can save all of its devices.
    """

    arguments: tuple[str, ...] = ()
    kernel: str = ""
    lasting: bool = True


def _controllers() -> Iterator[str]:
    """Arguments for one NVMe controller with virtual functions per side.

    Each function takes two queues and an interrupt of its controller, which
    keeps two queues and an interrupt for itself.
    """
    for number, side in enumerate(Side, 1):
        yield from ("-device", f"pcie-root-port,id=port{number},slot={number}")
        yield from ("-device", f"nvme-subsys,id=sub{number}")
        yield "-device"
        yield (
            f"nvme,bus=port{number},subsys=sub{number},serial={side.prefix},"
            f"sriov_max_vfs={MAX_DEVICES},"
            f"sriov_vq_flexible={2 * MAX_DEVICES},"
            f"sriov_vi_flexible={MAX_DEVICES},"
            f"max_ioqpairs={2 * MAX_DEVICES + 2},"
            f"msix_qsize={MAX_DEVICES + 2}"
        )


# SeaBIOS would use the controllers, whose emulation takes the time of the
# host; qboot does not look for disks.  Without no_timer_check, Linux may
# panic: it finds that its timer does not work through an IOMMU.
_BOARDS = {
    Driver.P2PVF: _Board(
        (
            *("-bios", "qboot.rom"),
            *("-device", "intel-iommu,intremap=on,caching-mode=off"),
            *_controllers(),
        ),
        "intel_iommu=on no_timer_check initcall_blacklist=nvme_init",
        # QEMU's nvme is "unmigratable".
        lasting=False,
    )
}


def get_outer(kit: Kit) -> Outer:
    """Find the QEMU of the kit.

    :param kit: The testbed's kit.
    :raise TestbedError: When the kit lacks it.
    """
    argv = kit.starting(_PROGRAM)
    kept = ("HOME", "PATH", "TMPDIR")
    environment = {x: os.environ[x] for x in kept if x in os.environ} | {
        # Else it would look for its accelerator beside the loader.
        "QEMU_MODULE_DIR": str(kit.root.resolve() / _MODULES),
    }
    version = subprocess.run(
        bound([*argv, "--version"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        check=False,
    ).stdout
    with kit.find(_PROGRAM).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Outer(argv, environment, version.partition("\n")[0], sha256)


def can_be_saved(driver: Driver) -> bool:
    """Return whether there can be a snapshot of a VM.

    :param driver: The kernel module that provides its devices.
    """
    return _BOARDS.get(driver, _Board()).lasting


def vm_arguments(
    driver: Driver, kernel: VmKernel, *words: str
) -> tuple[str, ...]:
    """Return the arguments of all VMs, without the paths of files.

    :param driver: The kernel module that provides the devices.
    :param kernel: The kernel.
    :param words: More words of the kernel's command line, such as those
        that images/testbed/init knows.
    """
    board = _BOARDS.get(driver, _Board())
    known = _KERNEL_ARGUMENTS[kernel]
    line = filter(None, (_ALWAYS, known, board.kernel, *words))
    return (*_COMMON, *board.arguments, "-append", " ".join(line))


def sealed_arguments(
    seed: int, driver: Driver, kernel: VmKernel, *words: str
) -> tuple[str, ...]:
    """Return the arguments of a sealed VM, without the paths of files.

    :param seed: The seed of all randomness that the guest gets.
    :param driver: The kernel module that provides the devices.
    :param kernel: The kernel.
    :param words: As of `vm_arguments`.
    """
    return (
        *vm_arguments(driver, kernel, _RESERVED, *words),
        *_SEALED,
        *("-seed", str(seed)),
    )


def file_arguments(
    image: Image,
    mailbox: IO[bytes],
    ram: Path | None = None,
    *,
    initramfs: Path | None = None,
    shared: bool = False,
) -> tuple[str, ...]:
    """Return the arguments of a sealed VM that name files.

    :param image: The image of the VM.
    :param mailbox: The mailbox, of which QEMU inherits the descriptor.
    :param ram: The file of its memory; None if there is no file.
    :param initramfs: The initramfs, if it has more than the image's.
    :param shared: Whether the VM writes to the file of its memory; else it
        keeps what it writes for itself.
    """
    memory = f"memory-backend-ram,id=ram,size={RAM_MIB}M"
    if ram:
        memory = (
            f"memory-backend-file,id=ram,size={RAM_MIB}M,"
            f"share={'on' if shared else 'off'},mem-path={ram}"
        )
    return (
        *("-L", str(image.firmware)),
        *("-kernel", str(image.kernel)),
        *("-initrd", str(initramfs or image.initramfs)),
        *("-serial", f"file:{CONSOLE}"),
        *("-object", memory),
        "-object",
        f"memory-backend-file,id=mailbox,size={SIZE_BYTES},share=on,"
        f"mem-path=/proc/self/fd/{mailbox.fileno()}",
    )
