# SPDX-License-Identifier: GPL-2.0-or-later
"""Set hosts up for tests, and put them back as they were.

The agent makes the changes, on the host and as root, and keeps a ledger of
them there; see `vfio_p2p.agent.ledger`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from vfio_p2p.devices.vf.drivers import VariantDriver, find_driver
from vfio_p2p.devices.vf.inventory import Inventory
from vfio_p2p.errors import HarnessError, HostError, UsageError
from vfio_p2p.machine.host import Host, open_host
from vfio_p2p.places.hosts.config import FILE, Functions
from vfio_p2p.places.hosts.requester import requester
from vfio_p2p.plans.host.listing import driver_for
from vfio_p2p.plans.host.where import (
    Located,
    Where,
    locate,
    take_inventory,
)

FORMAT = 1

_Answer = TypeVar("_Answer", "PreparedHost", "RestoredHost")

# A card's firmware takes its time for many virtual functions.
_LIMIT_S = 600


@dataclass(frozen=True)
class PrepareRequest:
    """How hosts are to be set up.

    :param where: The hosts.
    :param pf: The PF whose VFs are wanted; empty takes what ``hosts.toml``
        says.
    :param count: How many VFs of it.
    :param vfs: The VFs, where they are named.
    :param driver: The key of the variant driver; empty takes what
        ``hosts.toml`` says, or what fits.
    :param owner: The user of the host who may open the VFs; empty takes the
        one as whom the host is reached.
    :param eswitch: The mode of the card's switch; None takes the driver's.
    :param port_caps: Port function caps, which add to those of the driver.
    :param replace: Whether VFs that are in use by other drivers, or too
        few, may be taken away for a while.
    """

    where: Where = field(default_factory=Where)
    pf: str = ""
    count: int | None = None
    vfs: tuple[str, ...] = ()
    driver: str = ""
    owner: str = ""
    eswitch: str | None = None
    port_caps: tuple[tuple[str, str], ...] = ()
    replace: bool = False


@dataclass(frozen=True)
class RestoreRequest:
    """Which hosts are to be put back.

    :param where: The hosts.
    :param pf: The only PF that is put back; empty for all.
    """

    where: Where = field(default_factory=Where)
    pf: str = ""


class PreparedFunction(msgspec.Struct, frozen=True):
    """A VF that is ready.

    :param address: Its PCI address.
    :param group: The number of its IOMMU group.
    :param path: The node of the group, which QEMU opens.
    """

    address: str
    group: int
    path: str


class PreparedHost(msgspec.Struct, frozen=True):
    """A host that is set up.

    :param vfs: Its VFs that are ready.
    :param ledger: The file that says how the host is put back.
    :param changed: Whether anything was done; it was ready before if not.
    :param loaded: Kernel modules that were loaded, and stay.
    :param recovered: How many changes of an unfinished preparation were
        undone first.
    :param name: The host's name.
    """

    vfs: tuple[PreparedFunction, ...]
    ledger: str
    changed: bool
    loaded: tuple[str, ...]
    recovered: int
    name: str = ""


class RestoredHost(msgspec.Struct, frozen=True):
    """A host that is put back.

    :param undone: How many changes were undone.
    :param dropped: Whether there was a ledger of an earlier boot, which says
        nothing about this one.
    :param name: The host's name.
    """

    undone: int
    dropped: bool
    name: str = ""


def prepare_hosts(wanted: PrepareRequest) -> tuple[PreparedHost, ...]:
    """Set up one host, or both hosts of a pair.

    If the second host cannot be set up, the first is put back.

    :param wanted: How.
    :raise UsageError: When the request makes no sense.
    :raise SkipError: When something is in use or taken.
    :raise HostError: When a host cannot be reached, or does not do it.
    """
    hosts = locate(wanted.where)
    if len(hosts) > 1 and (wanted.pf or wanted.vfs):
        raise UsageError(
            f"{wanted.where.at} is a pair, and addresses are those of one "
            "host",
            "Name one host of the pair, or no addresses.",
        )
    return asyncio.run(_prepare(hosts, wanted))


def restore_hosts(wanted: RestoreRequest) -> tuple[RestoredHost, ...]:
    """Put back one host, or both hosts of a pair.

    :param wanted: Which.
    :raise SkipError: When a function is in use or taken.
    :raise HostError: When a host cannot be reached, or does not do it. The
        other host of a pair is put back anyway.
    """
    return asyncio.run(_restore(locate(wanted.where), wanted.pf))


async def _prepare(
    hosts: Sequence[Located], wanted: PrepareRequest
) -> tuple[PreparedHost, ...]:
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(open_host(x.spec)) for x in hosts
        ]
        done: list[tuple[Host, PreparedHost]] = []
        try:
            for host, located in zip(opened, hosts, strict=True):
                done.append((host, await _set_up(host, located, wanted)))
        except BaseException:
            for host, prepared in done:
                if prepared.changed:
                    await _ask(host, ["restore", "--who", requester()])
            raise
        return tuple(x for _, x in done)


async def _set_up(
    host: Host, located: Located, wanted: PrepareRequest
) -> PreparedHost:
    inventory = await take_inventory(host, sudo=located.spec.sudo)
    functions = _functions(located, wanted)
    driver = _driver(located, wanted, functions, inventory)
    who = requester()
    document = {
        "format": FORMAT,
        "pfs": {x.pf: x.count for x in functions if x.pf},
        "vfs": [vf for x in functions for vf in x.vfs],
        "driver": driver.driver,
        "owner": _owner(wanted.owner, inventory),
        "replace": wanted.replace,
        "who": who,
        **_switch(driver, wanted, functions, inventory),
    }
    request = json.dumps(document).encode()
    answer = await _ask(host, ["prepare", "--who", who], request)
    return _decoded(answer, PreparedHost, host.name)


def _functions(
    located: Located, wanted: PrepareRequest
) -> tuple[Functions, ...]:
    if wanted.pf or wanted.vfs:
        return (
            Functions(pf=wanted.pf, count=wanted.count, vfs=wanted.vfs),
        )
    entry = located.entry
    if entry is None:
        raise UsageError(
            "no functions are named",
            "Name them with --pf and --count or with --vf, or a host of "
            f"{FILE} with --at.",
        )
    if wanted.where.at != located.spec.name or entry.destination is None:
        # Each host of a pair takes the functions of its source.
        return (entry.source,)
    return entry.source, entry.destination


def _driver(
    located: Located,
    wanted: PrepareRequest,
    functions: Sequence[Functions],
    inventory: Inventory,
) -> VariantDriver:
    name = wanted.driver
    if not name and located.entry:
        name = located.entry.driver
    if name:
        return find_driver(name)
    for address in _addresses(functions):
        found = inventory.find(address)
        name = driver_for(found) if found else ""
        if name:
            return find_driver(name)
    raise UsageError(
        f"{located.spec.name}: it is unknown which driver the functions "
        "need",
        f"Name it with --driver; 'vfio-p2p host list{wanted.where.options}' "
        "prints what is there.",
    )


def _addresses(functions: Sequence[Functions]) -> list[str]:
    return [y for x in functions for y in (x.pf, *x.vfs) if y]


def _owner(name: str, inventory: Inventory) -> dict[str, Any] | None:
    if not name:
        if inventory.caller.uid == 0:
            return None
        name = inventory.caller.user
    return {"user": name}


def _switch(
    driver: VariantDriver,
    wanted: PrepareRequest,
    functions: Sequence[Functions],
    inventory: Inventory,
) -> dict[str, Any]:
    """Return what is asked of the card's switch."""
    eswitch = wanted.eswitch or driver.eswitch or None
    caps = dict(driver.port_caps)
    if driver.devlink_optional and not _in_devlink(functions, inventory):
        eswitch, caps = wanted.eswitch, {}
    caps.update(wanted.port_caps)
    return {"eswitch": eswitch, "port_caps": caps}


