# SPDX-License-Identifier: GPL-2.0-or-later
"""The places where jobs run."""

from __future__ import annotations

from vfio_p2p.choice import SEALED, PlaceChoice
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

PLACES = (SEALED,)


def open_place(where: PlaceChoice, programs: Programs) -> Place:
    """Open a place; `Place.check` then says whether it can be used.

    :param where: Which one.
    :param programs: The programs that the jobs name.
    :raise UsageError: When there is no such place, or it has no such
        devices.
    :raise ConfigError: When hosts.toml is wrong.
    """
    name = where.name
    if name == SEALED:
        return SealedPlace(
            where.driver, programs, boot=where.boot, kernel=where.kernel
        )
    if where.driver is not Driver.P2PSIM:
        raise UsageError(
            f"--device {where.driver} is for the testbed: {name} has real "
            "devices",
            f"Leave out --device, or --at {name}.",
        )
    if where.boot:
        raise UsageError(
            f"--boot is for the testbed: {name} has real hosts",
            f"Leave out --boot, or --at {name}.",
        )
    if where.kernel:
        raise UsageError(
            f"--kernel is for the testbed: {name} has the kernels of its "
            "hosts",
            f"Leave out --kernel, or --at {name}.",
        )
    # Only real devices need the code for hosts.
    from vfio_p2p.places.hosts.place import RealPlace

    return RealPlace.of(
        name,
        load_hosts(where.hosts),
        programs,
        *PLACES,
        given=where.hosts,
    )
