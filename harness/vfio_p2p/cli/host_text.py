# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts, and what is wrong with them, as lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from vfio_p2p.devices.vf.inventory import Inventory, PciFunction
from vfio_p2p.devices.vf.line import CheckLine
from vfio_p2p.plans.host.listing import ListedHost, driver_for

_WIDTH = 100
_ROW = "{:<14} {:<9} {:<15} {:>5} {:>5}  "
_MARKS = {True: "ok", False: "wrong", None: "?"}
_ROUTES = {"default": "default route", "ssh": "SSH connection"}


def check_lines(lines: Sequence[CheckLine]) -> Iterator[str]:
    """Yield what a check has found.

    :param lines: What was looked at.
    """
    for host, group in groupby(lines, key=lambda x: x.host):
        yield f"{host}:"
        for line in group:
            wanted = "" if line.ok else f"; wanted: {line.wanted}"
            mark = _MARKS[line.ok]
            yield f"  {mark:<5}  {line.subject}: {line.is_}{wanted}"
            if line.mend:
                yield f"         {line.mend}"
    wrong = sum(x.ok is False for x in lines)
    unknown = sum(x.ok is None for x in lines)
    yield (
        f"{len(lines)} things were looked at: {wrong} wrong, {unknown} not "
        "known"
    )


def host_lines(listed: ListedHost) -> Iterator[str]:
    """Yield what a host has, and what the caller may do there.

    :param listed: The host.
    """
    inventory, host = listed.inventory, listed.inventory.host
    parts = [
        f"Linux {host.kernel}",
        f"{host.cores} CPU{'' if host.cores == 1 else 's'}",
        f"{host.memory_kib >> 10} MiB",
        f"IOMMU {' '.join(host.iommu) or 'none'} ({host.iommu_groups} groups)",
        f"iproute2 {host.iproute2 or 'missing'}",
    ]
    yield from _wrapped(f"{listed.name}: ", ", ".join(parts), 2)
    if inventory.functions:
        yield _ROW.format(
            "function", "id", "driver", "group", "VFs"
        ) + "more"
    else:
        yield (
            "  no PCI function is virtual, can have virtual ones, or belongs "
            "to VFIO"
        )
    for function in _in_order(inventory):
        head = _ROW.format(
            ("  " if function.pf else "") + function.address,
            function.id,
            function.driver or "-",
            "-" if function.iommu_group is None else function.iommu_group,
            ""
            if function.totalvfs is None
            else f"{function.numvfs or 0}/{function.totalvfs}",
        )
        yield from _wrapped(head, "; ".join(_more(function)), len(head))
    yield from _wrapped("", _rights(inventory), 2)


def _in_order(inventory: Inventory) -> Iterator[PciFunction]:
    """Yield each PF, and then its VFs."""
    known = {x.address for x in inventory.functions}
    for function in inventory.functions:
        if function.pf not in known:
            yield function
            yield from inventory.vfs_of(function)


def _more(function: PciFunction) -> Iterator[str]:
    if name := driver_for(function):
        yield f"for {name}"
    yield from function.netdevs
    if function.bond:
        yield f"in {function.bond}"
    for reason in function.routes:
        yield _ROUTES[reason]
    if function.devlink and function.devlink.eswitch_mode:
        yield function.devlink.eswitch_mode
    if function.fw_version:
        yield f"firmware {function.fw_version} {function.psid}".strip()
    if function.port:
        yield from (f"{x} {y}" for x, y in function.port.caps.items())
    if function.migration.source:
        yield " ".join(function.migration.flags) or "no migration"
    elif function.migration.error:
        yield function.migration.error
    for user in function.users:
        yield f"used by PID {user.pid} ({user.name}, user {user.user})"
    if function.busy and not function.users:
        yield "in use"
    elif not (function.users or function.users_complete or
              function.busy is False):
        yield "users not known"


def _rights(inventory: Inventory) -> str:
    caller = inventory.caller
    nodes = {
        x.vfio.path: x.vfio.usable
        for x in inventory.functions
        if x.vfio.exists
    }
    usable = [path for path, able in nodes.items() if able]
    rights = f"may use {', '.join(usable)}" if usable else (
        "may use none of the groups" if nodes else ""
    )
    limit = caller.memlock_bytes
    memory = "any amount" if limit is None else f"{limit >> 10} KiB"
    parts = [
        rights,
        f"may lock {memory} of memory",
        "may use KVM" if inventory.host.kvm else "may not use KVM",
        "may become root by sudo" if caller.sudo and not caller.root else "",
    ]
    said = ", ".join(x for x in parts if x)
    return f"you are {caller.user}: {said}"


def _wrapped(head: str, text: str, indent: int) -> Iterator[str]:
    """Yield a text after its head, in lines that are not too long."""
    lines = textwrap.wrap(
        head + text,
        _WIDTH,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    yield from lines or [head.rstrip()]
