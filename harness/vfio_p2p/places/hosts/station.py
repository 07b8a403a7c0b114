# SPDX-License-Identifier: GPL-2.0-or-later
"""The two sides of a place of real devices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vfio_p2p.bundle.manifest import ProgramInput, device_log_of
from vfio_p2p.devices.p2pvf import function_settings
from vfio_p2p.devices.vf.check import check
from vfio_p2p.devices.vf.drivers import VariantDriver, find_driver
from vfio_p2p.devices.vf.inventory import Inventory, PciFunction
from vfio_p2p.devices.vf.line import CheckLine
from vfio_p2p.devices.vf.wanted import HostsWanted, HostWanted, Needed
from vfio_p2p.errors import HarnessError, SkipError, UsageError
from vfio_p2p.places.hosts.accelerator import Accelerator
from vfio_p2p.places.hosts.config import (
    Functions,
    HostEntry,
    HostsFile,
    PairEntry,
    options_of,
)
from vfio_p2p.places.hosts.guest import GuestEntry
from vfio_p2p.places.hosts.guest_files import check_files
from vfio_p2p.places.hosts.installed import check_tls, examine
from vfio_p2p.places.hosts.machine import Machine
from vfio_p2p.places.hosts.play import BEAT_S, Listening, Stage, Wire
from vfio_p2p.places.hosts.tls import credentials
from vfio_p2p.scenario.course import GuestProgram
from vfio_p2p.scenario.device import Device
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.side import Side
from vfio_p2p.variant import INSTALLED

# How the preflight calls the processes that have a device.
_USERS = " users"
# What the guest program says, from 1 on at the source.
_BEAT = "beat "


@dataclass(frozen=True)
class Station:
    """One side of a place, as hosts.toml describes it.

    :param machine: The name of its machine.
    :param entry: What the file says of the machine.
    :param functions: The functions that the side uses.
    :param driver: The variant driver of the functions.
    """

    machine: str
    entry: HostEntry
    functions: Functions
    driver: VariantDriver

    @classmethod
    def of(
        cls, machine: str, entry: HostEntry, functions: Functions
    ) -> Station:
        """Make a side of a place.

        :param machine: The name of its machine.
        :param entry: What the file says of the machine.
        :param functions: The functions that the side uses.
        :raise UsageError: When the driver is not known.
        """
        return cls(machine, entry, functions, find_driver(entry.driver))

    @property
    def parameters(self) -> dict[str, int | str | bool]:
        """The migration parameters that the side needs."""
        return {**self.driver.parameters, **self.entry.parameters}

    def cards(self, known: Inventory) -> set[str]:
        """The PFs of the functions, as far as the machine has them.

        A function that is no VF stands for itself.

        :param known: The inventory of the machine.
        """
        if self.functions.pf:
            found = [known.find(self.functions.pf)]
        else:
            found = [known.find(address) for address in self.functions.vfs]
        return {x.pf or x.address for x in found if x}

    def properties(
        self, scenario: Scenario, accelerator: Accelerator
    ) -> dict[str, str]:
        """The properties of QEMU's vfio-pci, without a device's own.

        :param scenario: The scenario, which has the last word.
        :param accelerator: What runs the guest.
        """
        needed = self.driver.properties_with(accelerator)
        return scenario.vfio_properties(
            {
                **{name: x.value for name, x in needed.items()},
                **self.entry.properties,
            }
        )

    def reasons(
        self, scenario: Scenario, accelerator: Accelerator
    ) -> dict[str, str]:
        """Why the driver's own properties are needed, by property.

        :param scenario: The scenario.
        :param accelerator: What runs the guest.
        """
        used = self.properties(scenario, accelerator)
        return {
            name: x.reason
            for name, x in self.driver.properties_with(accelerator).items()
            if used[name] == x.value
        }


@dataclass(frozen=True)
class Crew:
    """One side of a place during a run.

    :param machine: Its machine.
    :param known: What the machine had before the run.
    :param functions: The functions that the side may use.
    """

    machine: Machine
    known: Inventory
    functions: tuple[PciFunction, ...]


def stations_of(
    name: str, place: HostEntry | PairEntry, hosts: HostsFile
) -> dict[Side, Station]:
    """Return both sides of a place.

    :param name: The name of the place.
    :param place: The place.
    :param hosts: The file that describes it.
    :raise UsageError: When a driver is not known.
    """
    if isinstance(place, PairEntry):
        names = {
            Side.SOURCE: place.source,
            Side.DESTINATION: place.destination,
        }
        return {
            side: Station.of(machine, entry, entry.source)
            for side, machine in names.items()
            for entry in (hosts.host[machine],)
        }
    # `find_place` returns no other.
    assert place.destination
    return {
        Side.SOURCE: Station.of(name, place, place.source),
        Side.DESTINATION: Station.of(name, place, place.destination),
    }


def wire_of(pair: PairEntry) -> Wire:
    """Return the network between the machines of a pair.

    :param pair: The pair.
    """
    return Wire(
        {
            Side.SOURCE: pair.link.source,
            Side.DESTINATION: pair.link.destination,
        },
        tls=pair.tls,
    )


@asynccontextmanager
async def simulating(
    specs: Sequence[Device], sides: Mapping[Side, Crew], folder: Path
) -> AsyncIterator[None]:
    """Tell devices how to behave, and fetch their logs after the block.

    :param specs: How each device of a side is to behave; empty if devices
        cannot be told.
    :param sides: What each side has.
    :param folder: Where the logs go.
    :raise HostError: When a machine fails.
    """
    if not specs:
        yield
        return
    async with AsyncExitStack() as stack:
        sessions = {}
        for side, at in sides.items():
            settings = {
                function.address: function_settings(spec, side)
                for function, spec in zip(at.functions, specs, strict=False)
            }
            sessions[side] = (
                await stack.enter_async_context(
                    at.machine.simulating(settings)
                ),
                tuple(settings),
            )
        yield
        for side, (session, addresses) in sessions.items():
            for address in addresses:
                await session.send({"log": address})
                answer = await session.receive()
                path = folder / device_log_of(side, address)
                path.parent.mkdir(exist_ok=True)
                path.write_text(answer["log"])


@asynccontextmanager
async def encrypting(
    stages: Mapping[Side, Stage], wire: Wire | None
) -> AsyncIterator[Mapping[Side, Stage]]:
    """Give the QEMUs keys while the block lasts, if they need them.

    :param stages: Where the QEMUs of each side run.
    :param wire: The network between their machines, if there are two.
    :return: The same stages, with the keys.
    :raise HostError: When a machine does not take the keys.
    """
    if wire is None or not wire.tls:
        yield stages
        return
    hosts = {side: stage.host for side, stage in stages.items()}
    async with credentials(hosts, wire.address) as arguments:
        yield {
            side: replace(
                stage, arguments=(*stage.arguments, *arguments[side])
            )
            for side, stage in stages.items()
        }


def check_machines(
    place: str,
    stations: Iterable[Station],
    known: Mapping[str, Inventory],
    given: Path | None = None,
) -> None:
    """Check that machines have what a migration needs.

    :param place: The name of the place.
    :param stations: Its sides.
    :param known: What each machine has, by name.
    :param given: The path of hosts.toml; None is the usual one.
    :raise UsageError: When something is not as it has to be.
    :raise SkipError: When there is nothing to test on, or somebody else uses
        a device.
    """
    sides = list(stations)
    wanted = tuple(
        HostWanted(
            machine,
            of_machine[0].entry.driver,
            tuple(
                Needed(x.functions.pf, x.functions.most, x.functions.vfs)
                for x in of_machine
            ),
            options=options_of(place, given),
        )
        for machine in known
        for of_machine in ([x for x in sides if x.machine == machine],)
    )
    for line in check(tuple(known.values()), HostsWanted(wanted)):
        if line.ok is False:
            raise _error(line)


async def examine_qemus(
    place: str,
    stations: Mapping[Side, Station],
    machines: Mapping[str, Machine],
    *,
    tls: bool,
) -> dict[Side, ProgramInput]:
    """Find out which QEMUs the machines of a place have themselves.

    :param place: The name of the place.
    :param stations: Its sides.
    :param machines: Its machines, by name.
    :param tls: Whether they have to encrypt the migration.
    :return: The QEMU of each side.
    :raise UsageError: When a machine names none, or it cannot be used.
    :raise HostError: When a machine is gone.
    """
    check_named(place, stations)
    found: dict[str, ProgramInput] = {}
    for station in stations.values():
        name, path = station.machine, station.entry.qemu
        if name not in found:
            host = machines[name].host
            found[name] = await examine(host, path)
            if tls:
                await check_tls(host, place, path)
    return {side: found[x.machine] for side, x in stations.items()}


def check_named(place: str, stations: Mapping[Side, Station]) -> None:
    """See that every machine of a place names a QEMU of its own.

    :param place: The name of the place.
    :param stations: Its sides.
    :raise UsageError: When one does not.
    """
    for station in stations.values():
        if not station.entry.qemu:
            name = station.machine
            raise UsageError(
                f"{place} has no QEMU for the variant {INSTALLED!r}: "
                f"[host.{name}] of hosts.toml names none",
                "Add the path of the QEMU that is installed there, as in "
                f'qemu = "/usr/bin/qemu-system-x86_64", to [host.{name}], or '
                "choose another variant.",
            )


async def check_guests(
    stations: Iterable[Station], machines: Mapping[str, Machine]
) -> None:
    """Check that machines have the files of the user's own guest.

    :param stations: The sides of a place.
    :param machines: The machines, by name.
    :raise UsageError: When a file is missing.
    """
    for station in stations:
        for line in await check_files(
            station.machine,
            machines[station.machine].host,
            station.entry.guest,
        ):
            if not line.ok:
                raise _error(line)


def listening(
    scenario: Scenario, guest: GuestEntry | None
) -> Listening | None:
    """Say what is expected of a guest's console; None reads none.

    :param scenario: The scenario.
    :param guest: The user's own guest, if the scenario runs it.
    """
    if guest is not None:
        return Listening(guest.wait_for, guest.wait_s, needed=True)
    if scenario.guest.program is GuestProgram.HEARTBEAT:
        # A guest that never beats is for the oracle to judge.
        return Listening(_BEAT, BEAT_S, needed=False)
    return None


def _error(line: CheckLine) -> HarnessError:
    """Turn what a preflight found wrong into the error of a command."""
    what = (
        f"{line.host}, {line.subject}: {line.is_}, but {line.wanted} is "
        "wanted"
    )
    # A device that somebody else uses is free again later.
    kind = SkipError if line.subject.endswith(_USERS) else UsageError
    return kind(what, line.mend)
