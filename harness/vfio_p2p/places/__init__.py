# SPDX-License-Identifier: GPL-2.0-or-later
"""The places where jobs run."""

from __future__ import annotations

from pathlib import Path

from vfio_p2p.devices import Driver
from vfio_p2p.errors import UsageError
from vfio_p2p.places.cache import CachedPlace
from vfio_p2p.places.hosts.config import load_hosts
from vfio_p2p.places.job import Job
from vfio_p2p.places.place import LIMIT_S, EquippedPlace, ExactPlace, Place
from vfio_p2p.places.sealed.place import SealedPlace
from vfio_p2p.qemu.program import Programs

__all__ = [
    "LIMIT_S",
    "PLACES",
    "CachedPlace",
    "EquippedPlace",
    "ExactPlace",
    "Job",
    "Place",
    "open_place",
]

PLACES = ("sealed",)


def open_place(
    name: str,
    *,
    driver: Driver,
    programs: Programs,
    hosts: Path | None = None,
) -> Place:
    """Open a place; `Place.check` then says whether it can be used.

    :param name: One of `PLACES`, or a place of hosts.toml.
    :param driver: The kernel module whose devices the jobs are to get.
    :param programs: The programs that the jobs name.
    :param hosts: The path of hosts.toml; None is the usual one.
    :raise UsageError: When there is no such place, or it has no such
        devices.
    :raise ConfigError: When hosts.toml is wrong.
    """
    if name == "sealed":
        return SealedPlace(driver, programs)
    if driver is not Driver.P2PSIM:
        raise UsageError(
            f"--device {driver} is for the testbed: {name} has real devices",
            f"Leave out --device, or --at {name}.",
        )
    # Only real devices need the code for hosts.
    from vfio_p2p.places.hosts.place import RealPlace

    return RealPlace.of(
        name, load_hosts(hosts), programs, *PLACES, given=hosts
    )
