# SPDX-License-Identifier: GPL-2.0-or-later
"""Plain folders in place of a host's /sys, /proc and /dev."""

from __future__ import annotations

import os
from pathlib import Path

from vfio_p2p.agent.inventory import inventory
from vfio_p2p.agent.roots import Roots
from vfio_p2p.devices.vf.inventory import Inventory, PciFunction, decode

PF = "0000:01:00.0"
VFS = ("0000:01:10.0", "0000:01:10.2", "0000:01:10.4", "0000:01:10.6")


class HostTree:
    """A host with nothing, to which a test adds.

    :param root: The folder for all of it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tools = root / "tools"
        self.roots = Roots(
            sys=root / "sys",
            proc=root / "proc",
            dev=root / "dev",
            run=root / "run",
            lock=root / "lock",
            modules=root / "modules",
            tools=(str(self.tools),),
        )
        for folder in (
            "sys/bus/pci/devices", "sys/bus/pci/drivers", "proc/1/fd",
            "dev/vfio", "tools",
        ):
            (root / folder).mkdir(parents=True)

    def write(self, path: str, text: object) -> Path:
        """Write a file, with a newline as the kernel does.

        :param path: Its path below the root.
        :param text: What it says.
        """
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
        return file

    def link(self, path: str, target: str) -> None:
        """Make a link to a path below the root, which is made if missing."""
        file, there = self.root / path, self.root / target
        there.mkdir(parents=True, exist_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.symlink_to(os.path.relpath(there, file.parent))

    def tool(self, name: str, text: str) -> None:
        """Make a program out of a shell script."""
        path = self.tools / name
        # The test's PATH has nothing.
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n")
        path.chmod(0o755)

    def device(self, address: str, **files: object) -> str:
        """Make a PCI function; returns its folder.

        :param address: Its address.
        :param files: The files of its folder.
        """
        folder = f"sys/bus/pci/devices/{address}"
        (self.root / folder).mkdir()
        for name, text in files.items():
            self.write(f"{folder}/{name}", text)
        return folder

    def bind(self, address: str, driver: str) -> None:
        """Give a function to a driver, and its node if it is VFIO's."""
        folder = f"sys/bus/pci/devices/{address}"
        self.link(f"{folder}/driver", f"sys/bus/pci/drivers/{driver}")
        group = os.readlink(self.root / folder / "iommu_group")
        if driver != "igbvf":
            node = self.root / "dev/vfio" / os.path.basename(group)
            node.touch()
            node.chmod(0o600)

    def group(self, address: str, number: int) -> None:
        """Put a function into an IOMMU group."""
        group = f"sys/kernel/iommu_groups/{number}"
        folder = f"sys/bus/pci/devices/{address}"
        self.link(f"{folder}/iommu_group", group)
        self.link(f"{group}/devices/{address}", folder)

    def card(self, vfs: int) -> None:
        """Make a PF with some VFs, each in a group of its own."""
        pf = self.device(
            PF,
            vendor="0x8086", device="0x10c9", sriov_totalvfs=7,
            sriov_numvfs=vfs, sriov_drivers_autoprobe=1, numa_node=-1,
            driver_override="(null)", **{"class": "0x020000"},
        )
        self.group(PF, 1)
        for index, address in enumerate(VFS[:vfs]):
            folder = self.device(
                address,
                vendor="0x8086", device="0x10ca", numa_node=0,
                driver_override="p2pvf", **{"class": "0x020000"},
            )
            self.link(f"{folder}/physfn", pf)
            self.link(f"{pf}/virtfn{index}", folder)
            self.group(address, 8 + index)

    def process(self, pid: int, argv: str, *links: str) -> None:
        """Make a process that has some files open."""
        self.write(f"proc/{pid}/cmdline", argv.replace(" ", "\0"))
        self.write(f"proc/{pid}/comm", argv.split()[0].rpartition("/")[2])
        folder = self.root / f"proc/{pid}/fd"
        folder.mkdir()
        for number, target in enumerate(links):
            (folder / str(number)).symlink_to(target)


def taken(tree: HostTree, *modules: str, probe: bool = False) -> Inventory:
    """Return the inventory of a tree.

    :param tree: The tree.
    :param modules: The kernel modules to look for.
    :param probe: Open devices.
    """
    return decode(inventory(tree.roots, modules, probe=probe), "a host")


def function(tree: HostTree, address: str) -> PciFunction:
    """Return one function of a tree."""
    found = taken(tree).find(address)
    assert found
    return found
