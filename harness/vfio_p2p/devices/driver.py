# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of devices, and what the runner needs of each device."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Driver(StrEnum):
    """The kernel module whose devices a scenario runs on.

    `MTTY` is Linux's own sample: it can do less, and none of it is ours.
    """

    P2PSIM = "p2psim"
    MTTY = "mtty"


class VfioDevice(Protocol):
    """A device that QEMU can be given."""

    @property
    def name(self) -> str:
        """What QEMU's traces call it."""

    @property
    def qemu_properties(self) -> str:
        """Properties of QEMU's vfio-pci that select it."""

    def log(self) -> bytes:
        """The device's own log; empty if it keeps none."""

    def start_traffic(self) -> None:
        """Have it send to its peers, if it has any.

        This migrates with the device: the destination's goes on.

        :raise HostError: When it cannot.
        """
