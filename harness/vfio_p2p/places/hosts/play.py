# SPDX-License-Identifier: GPL-2.0-or-later
"""Play a scenario with real devices, on one machine or between two.

The steps and the QMP session are those of the testbed.  What differs is where
the QEMUs are, and what carries the migration from one to the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vfio_p2p.errors import HostError
from vfio_p2p.machine.console import CONSOLE_LOG, GuestConsole, guest_console
from vfio_p2p.machine.errors import CommandError
from vfio_p2p.machine.host import Host
from vfio_p2p.machine.process import bound
from vfio_p2p.machine.qemu import Qemu
from vfio_p2p.machine.remote import RemoteQemu
from vfio_p2p.places.hosts.tls import CREDENTIALS
from vfio_p2p.scenario.argv import Launcher, qemu_argv
from vfio_p2p.scenario.course import Course, GuestProgram
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.runner import run_with
from vfio_p2p.scenario.session import Session
from vfio_p2p.scenario.step import Step
from vfio_p2p.side import Side

# How long a guest may take from its start to its first beat.
BEAT_S = 20.0
_RUNNING = "running"


@dataclass(frozen=True)
class Listening:
    """What is expected of the console of a guest.

    :param wait_for: A text that it writes before the first step; empty if
        nothing is waited for.
    :param limit_s: How long to wait for it.
    :param needed: Whether nothing can be tested without it.
    """

    wait_for: str
    limit_s: float
    needed: bool


@dataclass(frozen=True)
class Stage:
    """Where the QEMUs with the devices of one side run.

    :param host: The machine.
    :param folder: A folder of that machine for sockets and disk images.
    :param launcher: How QEMU is started there.
    :param devices: The properties of vfio-pci for each device.
    :param arguments: Further arguments of QEMU.
    :param console: What is expected of the console; None reads none.
    """

    host: Host
    folder: Path
    launcher: Launcher
    devices: tuple[Mapping[str, str], ...]
    arguments: tuple[str, ...] = ()
    console: Listening | None = None


@dataclass(frozen=True)
class Wire:
    """The network between the machines of a pair.

    :param address: The address of each side's machine in it.
    :param tls: Whether migrations are encrypted; the QEMUs then have
        `vfio_p2p.places.hosts.tls.CREDENTIALS`.
    """

    address: Mapping[Side, str]
    tls: bool = False

    @property
    def transport(self) -> str:
        """What carries the migration, as the provenance calls it."""
        return "tls" if self.tls else "tcp"


class HostSession(Session):
    """A session whose QEMUs may be on two machines.

    Without a wire, the migration goes through a Unix socket.

    :param course: The course of the run.
    :param make: Makes the QEMU for the devices of a side; it is not started.
    :param stack: Whatever is put on this stack ends with the run.
    :param private: A folder of the source's machine for sockets and disk
        images.
    :param wire: The network between the machines; None if there is one
        machine.
    :param consoles: The consoles of the guests, by the names of their QEMUs.
    :param listening: What is expected of the first source's console; None if
        it has none.
    :param devices: The properties of each device, by side.
    """

    def __init__(
        self,
        course: Course,
        make: Callable[[Side], Awaitable[Qemu]],
        stack: AsyncExitStack,
        private: Path,
        *,
        wire: Wire | None,
        consoles: Mapping[str, GuestConsole],
        listening: Listening | None,
        devices: Mapping[Side, Sequence[Mapping[str, str]]] | None = None,
    ) -> None:
        super().__init__(course, make, stack, private, devices=devices)
        self._wire = wire
        self._consoles = consoles
        self._listening = listening

    async def _do(self, step: Step) -> None:
        # A guest that is paused writes nothing.
        if not self._course.guest.paused:
            await self._heard()
        await super()._do(step)

    async def _heard(self) -> None:
        """Wait, once, until the guest has come up."""
        wanted, self._listening = self._listening, None
        if wanted is None or not wanted.wait_for:
            return
        vm = self._cast[Side.SOURCE]
        console = self._consoles[vm.side]
        if await console.seen(wanted.limit_s) or not wanted.needed:
            return
        if not vm.running:
            return  # the step says what happened
        last = await console.finish() or "nothing"
        raise HostError(
            f"{vm.side}: its guest did not write {wanted.wait_for!r} to its "
            f"first serial port within {wanted.limit_s:g} s; it wrote last: "
            f"{last}",
            "Check 'wait_for' and the console of the kernel in hosts.toml.",
        )

    async def _gone(self) -> None:
        await super()._gone()
        if self._course.guest.program is not GuestProgram.HEARTBEAT:
            return
        # A guest that was just handed over has yet to show that it lives.
        for vm in self.vms:
            if vm.running and vm.side in self._consoles:
                await self.ask(vm, self._limits.command_s)
                if self.guest.get(vm.side) == _RUNNING:
                    await self._consoles[vm.side].seen(BEAT_S)

    async def _execute(
        self, role: Side, command: str, **arguments: str
    ) -> None:
        if self._wire is not None:
            # After a turn, the source is on the other machine.
            listening = self._sides[Side.DESTINATION]
            host = _bracketed(self._wire.address[listening])
            if command == "migrate-incoming":
                arguments["uri"] = f"tcp:{host}:0"
            elif command == "migrate":
                arguments["uri"] = f"tcp:{host}:{await self._port()}"
            if self._wire.tls and command in CREDENTIALS:
                # After a turn, a server becomes a client.
                await super()._execute(
                    role,
                    "migrate-set-parameters",
                    **{"tls-creds": CREDENTIALS[command]},
                )
        await super()._execute(role, command, **arguments)

    async def _port(self) -> str:
        """Ask the destination for the port that it was given."""
        vm = self._cast[Side.DESTINATION]
        match await vm.execute(
            "query-migrate", limit_s=self._limits.command_s
        ):
            case {"socket-address": [{"port": str(port)}, *_]}:
                return port
        raise CommandError(
            vm.side, "query-migrate: QEMU does not tell where it listens"
        )


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


async def play(
    course: Course,
    stages: Mapping[Side, Stage],
    out: Path,
    wire: Wire | None = None,
    *,
    qemu: type[RemoteQemu] = RemoteQemu,
    session: type[HostSession] = HostSession,
) -> Result:
    """Play one scenario; see `vfio_p2p.scenario.runner.run`.

    :param course: The course of the run.
    :param stages: Where the QEMUs of each side run.
    :param out: An existing empty folder of this machine for the files of the
        run.
    :param wire: The network between the machines, if there are two.
    :param qemu: The class of the QEMUs on other hosts.
    :param session: The class of the session.
    :return: How the run ended; ``result.json`` holds the same.
    :raise HostError: When a machine fails.
    """
    consoles: dict[str, GuestConsole] = {}
    async with AsyncExitStack() as stack:

        async def make(side: Side, name: str, directory: Path) -> Qemu:
            stage = stages[side]
            heard: tuple[str, ...] = ()
            if stage.console is not None:
                console = await stack.enter_async_context(
                    guest_console(
                        stage.host,
                        name,
                        directory / CONSOLE_LOG,
                        stage.console.wait_for,
                    )
                )
                heard = console.arguments
                consoles[name] = console
            argv = (
                *qemu_argv(
                    stage.launcher,
                    course,
                    name,
                    stage.devices,
                    incoming=name != Side.SOURCE,
                ),
                *stage.arguments,
                *heard,
            )
            if stage.host.local:
                return Qemu(name, bound(argv), directory)
            return qemu(name, argv, directory, stage.host)

        source = stages[Side.SOURCE]
        return await run_with(
            course,
            make,
            out,
            source.folder,
            partial(
                session,
                wire=wire,
                consoles=consoles,
                listening=source.console,
                devices={x: stage.devices for x, stage in stages.items()},
            ),
        )
