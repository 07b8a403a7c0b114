# SPDX-License-Identifier: GPL-2.0-or-later
"""The choice of where jobs run: a place, and what it is to have."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vfio_p2p.devices import Driver
from vfio_p2p.scenario.needs import Need

SEALED = "sealed"


class VmKernel(StrEnum):
    """The kernel of the testbed's VM.

    `DEBIAN` is Debian's cloud kernel, which need not be compiled.  `OWN` is a
    small one with IOMMUFD and DMA logging.  `DEBUG` is the same with checks
    that find errors of drivers; it is slow.
    """

    DEBIAN = "debian"
    OWN = "own"
    DEBUG = "debug"

    @property
    def offers(self) -> frozenset[Need]:
        """What it has of what scenarios may need."""
        if self is VmKernel.DEBIAN:
            return frozenset()
        return frozenset(Need)

    @classmethod
    def for_needs(cls, needs: frozenset[Need]) -> VmKernel:
        """Return the kernel to use if none was chosen.

        :param needs: What a scenario needs.
        """
        return next(x for x in cls if needs <= x.offers)


@dataclass(frozen=True)
class PlaceChoice:
    """The choice of a place; see `vfio_p2p.places.open_place`.

    :param name: Its name: `SEALED`, or that of a place in hosts.toml.
    :param driver: The kernel module whose devices the jobs are to get.
    :param hosts: The path of hosts.toml; None is the usual one.
    :param boot: Whether each sealed run boots a VM, rather than going on
        from a snapshot.
    :param kernel: The kernel of the testbed's VM; None takes for each
        scenario the first one that has what it needs.
    """

    name: str = SEALED
    driver: Driver = Driver.P2PSIM
    hosts: Path | None = None
    boot: bool = False
    kernel: VmKernel | None = None
