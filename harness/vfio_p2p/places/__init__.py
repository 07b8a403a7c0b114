# SPDX-License-Identifier: GPL-2.0-or-later
"""The places where jobs run."""

from __future__ import annotations

from vfio_p2p.devices import Driver
from vfio_p2p.errors import UsageError
from vfio_p2p.places.cache import CachedPlace
from vfio_p2p.places.job import Job
from vfio_p2p.places.place import LIMIT_S, Place
from vfio_p2p.places.sealed.place import SealedPlace
from vfio_p2p.qemu.program import Programs

__all__ = [
    "LIMIT_S",
    "PLACES",
    "CachedPlace",
    "Job",
    "Place",
    "open_place",
]

PLACES = ("sealed",)


def open_place(name: str, *, driver: Driver, programs: Programs) -> Place:
    """Open a place; `Place.check` then says whether it can be used.

    :param name: One of `PLACES`.
    :param driver: The kernel module whose devices the jobs are to get.
    :param programs: The programs that the jobs name.
    :raise UsageError: When there is no such place.
    """
    match name:
        case "sealed":
            return SealedPlace(driver, programs)
    raise UsageError(
        f"there is no place {name!r}",
        f"Give one of: {', '.join(PLACES)}.",
    )
