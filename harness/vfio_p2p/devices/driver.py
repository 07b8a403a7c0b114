# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of devices, and what the runner needs of each device."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol


class Driver(StrEnum):
    """The kernel module that provides the devices of a scenario.

    `MTTY` is Linux's own sample driver.  It can do less than p2psim, but it
    is independent of this project.  `P2PVF` is a variant driver of vfio-pci:
    its devices are PCI virtual functions, and migrate as p2psim's do.
    """

    P2PSIM = "p2psim"
    MTTY = "mtty"
    P2PVF = "p2pvf"


class VfioDevice(Protocol):
    """A device that QEMU can be given."""

    @property
    def name(self) -> str:
        """The name of the device in QEMU's traces."""

    @property
    def qemu_properties(self) -> Mapping[str, str]:
        """The properties of QEMU's vfio-pci that the device needs.

        They select the device; a scenario may override the others.
        """

    def log(self) -> bytes:
        """Read the device's own log; empty if the device keeps none."""

    def start_traffic(self) -> None:
        """Make the device send to its peers, and write to the guest's memory.

        :raise HostError: When the device refuses.
        """
