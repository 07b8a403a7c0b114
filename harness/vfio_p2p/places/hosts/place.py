# SPDX-License-Identifier: GPL-2.0-or-later
"""A place of real devices: one machine, or a pair of machines."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

import msgspec

from vfio_p2p.bundle.manifest import SCENARIO, ProgramInput
from vfio_p2p.bundle.provenance import GuestProvenance, HostProvenance
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.bundle.write import seal, writing
from vfio_p2p.clock import ClockOffset, combine
from vfio_p2p.devices.vf.fitting import as_played, unplayable
from vfio_p2p.devices.vf.inventory import Inventory
from vfio_p2p.errors import HostError, UsageError
from vfio_p2p.machine.clocks import measure
from vfio_p2p.machine.files import room_for
from vfio_p2p.places.hosts.accelerator import Accelerator
from vfio_p2p.places.hosts.config import (
    HostsFile,
    PairEntry,
    find_place,
)
from vfio_p2p.places.hosts.firmware import firmware_files
from vfio_p2p.places.hosts.guest import GuestEntry, own_guest
from vfio_p2p.places.hosts.machine import (
    Machine,
    choose_functions,
    open_machine,
)
from vfio_p2p.places.hosts.play import Stage, Wire, play
from vfio_p2p.places.hosts.station import (
    Crew,
    Station,
    check_guests,
    check_machines,
    check_named,
    encrypting,
    examine_qemus,
    listening,
    simulating,
    stations_of,
    wire_of,
)
from vfio_p2p.places.job import Job
from vfio_p2p.places.place import LIMIT_S
from vfio_p2p.progress import Progress
from vfio_p2p.qemu.program import Programs
from vfio_p2p.qemu.recipe import BuildRecipe
from vfio_p2p.scenario.argv import Launcher, joined
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.result import Result
from vfio_p2p.side import Side
from vfio_p2p.variant import INSTALLED

_NEEDED_BYTES = 64 << 20


class RealPlace:
    """A place of real devices.

    :param name: Its name in hosts.toml.
    :param stations: Its two sides.
    :param programs: Finds the programs that jobs name.
    :param wire: The network between its two machines; None if there is one.
    :param given: The path of hosts.toml; None is the usual one.
    """

    exact = False
    capacity = 1

    def __init__(
        self,
        name: str,
        stations: Mapping[Side, Station],
        programs: Programs,
        wire: Wire | None = None,
        given: Path | None = None,
    ) -> None:
        self._name = name
        self._stations = stations
        self._programs = programs
        self.plays: Callable[..., Awaitable[Result]] = play
        self._wire = wire
        self._tls = wire is not None and wire.tls
        self._given = given
        self._machines: dict[str, Machine] = {}
        self._firmware: dict[str, bytes] = {}
        # Whether the devices can be told how to behave.
        self._told = False
        self._opened = AsyncExitStack()
        # Whether a machine failed, so that it has to be reached anew.
        self._lost = False

    @classmethod
    def of(
        cls,
        name: str,
        hosts: HostsFile,
        programs: Programs,
        *others: str,
        given: Path | None = None,
    ) -> Self:
        """Make the place that hosts.toml describes.

        :param name: Its name.
        :param hosts: The file.
        :param programs: Finds the programs that jobs name.
        :param others: The names of places that are not in the file.
        :param given: The path of the file; None is the usual one.
        :raise UsageError: When there is no such place, or its driver is not
            known.
        """
        entry = find_place(name, hosts, dict.fromkeys(others))
        stations = stations_of(name, entry, hosts)
        wire = wire_of(entry) if isinstance(entry, PairEntry) else None
        return cls(name, stations, programs, wire, given)

    @property
    def name(self) -> str:
        """The name of the place."""
        return self._name

    def check(self) -> None:
        """Ask every machine whether the place can be used with builds."""
        if self._tls and not BuildRecipe.load().tls:
            raise UsageError(
                f"[pair.{self.name}] of hosts.toml has 'tls = true', and the "
                "QEMUs that vfio-p2p builds have no TLS",
                "Run the QEMUs that its hosts have themselves, with "
                f"'--variant {INSTALLED}', or remove 'tls'.",
            )
        asyncio.run(self._check())

    async def _check(self) -> None:
        async with self._connected():
            await self._check_machines()

    async def _check_machines(self) -> None:
        known = await self._inventories()
        # Whoever else has the cards explains what is found on them.
        async with self._holding(known):
            check_machines(
                self.name, self._stations.values(), known, self._given
            )
            await check_guests(self._stations.values(), self._machines)
            self._sides(known)

    def installed(self) -> dict[Side, ProgramInput]:
        """Check the place, and examine its own QEMUs.

        See `EquippedPlace`.
        """
        check_named(self.name, self._stations)
        return asyncio.run(self._installed())

    async def _installed(self) -> dict[Side, ProgramInput]:
        async with self._connected():
            found = await examine_qemus(
                self.name, self._stations, self._machines, tls=self._tls
            )
            await self._check_machines()
        return found

    def prepare(
        self, progress: Progress, scenarios: Iterable[Scenario]
    ) -> None:
        """Find the firmware in the cache, or make it."""
        self._firmware = firmware_files(progress)

    def refusal(self, scenario: Scenario) -> str:
        """Say why real devices cannot play a scenario; see `Place`."""
        return unplayable(
            scenario,
            min(x.functions.most for x in self._stations.values()),
            far=any(x.entry.ssh for x in self._stations.values()),
            told=self._told,
            alike=self._wire is not None,
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Hold the machines and their cards; see `Place`.

        :raise SkipError: When somebody else uses a card.
        """
        self._opened = AsyncExitStack()
        try:
            await self._open()
            yield
        finally:
            await self._opened.aclose()

    async def _open(self) -> None:
        """Connect to the machines, and take their cards."""
        await self._opened.enter_async_context(self._connected())
        known = await self._inventories()
        await self._opened.enter_async_context(self._holding(known))
        self._told = all(
            side.machine.driver.configurable
            and (side.known.caller.root or side.known.caller.sudo)
            for side in self._sides(known).values()
        )
        self._lost = False

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        """Keep sessions open on all machines for as long as the block lasts.

        The machines are reached at the same time, since a login takes long.
        """
        stations = {x.machine: x for x in self._stations.values()}
        async with AsyncExitStack() as stack:
            opened = await asyncio.gather(
                *(
                    stack.enter_async_context(
                        open_machine(
                            name, station.entry, station.driver, self._given
                        )
                    )
                    for name, station in stations.items()
                ),
                return_exceptions=True,
            )
            machines = []
            for machine in opened:
                if isinstance(machine, BaseException):
                    raise machine
                machines.append(machine)
            self._machines = {x.name: x for x in machines}
            try:
                yield
            finally:
                self._machines = {}

    @asynccontextmanager
    async def _holding(
        self, known: Mapping[str, Inventory]
    ) -> AsyncIterator[None]:
        """Keep others away from the cards of all machines."""
        async with AsyncExitStack() as stack:
            for name, machine in self._machines.items():
                cards = {
                    card
                    for station in self._stations.values()
                    if station.machine == name
                    for card in station.cards(known[name])
                }
                await stack.enter_async_context(
                    machine.holding(sorted(cards))
                )
            yield

    async def run(
        self, job: Job, out: Path, *, limit_s: float = LIMIT_S
    ) -> Bundle:
        """Run a job; see `Place`.

        :raise HostError: When a machine fails, or the limit is reached.
        :raise UsageError: When the devices cannot play the scenario.
        """
        if why := self.refusal(job.scenario):
            raise UsageError(
                f"{self.name} cannot play {job.scenario.name}: {why}",
                "Run it in the testbed, or choose another scenario.",
            )
        try:
            async with asyncio.timeout(limit_s):
                if self._lost:
                    # One machine that failed is no reason to give up all
                    # other runs.
                    await self._opened.aclose()
                    self._opened = AsyncExitStack()
                    await self._open()
                with room_for(out, _NEEDED_BYTES), writing(out) as partial:
                    await self._run(job, partial)
        except HostError:
            self._lost = True
            raise
        except TimeoutError:
            self._lost = True
            raise HostError(
                f"{self.name}: the run took longer than {limit_s:g} s",
                "Look at the load of the machines.",
            ) from None
        return open_bundle(out)

    async def _run(self, job: Job, folder: Path) -> None:
        sides = self._sides(await self._inventories())
        parameters: dict[str, int | str | bool] = {}
        for station in self._stations.values():
            parameters |= station.parameters
        guests = {
            side: own_guest(job.scenario, station.entry.guest)
            for side, station in self._stations.items()
        }
        played = msgspec.structs.replace(
            job,
            scenario=as_played(
                job.scenario,
                parameters,
                told=self._told,
                names={
                    f"{side.prefix}{number}": function.address
                    for side, at in sides.items()
                    for number, function in enumerate(at.functions)
                },
            ),
        )
        scenario = played.scenario
        launchers = {
            Side.SOURCE: await self._launcher(Side.SOURCE, job.source),
            Side.DESTINATION: await self._launcher(
                Side.DESTINATION, job.destination
            ),
        }
        accelerator = await self._accelerator(sides, launchers)
        stages = {
            side: await self._stage(
                side,
                sides[side],
                launchers[side],
                scenario,
                accelerator,
                guests.get(side),
            )
            for side in Side
        }
        described = {
            side: await sides[side].machine.guest_files.provenance(guest)
            for side, guest in guests.items()
            if guest
        }
        # Only devices that can be told how to behave keep logs.
        specs = scenario.each_device() if self._told else ()
        before = await self._offset(sides)
        async with (
            simulating(specs, sides, folder),
            encrypting(stages, self._wire) as equipped,
        ):
            await self.plays(scenario.course, equipped, folder, self._wire)
        after = await self._offset(sides)
        clock = combine(before, after) if before and after else None
        (folder / SCENARIO).write_bytes(scenario.to_json())
        provenance = self._provenance(
            sides, scenario, accelerator, described, clock
        )
        seal(folder, played.inputs(provenance))

    async def _launcher(self, side: Side, what: ProgramInput) -> Launcher:
        """Make the QEMU of one side ready to be started."""
        station = self._stations[side]
        machine = self._machines[station.machine]
        if what.variant == INSTALLED:
            return await machine.installed(
                station.entry.qemu, what.sha256, self._firmware
            )
        return await machine.launcher(
            self._programs.find(what), self._firmware
        )

    async def _inventories(self) -> dict[str, Inventory]:
        """Ask every machine what it has now."""
        found = await asyncio.gather(
            *(machine.inventory() for machine in self._machines.values())
        )
        return dict(zip(self._machines, found, strict=True))

    def _sides(self, known: Mapping[str, Inventory]) -> dict[Side, Crew]:
        return {
            side: Crew(
                self._machines[station.machine],
                known[station.machine],
                choose_functions(
                    self._machines[station.machine],
                    known[station.machine],
                    station.functions,
                ),
            )
            for side, station in self._stations.items()
        }

    async def _stage(
        self,
        side: Side,
        at: Crew,
        launcher: Launcher,
        scenario: Scenario,
        accelerator: Accelerator,
        guest: GuestEntry | None,
    ) -> Stage:
        station, host = self._stations[side], at.machine.host
        count = len(scenario.each_device())
        properties = station.properties(scenario, accelerator)
        return Stage(
            host=host,
            folder=Path(await host.private_folder()),
            launcher=launcher,
            devices=tuple(
                {"host": function.address, **properties}
                for function in at.functions[:count]
            ),
            arguments=(
                *accelerator.arguments,
                # The CPU of the user's own guest comes last.
                *(guest.arguments() if guest else ()),
            ),
            console=listening(scenario, guest),
        )

    async def _accelerator(
        self,
        sides: Mapping[Side, Crew],
        launchers: Mapping[Side, Launcher],
    ) -> Accelerator:
        """Choose what runs the guest; both sides need the same."""
        found = [
            await sides[side].machine.has_kvm(
                sides[side].known, launchers[side], station.entry.kvm
            )
            for side, station in self._stations.items()
        ]
        return Accelerator.KVM if all(found) else Accelerator.TCG

    async def _offset(
        self, sides: Mapping[Side, Crew]
    ) -> ClockOffset | None:
        if self._wire is None:
            return None
        return await measure(
            sides[Side.SOURCE].machine.host,
            sides[Side.DESTINATION].machine.host,
            self._wire.address[Side.DESTINATION],
        )

    def _provenance(
        self,
        sides: Mapping[Side, Crew],
        scenario: Scenario,
        accelerator: Accelerator,
        guests: Mapping[Side, GuestProvenance],
        clock: ClockOffset | None,
    ) -> HostProvenance:
        count = len(scenario.each_device())
        source, destination = (
            sides[side].machine.provenance(
                sides[side].known,
                sides[side].functions[:count],
                joined(
                    self._stations[side].properties(scenario, accelerator)
                ),
                self._stations[side].reasons(scenario, accelerator),
                accelerator,
                guests.get(side),
            )
            for side in Side
        )
        return HostProvenance(
            name=self.name,
            source=source,
            destination=destination,
            transport=self._wire.transport if self._wire else "unix",
            clock=clock,
        )
