# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of one VM of the lab.

The reasons for what is not obvious, all found by experiment:

* Without interrupt remapping, VFIO's type 1 IOMMU refuses to serve.
* Under load, Linux may find that the timer does not work, and panic:
  ``no_timer_check``.
* An SR-IOV device wants a bus for its VFs, so that each has a root port.
"""

from __future__ import annotations

from collections.abc import Iterator

from vfio_p2p.lab.image import LabImage
from vfio_p2p.lab.options import NAMES, Card, LabOptions
from vfio_p2p.lab.recipe import system_root
from vfio_p2p.lab.rundir import LabMachine, RunFolder
from vfio_p2p.lab.system import loaded

LOOPBACK = "127.0.0.1"
LINK = {"lab-a": "10.9.0.1", "lab-b": "10.9.0.2"}
_PREFIX = 24
_KERNEL = "console=ttyS0 no_timer_check mitigations=off"
_NVME = (
    "sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,"
    "max_ioqpairs=10,msix_qsize=7"
)


def qemu_command(
    image: LabImage,
    options: LabOptions,
    machine: LabMachine,
    run: RunFolder,
) -> list[str]:
    """Return the command that starts a VM in the background.

    :param image: The image of the VM.
    :param options: What the lab is like.
    :param machine: The VM.
    :param run: The folder of its files.
    """
    share = system_root(image.kit).resolve() / "usr/share"
    return [
        *loaded(image.kit, "usr/bin/qemu-system-x86_64"),
        *("-name", machine.name, "-nodefaults", "-no-user-config"),
        *("-display", "none", "-machine", "q35", "-cpu", "max"),
        # With two vCPUs in threads of their own, the VM stood still now and
        # then: one of them slept on, as its timer's interrupt was lost.
        *("-accel", "tcg,thread=single", "-smp", "1"),
        *("-m", f"{options.memory_mib}", "-rtc", "base=utc"),
        *("-device", "intel-iommu,intremap=on,caching-mode=off"),
        *("-L", str(share / "seabios"), "-L", str(share / "qemu")),
        *("-kernel", str(image.kernel)),
        *("-initrd", str(run.initramfs(machine.name))),
        *("-append", kernel_arguments(options, machine.name)),
        *("-serial", f"file:{run.console(machine.name)}"),
        *_network(options, machine),
        *_cards(options, machine.name),
        *("-daemonize", *run.marker(machine.name)),
    ]


def kernel_arguments(options: LabOptions, name: str) -> str:
    """Return the kernel's command line; images/lab/init reads ``lab.``.

    :param options: What the lab is like.
    :param name: The name of the VM.
    """
    limit = options.memlock_kib
    return " ".join(
        [
            _KERNEL,
            f"lab.name={name}",
            f"lab.link={LINK[name]}/{_PREFIX}",
            f"lab.card={options.card}",
            f"lab.memlock={'unlimited' if limit is None else limit}",
            f"lab.labpf={options.labpf:d}",
            f"intel_iommu={'on' if options.iommu else 'off'}",
        ]
    )


def _address(name: str, number: int) -> str:
    return f"52:54:00:6c:{NAMES.index(name) + 1:02x}:{number:02x}"


def _network(options: LabOptions, machine: LabMachine) -> Iterator[str]:
    # The guest reaches nothing but its peer.
    forward = f"hostfwd=tcp:{LOOPBACK}:{machine.ssh_port}-:22"
    yield from ("-netdev", f"user,id=user,restrict=on,{forward}")
    yield from ("-device", _nic("user", _address(machine.name, 1)))
    if options.hosts > 1:
        ends = (
            f"local.type=inet,local.host={LOOPBACK},"
            f"local.port={machine.link_port},"
            f"remote.type=inet,remote.host={LOOPBACK},"
            f"remote.port={machine.peer_port}"
        )
        yield from ("-netdev", f"dgram,id=link,{ends}")
        yield from ("-device", _nic("link", _address(machine.name, 2)))


def _nic(netdev: str, address: str) -> str:
    return f"virtio-net-pci,netdev={netdev},mac={address},romfile="


def _cards(options: LabOptions, name: str) -> Iterator[str]:
    for number in (1, 2):
        port = f"port{number}"
        yield from (
            "-device",
            f"pcie-root-port,id={port},chassis={number},slot={number}",
        )
        if options.card is Card.IGB:
            address = _address(name, 0x10 + number)
            yield from ("-device", f"igb,bus={port},mac={address},romfile=")
        else:
            system = f"sub{number}"
            yield from ("-device", f"nvme-subsys,id={system}")
            yield from (
                "-device",
                f"nvme,bus={port},serial={name}-{number},subsys={system},"
                f"{_NVME}",
            )