def _in_devlink(
    functions: Sequence[Functions], inventory: Inventory
) -> bool:
    """Whether devlink knows the PF of one of the functions."""
    for address in _addresses(functions):
        found = inventory.find(address)
        pf = inventory.find(found.pf) if found and found.pf else found
        if pf and pf.devlink is not None:
            return True
    return False


async def _restore(
    hosts: Sequence[Located], pf: str
) -> tuple[RestoredHost, ...]:
    arguments = ["restore", "--who", requester()]
    arguments += ["--pf", pf] if pf else []
    done = []
    errors = []
    for located in hosts:
        try:
            async with open_host(located.spec) as host:
                answer = await _ask(host, arguments)
                done.append(_decoded(answer, RestoredHost, host.name))
        except HarnessError as err:
            errors.append(err)
    if errors:
        raise errors[0]
    return tuple(done)


async def _ask(
    host: Host, arguments: Sequence[str], stdin: bytes = b""
) -> Any:
    return await host.agent(
        arguments, stdin=stdin, limit_s=_LIMIT_S, root=True
    )


def _decoded(answer: Any, kind: type[_Answer], name: str) -> _Answer:
    try:
        found = msgspec.convert(answer, kind)
    except msgspec.ValidationError as err:
        raise HostError(
            f"{name}: the agent's answer makes no sense: {err}",
            "Please report it.",
        ) from err
    return msgspec.structs.replace(found, name=name)
