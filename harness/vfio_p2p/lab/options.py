# SPDX-License-Identifier: GPL-2.0-or-later
"""What a lab is like: the options of ``vfio-p2p lab up``."""

from __future__ import annotations

from enum import StrEnum

import msgspec

NAMES = ("lab-a", "lab-b")


class Card(StrEnum):
    """The devices with SR-IOV; each VM has two of them."""

    IGB = "igb"
    NVME = "nvme"


class LabOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a lab, which hold until it is down.

    :param hosts: The number of VMs.
    :param card: The kind of devices that have virtual functions.
    :param memory_mib: The memory of each VM.
    :param memlock_kib: What a user's process may lock; None is no limit.
    :param clock_offset_ms: How far the clock of the last VM is ahead.
    :param labpf: Whether the PFs have devlink, by the module labpf.
    :param iommu: Whether Linux uses the IOMMU.
    """

    hosts: int = 1
    card: Card = Card.IGB
    memory_mib: int = 2048
    memlock_kib: int | None = None
    clock_offset_ms: int = 0
    labpf: bool = True
    iommu: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the VMs."""
        return NAMES[: self.hosts]
