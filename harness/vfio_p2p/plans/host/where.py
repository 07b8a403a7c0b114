# SPDX-License-Identifier: GPL-2.0-or-later
"""Which hosts a command is about, and what they have."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vfio_p2p.devices.vf.drivers import load_drivers
from vfio_p2p.devices.vf.inventory import Inventory, PciFunction, decode
from vfio_p2p.errors import UsageError
from vfio_p2p.machine.host import THIS_MACHINE, Host, HostSpec, open_host
from vfio_p2p.names import suggest
from vfio_p2p.places.hosts.config import (
    FILE,
    HostEntry,
    HostsFile,
    load_hosts,
    options_of,
)
from vfio_p2p.places.hosts.machine import spec_of

# Programs of the card's maker take their time.
_LIMIT_S = 180


@dataclass(frozen=True)
class Where:
    """Which hosts a command is about: this machine, unless one is named.

    :param at: The name of a host or pair in ``hosts.toml``.
    :param ssh: Where the host is, ``[USER@]HOST[:PORT]``.
    :param hosts: The file to use as ``hosts.toml``.
    """

    at: str = ""
    ssh: str = ""
    hosts: Path | None = None

    @property
    def options(self) -> str:
        """The same as options of the command line, after a space."""
        if self.at:
            return options_of(self.at, self.hosts)
        return f" {shlex.join(['--ssh', self.ssh])}" if self.ssh else ""


@dataclass(frozen=True)
class Located:
    """A host, and how it is reached.

    :param spec: How it is reached.
    :param entry: What ``hosts.toml`` says about it, if it is named there.
    """

    spec: HostSpec
    entry: HostEntry | None = None


def locate(where: Where) -> tuple[Located, ...]:
    """Return one host, or both hosts of a pair, the source first.

    :param where: Which.
    :raise ConfigError: When ``hosts.toml`` is wrong.
    :raise UsageError: When there is no such host.
    """
    if where.ssh:
        spec = HostSpec(where.ssh, where.ssh, options=where.options)
        return (Located(spec),)
    if not where.at:
        return (Located(HostSpec(name=THIS_MACHINE)),)
    file = load_hosts(where.hosts)
    names = _names(where.at, file)
    return tuple(
        Located(
            spec_of(name, file.host[name], where.hosts), file.host[name]
        )
        for name in names
    )


def _names(at: str, file: HostsFile) -> tuple[str, ...]:
    if at in file.pair:
        pair = file.pair[at]
        return pair.source, pair.destination
    if at not in file.host:
        raise UsageError(
            f"there is no host or pair {at!r}",
            suggest(at, (*file.host, *file.pair))
            + f" They are described in {FILE}.",
        )
    return (at,)


def take_inventories(
    hosts: Sequence[Located],
    *,
    probe: bool = False,
    programs: Sequence[str] = (),
) -> tuple[Inventory, ...]:
    """Take the inventories of some hosts, all at once.

    :param hosts: The hosts.
    :param probe: Open the devices that nobody uses, and ask them.
    :param programs: The paths of programs to look for.
    :raise HostError: When a host cannot be reached.
    """

    async def of(spec: HostSpec) -> Inventory:
        async with open_host(spec) as host:
            return await take_inventory(
                host, sudo=spec.sudo, probe=probe, programs=programs
            )

    async def all_of_them() -> list[Inventory]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(of(x.spec)) for x in hosts]
        return [x.result() for x in tasks]

    try:
        return tuple(asyncio.run(all_of_them()))
    except ExceptionGroup as err:
        # Two hosts may fail at once; the first error is as good as both.
        raise err.exceptions[0] from None


async def take_inventory(
    host: Host,
    *,
    sudo: bool = False,
    probe: bool = False,
    programs: Sequence[str] = (),
) -> Inventory:
    """Take the inventory of a host.

    Root sees more than a user, but only the user knows what the user may do.

    :param host: The host.
    :param sudo: Whether the user becomes root by ``sudo``.
    :param probe: Open the devices that nobody uses, and ask them.
    :param programs: The paths of programs to look for.
    """
    modules = ",".join(x.module for x in load_drivers().values())
    arguments = ["inventory", f"--modules={modules}"]
    arguments += [f"--program={x}" for x in programs]
    probing = ["--probe"] if probe else []
    if not sudo:
        return await _ask(host, [*arguments, *probing], root=False)
    mine = await _ask(host, arguments, root=False)
    if mine.caller.root:
        return await _ask(host, [*arguments, *probing], root=False)
    seen = await _ask(host, [*arguments, *probing], root=True)
    return msgspec.structs.replace(
        seen,
        caller=mine.caller,
        host=msgspec.structs.replace(
            seen.host, kvm=mine.host.kvm, programs=mine.host.programs
        ),
        functions=tuple(_usable_as(x, mine) for x in seen.functions),
    )


async def _ask(
    host: Host, arguments: Sequence[str], *, root: bool
) -> Inventory:
    document = await host.agent(arguments, limit_s=_LIMIT_S, root=root)
    return decode(document, host.name)


def _usable_as(function: PciFunction, mine: Inventory) -> PciFunction:
    """Return a function with the rights of the user in place of root's."""
    seen = mine.find(function.address)
    usable = bool(seen and seen.vfio.usable)
    node = msgspec.structs.replace(function.vfio, usable=usable)
    return msgspec.structs.replace(function, vfio=node)
