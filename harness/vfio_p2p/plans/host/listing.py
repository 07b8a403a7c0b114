# SPDX-License-Identifier: GPL-2.0-or-later
"""List what hosts have."""

from __future__ import annotations

from dataclasses import dataclass, field

from vfio_p2p.devices.vf.drivers import load_drivers
from vfio_p2p.devices.vf.inventory import Inventory, PciFunction
from vfio_p2p.plans.host.where import Where, locate, take_inventories


@dataclass(frozen=True)
class HostListRequest:
    """What to list.

    :param where: The hosts.
    :param probe: Open the devices that nobody uses, and ask them.
    """

    where: Where = field(default_factory=Where)
    probe: bool = False


@dataclass(frozen=True)
class ListedHost:
    """A host, and what it has.

    :param name: The host's name.
    :param inventory: What it has.
    """

    name: str
    inventory: Inventory


def list_hosts(wanted: HostListRequest) -> tuple[ListedHost, ...]:
    """Take the inventories of one host, or of both hosts of a pair.

    :param wanted: What to list.
    :raise HostError: When a host cannot be reached.
    :raise InputError: When there is no such host, or it lets us not in.
    """
    hosts = locate(wanted.where)
    found = take_inventories(hosts, probe=wanted.probe)
    return tuple(
        ListedHost(x.spec.name, inventory)
        for x, inventory in zip(hosts, found, strict=True)
    )


def driver_for(function: PciFunction) -> str:
    """Return the key of the variant driver for a function, or "".

    :param function: A PF or a VF.
    """
    for name, driver in load_drivers().items():
        if driver.fits_pf(function) or driver.fits_vf(function):
            return name
    return ""
