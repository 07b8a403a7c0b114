# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMUs of one run, and the execution of its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import assert_never

from vfio_p2p.machine.errors import (
    CommandError,
    ConnectionLostError,
    MigrationFailedError,
    StepTimeoutError,
    VMError,
)
from vfio_p2p.machine.qemu import Qemu
from vfio_p2p.scenario import hotplug, snapshot
from vfio_p2p.scenario.argv import device_properties
from vfio_p2p.scenario.cleanup import POLL_S, cleaned_up, cleanups, traced
from vfio_p2p.scenario.course import Course
from vfio_p2p.scenario.encryption import encrypt, write_key
from vfio_p2p.scenario.leg import Leg
from vfio_p2p.scenario.relay import relay
from vfio_p2p.scenario.step import (
    FINAL,
    Cancel,
    Cont,
    Continue,
    Incoming,
    Kill,
    LoadVM,
    Migrate,
    Plug,
    Reset,
    SaveVM,
    Status,
    Step,
    Stop,
    Turn,
    Unplug,
    Wait,
)
from vfio_p2p.side import Side, side_of
from vfio_p2p.tells import Tells


class Session:
    """One run: its QEMUs, and the steps that were done so far.

    :param course: The course of the run.
    :param make: Makes the QEMU for the devices of a side; it is not started.
    :param stack: Whatever is put on this stack ends with the run.
    :param private: A folder for sockets and disk images.
    :param before_migration: Called when both sides are up, before the first
        migration.
    :param devices: The properties that the place gives each device, by side,
        for those that are plugged later.
    """

    def __init__(
        self,
        course: Course,
        make: Callable[[Side], Awaitable[Qemu]],
        stack: AsyncExitStack,
        private: Path,
        before_migration: Callable[[], None] | None = None,
        devices: Mapping[Side, Sequence[Mapping[str, str]]] | None = None,
    ) -> None:
        self._course = course
        self._limits = course.limits
        self._make = make
        self._stack = stack
        self._private = private
        self._before_migration = before_migration
        self._devices = devices or {}
        # The numbers of the devices that both VMs have now.
        self._present = course.starting()
        # The side whose devices the QEMU in each role has now.
        self._sides = {role: role for role in Side}
        self._cast: dict[Side, Qemu] = {}
        self.vms: list[Qemu] = []
        self.legs: list[Leg] = []
        self.killed: list[str] = []
        self.mute: list[str] = []
        self.guest: dict[str, str] = {}
        self.at = ""
        self.done = 0

    async def prepare(self) -> None:
        """Make the first QEMU of each side."""
        for role in Side:
            await self._add(role)

    async def run(self) -> None:
        """Do all steps, then end all QEMUs.

        :raise VMError: When a step fails.
        """
        for role in Side:
            await self._cast[role].start(self._limits.launch_s)
        for role in Side:
            await self._configure(self._cast[role])
        for number, step in enumerate(self._course.steps, 1):
            self.at = f"step {number} ({step})"
            await self._do(step)
            self.done = number
        self.at = "the end"
        await self._gone()
        for vm in self.vms:
            if vm.running:
                await self.ask(vm, self._limits.command_s)
        for vm in self.vms:
            if vm.running:
                await vm.quit(self._limits.quit_s)

    async def ask(self, vm: Qemu, limit_s: float) -> None:
        """Ask for the run state of a guest, and note it.

        :param vm: The QEMU of the guest.
        :param limit_s: The limit in seconds.
        :raise VMError: When QEMU does not answer.
        """
        match await vm.execute("query-status", limit_s=limit_s):
            case {"status": str(status)}:
                self.guest[vm.side] = status

    async def wind_up(self, error: VMError) -> None:
        """End the QEMUs of a run that was cut short.

        A QEMU that still answers is told to quit, so that its traces are
        whole.  The stack kills the others.  If a time limit has struck and
        one QEMU does not answer, no QEMU is told to quit, so that the traces
        show the state in which they hung.

        :param error: Why the run was cut short.
        """
        limit_s = self._limits.quit_s
        if isinstance(error, StepTimeoutError):
            for vm in self.vms:
                try:
                    if vm.running:
                        await self.ask(vm, limit_s)
                except StepTimeoutError:
                    self.mute.append(vm.side)
                except VMError:
                    pass    # QEMU has ended, or has never answered
        if self.mute:
            for vm in self.vms:
                if vm.running and vm.side not in self.mute:
                    # This one first: if the mute one were gone, this one
                    # would continue its migration.
                    self._stack.push_async_callback(vm.kill)
            return
        for vm in self.vms:
            with suppress(VMError):
                if vm.running:
                    await self.ask(vm, limit_s)
                    await vm.quit(limit_s)

    async def _add(self, role: Side) -> Qemu:
        vm = await self._make(self._sides[role])
        self._cast[role] = vm
        self.vms.append(vm)
        return vm

    async def _configure(self, vm: Qemu) -> None:
        migration = self._course.migration
        limit_s = self._limits.command_s
        wanted = {**migration.capabilities, "events": True}
        await vm.execute(
            "migrate-set-capabilities",
            {
                "capabilities": [
                    {"capability": name, "state": state}
                    for name, state in wanted.items()
                ]
            },
            limit_s=limit_s,
        )
        if migration.parameters:
            await vm.execute(
                "migrate-set-parameters",
                dict(migration.parameters),
                limit_s=limit_s,
            )

    async def _do(self, step: Step) -> None:
        match step:
            case Migrate():
                await self._migrate(step)
            case Incoming():
                await self._incoming()
            case Wait(on=role, status=status):
                if status:
                    await self._await(role, status)
                else:
                    await self._traced(self._cast[role], step.trace)
            case Stop(on=role):
                await self._execute(role, "stop")
            case Cont(on=role):
                await self._execute(role, "cont")
            case Reset(on=role):
                await self._reset(self._cast[role])
            case Cancel():
                await self._execute(Side.SOURCE, "migrate_cancel")
            case Continue():
                await self._execute(
                    Side.SOURCE,
                    "migrate-continue",
                    state=Status.PRE_SWITCHOVER.value,
                )
            case Kill(on=role):
                self.killed.append(self._cast[role].side)
                await self._cast[role].kill()
            case Unplug(device=number):
                for role in Side:
                    await self._unplug(self._cast[role], number)
                self._present = tuple(
                    x for x in self._present if x != number
                )
            case Plug(device=number):
                for role in Side:
                    await self._plug(self._cast[role], number)
                self._present = (*self._present, number)
            case SaveVM():
                vm = self._cast[Side.SOURCE]
                image = self._private / f"{vm.side}.qcow2"
                await snapshot.save(vm, image, self._limits)
            case LoadVM():
                await snapshot.load(self._cast[Side.SOURCE], self._limits)
            case Turn():
                await self._turn()
            case _:
                assert_never(step)

    async def _execute(
        self, role: Side, command: str, **arguments: str
    ) -> None:
        await self._cast[role].execute(
            command, arguments or None, limit_s=self._limits.command_s
        )

    async def _migrate(self, step: Migrate) -> None:
        source = self._cast[Side.SOURCE]
        destination = self._cast[Side.DESTINATION]
        if not destination.running:
            destination = await self._fresh()
        if not self.legs and self._before_migration:
            self._before_migration()
        if self._course.migration.tls:
            await self._encrypt()
        path = self._private / f"migration-{len(self.legs) + 1}"
        if not step.through:
            await self._execute(
                Side.DESTINATION, "migrate-incoming", uri=f"unix:{path}"
            )
        if step.cut_bytes is not None:
            target, path = path, path.with_suffix(".cut")
            await self._stack.enter_async_context(
                relay(path, target, step.cut_bytes)
            )
        leg = Leg(
            source,
            destination,
            len(source.statuses),
            cleanups(source),
            file=path if step.through else None,
        )
        how = step.through or "unix"
        await self._execute(Side.SOURCE, "migrate", uri=f"{how}:{path}")
        # A migration that QEMU refused does not count.
        self.legs.append(leg)

    async def _incoming(self) -> None:
        """Let the destination read the file of the last migration."""
        leg = self.legs[-1]
        leg.read = True
        await self._execute(
            Side.DESTINATION, "migrate-incoming", uri=f"file:{leg.file}"
        )

    async def _encrypt(self) -> None:
        """Encrypt the next migration."""
        folder = self._private / "tls"
        write_key(folder)
        for role in Side:
            await encrypt(
                self._cast[role], role, folder, self._limits.command_s
            )

    async def _fresh(self) -> Qemu:
        """Give the destination's devices a new QEMU."""
        vm = await self._add(Side.DESTINATION)
        await vm.start(self._limits.launch_s)
        await self._configure(vm)
        # It starts with the same devices as the first one did.
        starting = self._course.starting()
        for number in starting:
            if number not in self._present:
                await self._unplug(vm, number)
        for number in self._present:
            if number not in starting:
                await self._plug(vm, number)
        return vm

    async def _turn(self) -> None:
        old = self._cast[Side.SOURCE]
        await self.ask(old, self._limits.command_s)
        await old.quit(self._limits.quit_s)
        source, destination = (self._sides[role] for role in Side)
        self._sides = {Side.SOURCE: destination, Side.DESTINATION: source}
        self._cast[Side.SOURCE] = self._cast[Side.DESTINATION]
        await self._fresh()

    async def _plug(self, vm: Qemu, number: int) -> None:
        given = self._devices[side_of(vm.side)][number]
        await hotplug.plug(
            vm,
            device_properties(self._course, number, given, vm.tells),
            self._limits,
        )

    async def _unplug(self, vm: Qemu, number: int) -> None:
        await hotplug.unplug(vm, f"vfio{number}", self._limits)

    async def _reset(self, vm: Qemu) -> None:
        await vm.execute("system_reset", limit_s=self._limits.command_s)
        async with vm.step("reset", self._limits.settle_s):
            while (await vm.next_event("reset"))["event"] != "RESET":
                pass

    async def _traced(self, vm: Qemu, text: str) -> None:
        """Wait until the log contains a text."""
        if vm.tells is not Tells.LOG:
            raise CommandError(vm.side, "this QEMU writes no log to wait for")
        async with vm.step("trace", self._limits.migrate_s):
            while text.encode() not in traced(vm):
                await vm.check_alive("trace")
                await asyncio.sleep(POLL_S)

    async def _await(self, role: Side, status: Status) -> None:
        """Wait for a status of the migration, and for what goes with it."""
        leg = self.legs[-1]
        if role is Side.DESTINATION:
            await self._reaches(leg, leg.destination, status)
            return
        killed = leg.destination.side in self.killed
        if status is Status.COMPLETED and not killed and not leg.file:
            await self._both_complete(leg)
        else:
            await self._reaches(leg, leg.source, status)
        if status not in FINAL:
            return
        due = leg.cleaned + len(self._present)
        await cleaned_up(leg.source, due, self._limits.settle_s)
        if status is Status.COMPLETED:
            await self._settled(leg)
        else:
            await self._explain(leg)
            await self._gone()

    async def _reaches(self, leg: Leg, vm: Qemu, wanted: Status) -> None:
        """Wait until one side has reported a status of the migration."""
        before = leg.told if vm is leg.source else 0
        async with vm.step("migration", self._limits.migrate_s):
            while True:
                told = vm.statuses[before:]
                if wanted in told:
                    return
                if told and told[-1] in FINAL:
                    break
                await vm.next_event("migration")
        # A destination that fails exits; only the source can be asked.
        if vm is leg.source:
            await self._explain(leg)
        raise MigrationFailedError(
            vm.side, f"migration {told[-1]}: {leg.reason or 'no reason'}"
        )

    async def _explain(self, leg: Leg) -> None:
        """Ask the source why the migration failed."""
        match await leg.source.execute(
            "query-migrate", limit_s=self._limits.command_s
        ):
            case {"error-desc": str(why)}:
                leg.reason = why

    async def _both_complete(self, leg: Leg) -> None:
        """Wait until both sides have completed, or blame one of them."""
        ends = [
            asyncio.create_task(self._reaches(leg, vm, Status.COMPLETED))
            for vm in (leg.source, leg.destination)
        ]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_EXCEPTION)
            # After one has failed, the other one ends as well, or hangs.
            await asyncio.wait(ends, timeout=self._limits.settle_s)
        finally:
            for end in ends:
                end.cancel()
            found = await asyncio.gather(*ends, return_exceptions=True)
        errors = [end for end in found if isinstance(end, Exception)]
        if errors:
            raise min(errors, key=_distance)

    async def _settled(self, leg: Leg) -> None:
        """Read QMP's downtime until two answers agree.

        QEMU 8.1 reports "completed" before it sets the figure: when read at
        once, the figure was 0 in three migrations of nine.
        """
        vm = leg.source
        last: object = None
        async with vm.step("downtime", self._limits.settle_s):
            while True:
                info = await vm.execute(
                    "query-migrate", limit_s=self._limits.command_s
                )
                match info:
                    case {"downtime": int(part), "total-time": int(total)}:
                        if info == last:
                            leg.downtime_ms = part
                            leg.total_time_ms = total
                            return
                last = info
                await asyncio.sleep(POLL_S)

    async def _gone(self) -> None:
        """Wait until a destination exits whose source has given up.

        For the destination, the end of the stream is an error, and it exits.
        """
        if not self.legs:
            return
        leg = self.legs[-1]
        over = leg.status in FINAL or not leg.source.running
        told = leg.destination.statuses
        # A destination to which nobody connected keeps waiting.  A source
        # that is active has connected, even if the destination has not
        # noticed yet.
        connected = Status.ACTIVE in (*told, *leg.statuses)
        if leg.file:
            connected = leg.read
        if (
            over
            and connected
            and leg.destination.running
            and Status.COMPLETED not in told
        ):
            await leg.destination.ended(
                "exit after the migration", self._limits.quit_s
            )


def _distance(err: Exception) -> int:
    """How far an error is from the cause of the trouble.

    Of equal errors, the source's counts: a destination whose source has
    given up exits, and that is not a second fault.
    """
    match err:
        case ConnectionLostError(crashed=True):
            return 0
        case StepTimeoutError():
            return 2
    return 1
