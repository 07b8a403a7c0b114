# SPDX-License-Identifier: GPL-2.0-or-later
"""Check whether hosts have what a migration needs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from vfio_p2p.devices.vf.check import check
from vfio_p2p.devices.vf.line import CheckLine
from vfio_p2p.devices.vf.wanted import (
    COUNT,
    RAM_MIB,
    HostsWanted,
    HostWanted,
    Needed,
)
from vfio_p2p.machine.host import open_host
from vfio_p2p.places.hosts.config import Functions
from vfio_p2p.places.hosts.guest_files import check_files
from vfio_p2p.plans.host.where import (
    Located,
    Where,
    locate,
    take_inventories,
)


@dataclass(frozen=True)
class HostCheckRequest:
    """What to check.

    :param where: The hosts.
    :param driver: The key of the variant driver; empty takes what
        ``hosts.toml`` says, or what fits.
    :param pf: The PF; empty takes what ``hosts.toml`` says, or the one that
        needs the least to be done.
    :param vfs: The number of VFs of each side that ``hosts.toml`` names, or
        else on the host; None takes what that file says, or one for each
        side.
    :param ram_mib: The memory of a guest.
    :param qemus: The QEMUs that shall run there, besides the one that
        ``hosts.toml`` names.
    :param probe: Open the devices that nobody uses, and ask them.
    """

    where: Where = field(default_factory=Where)
    driver: str = ""
    pf: str = ""
    vfs: int | None = None
    ram_mib: int = RAM_MIB
    qemus: tuple[str, ...] = ()
    probe: bool = False


def check_hosts(wanted: HostCheckRequest) -> tuple[CheckLine, ...]:
    """Examine one host, or both hosts of a pair.

    :param wanted: What to check.
    :raise SkipError: When a host has nothing to test on.
    :raise HostError: When a host cannot be reached.
    :raise InputError: When there is no such host or driver.
    """
    hosts = locate(wanted.where)
    named = (x.entry.qemu for x in hosts if x.entry and x.entry.qemu)
    found = take_inventories(
        hosts,
        probe=wanted.probe,
        programs=tuple(dict.fromkeys((*wanted.qemus, *named))),
    )
    lines = check(
        found, HostsWanted(host_wanted(hosts, wanted), wanted.ram_mib)
    )
    return (*lines, *asyncio.run(_guests(hosts)))


async def _guests(hosts: Sequence[Located]) -> tuple[CheckLine, ...]:
    """Look for the files of the users' own guests."""
    lines: list[CheckLine] = []
    for one in hosts:
        if one.entry is not None and one.entry.guest is not None:
            async with open_host(one.spec) as host:
                lines += await check_files(
                    one.spec.name, host, one.entry.guest
                )
    return tuple(lines)


def host_wanted(
    hosts: Sequence[Located], wanted: HostCheckRequest
) -> tuple[HostWanted, ...]:
    """Return what is wanted of each host.

    :param hosts: One host, or both hosts of a pair.
    :param wanted: What to check.
    """
    return tuple(_of_host(x, wanted, len(hosts)) for x in hosts)


def _of_host(
    host: Located, wanted: HostCheckRequest, hosts: int
) -> HostWanted:
    entry = host.entry
    needed: tuple[Needed, ...]
    if entry is None or wanted.pf:
        needed = (Needed(wanted.pf, wanted.vfs or COUNT // hosts),)
    elif hosts > 1 or entry.destination is None:
        # Each host of a pair takes the functions of its source.
        needed = (_needed(entry.source, wanted.vfs),)
    else:
        needed = (
            _needed(entry.source, wanted.vfs),
            _needed(entry.destination, wanted.vfs),
        )
    own = (entry.qemu,) if entry and entry.qemu else ()
    return HostWanted(
        host.spec.name,
        wanted.driver or (entry.driver if entry else ""),
        needed,
        tuple(dict.fromkeys((*wanted.qemus, *own))),
        wanted.where.options,
        known=bool(entry and not wanted.pf and not wanted.driver),
    )


def _needed(functions: Functions, number: int | None) -> Needed:
    count = number or functions.most
    return Needed(functions.pf, count, functions.vfs[:count])
