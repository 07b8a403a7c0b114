# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU that somebody else started: who it is, and how to listen to it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vfio_p2p.attach.domain import DomainMonitor, domain_monitor
from vfio_p2p.attach.monitor import Monitor, OnEvent, connected
from vfio_p2p.attach.process import Process, Socket, find_process, same
from vfio_p2p.attach.second import best_monitor
from vfio_p2p.attach.target import Target, TargetKind
from vfio_p2p.attach.tracing import Tracing, enabled_events
from vfio_p2p.errors import (
    HarnessError,
    HostError,
    SkipError,
    VMError,
)
from vfio_p2p.machine.host import AgentSession, Host

_E = TypeVar("_E", bound=BaseException)

OnLog = Callable[[bytes], None]

# Who listens at all addresses is reached at this one.
_LISTENS_AT = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}

# Well below the lease of the agent.
_BEAT_S = 2.0
# The agent has the lowest priority of its host, which may be busy.
_CATCH_UP_S = 30.0
# How long a QEMU may take to say what it is after a migration to it.
_ASK_S = 5.0
# libvirt says so in the log of a domain before it starts QEMU.
_STARTS = "starting up libvirt version"
# What is read of a log that may have begun before QEMU.
_BACK_BYTES = 1 << 20


@dataclass
class AttachedQemu:
    """A QEMU that is listened to; use `attached`.

    :param name: Its side, for messages.
    :param host: Its host.
    :param target: What the user calls it.
    :param process: Its process.
    :param monitor: Its monitor; None if it has none that is free.
    :param tracing: Its trace events; None without a monitor.
    :param events: The trace events that are on.
    :param why: Why there is no monitor, if so.
    :param version: QEMU's version; empty if it does not tell.
    :param gone: Set when its process has ended, and its log was read.
    :param lost: Whether some of its log was removed before it was read.
    :param arrived: Whether it was started to be migrated to by libvirt, which
        passes no command on until the migration is over.
    :param follower: Who reads its log.
    """

    name: str
    host: Host
    target: Target
    process: Process
    monitor: Monitor | None
    tracing: Tracing | None
    events: tuple[str, ...] = ()
    why: str = ""
    version: str = ""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False
    arrived: bool = False
    follower: Follower | None = None

    async def catch_up(self) -> None:
        """Wait until all is read that it has written to its log until now.

        If that takes too long, something is taken to be lost.
        """
        if self.follower and not await self.follower.catch_up():
            self.lost = True

    async def runs(self) -> bool:
        """Return whether its process is still there.

        :raise HostError: When its host does not answer.
        """
        target = Target(TargetKind.PID, str(self.process.pid))
        try:
            found = await find_process(self.host, target)
        except SkipError:
            return False
        return found.started == self.process.started

    async def introduce(self) -> None:
        """Ask what could not be asked before a migration was over."""
        if self.arrived and self.monitor and not self.version:
            # It may have ended, and libvirt may not be ready.
            with suppress(VMError, TimeoutError):
                async with asyncio.timeout(_ASK_S):
                    self.version = await _version(self.monitor)
                    self.events = await enabled_events(self.monitor)


@asynccontextmanager
async def attached(
    name: str,
    host: Host,
    target: Target,
    *,
    libvirt: str = "",
    on_log: OnLog,
    on_event: OnEvent,
    trace: bool = True,
) -> AsyncIterator[AttachedQemu]:
    """Listen to a QEMU for as long as the block lasts.

    Its trace events are switched on, and put back at the end.

    :param name: Its side, for messages.
    :param host: Its host.
    :param target: What names it.
    :param libvirt: The URI of libvirt, for a domain.
    :param on_log: Called with each piece of its log.
    :param on_event: Called with each QMP event.
    :param trace: Whether to switch trace events on.
    :raise SkipError: When there is no such QEMU.
    :raise HostError: When it cannot be listened to.
    """
    async with AsyncExitStack() as stack:
        monitor: Monitor | None = None
        uuid = why = ""
        thread = None
        if target.kind is TargetKind.DOMAIN:
            domain = await stack.enter_async_context(
                domain_monitor(name, libvirt, target.value, on_event)
            )
            uuid = await domain.running()
            thread = await _thread(domain)
            monitor = await stack.enter_async_context(
                best_monitor(domain, on_event)
            )
        process = await find_process(host, target, uuid, thread)
        if monitor is None:
            free, why = _free(process, target)
            if free:
                monitor = await stack.enter_async_context(
                    _socket_monitor(name, host, free, on_event)
                )
        qemu = AttachedQemu(
            name, host, target, process, monitor, None, (), why
        )
        if monitor:
            qemu.version = await _version(monitor)
        await stack.enter_async_context(_following(qemu, on_log))
        if monitor and trace and process.log.path:
            tracing = Tracing(
                monitor, host.name, process.pid, process.started
            )
            stack.push_async_callback(_put_back, qemu, tracing)
            qemu.tracing = tracing
            qemu.events = await tracing.start()
        yield qemu


@asynccontextmanager
async def arriving(
    name: str,
    host: Host,
    monitor: DomainMonitor,
    on_log: OnLog,
    others: Collection[int] = (),
) -> AsyncIterator[AttachedQemu]:
    """Wait for a QEMU that libvirt starts to migrate to, and listen to it.

    Its log is read from its beginning.  Nothing is asked or changed, as that
    would have to wait for the end of the migration.

    :param name: Its side, for messages.
    :param host: Its host.
    :param monitor: The monitor of its domain.
    :param on_log: Called with each piece of its log.
    :param others: The processes of its host that it is not.
    :raise SkipError: When its process cannot be seen.
    :raise HostError: When it cannot be listened to.
    :raise VMError: When libvirt is gone.
    """
    target = Target(TargetKind.DOMAIN, monitor.domain)
    process = None
    while process is None:
        uuid = await monitor.arriving()
        try:
            process = await find_process(
                host, target, uuid, others=others
            )
        except SkipError:
            # The migration may have failed meanwhile, and the next may come.
            if await monitor.active():
                raise
            monitor.taken()
    qemu = AttachedQemu(
        name, host, target, process, monitor, None, arrived=True
    )
    async with _following(qemu, on_log, _BACK_BYTES, _STARTS):
        monitor.taken()
        yield qemu


async def _thread(monitor: Monitor) -> int | None:
    """Return the number of a thread of a QEMU, in its namespace."""
    match await monitor.execute("query-cpus-fast"):
        case [{"thread-id": int(thread)}, *_]:
            return thread
    return None


async def _version(monitor: Monitor) -> str:
    match await monitor.execute("query-version"):
        case {
            "qemu": {
                "major": int(major), "minor": int(minor), "micro": int(micro)
            },
            "package": str(package),
        }:
            said = f" ({package})" if package else ""
            return f"QEMU emulator version {major}.{minor}.{micro}{said}"
    return ""


def _free(process: Process, target: Target) -> tuple[Socket | None, str]:
    """Choose a monitor that nobody holds, or say why there is none."""
    wanted = [x for x in process.monitors if same(target, x)]
    for monitor in wanted or process.monitors:
        if not monitor.held:
            return monitor, ""
    if wanted:
        raise SkipError(
            f"{wanted[0].address} is taken: another client is connected to "
            "this monitor of QEMU",
            "A client that waits would keep others out, so none is tried. "
            "Name another monitor; with libvirt, name the domain with "
            "domain:NAME.",
        )
    if process.monitors:
        return None, "all its QMP monitors are taken"
    return None, "it has no QMP monitor"


@asynccontextmanager
async def _socket_monitor(
    name: str, host: Host, socket: Socket, on_event: OnEvent
) -> AsyncIterator[Monitor]:
    async with AsyncExitStack() as stack:
        address: str | tuple[str, int]
        if socket.kind == "unix":
            address = str(
                await stack.enter_async_context(
                    host.forward_unix(socket.address)
                )
            )
        else:
            there, _, port = socket.address.rpartition(":")
            there = there.strip("[]")
            reached = await stack.enter_async_context(
                host.forward_tcp(_LISTENS_AT.get(there, there), int(port))
            )
            address = str(reached) if isinstance(reached, Path) else reached
        yield await stack.enter_async_context(
            connected(name, address, on_event)
        )


async def _put_back(qemu: AttachedQemu, tracing: Tracing) -> None:
    # QEMU may be gone, and its events with it.
    with suppress(VMError):
        await tracing.restore()
        return
    # If only its monitor is gone, the note says what the next command has to
    # put back.
    with suppress(HostError):
        if qemu.gone.is_set() or not await qemu.runs():
            tracing.forget()


@asynccontextmanager
async def _following(
    qemu: AttachedQemu, on_log: OnLog, back_bytes: int = 0, since: str = ""
) -> AsyncIterator[None]:
    """Hear of the log of a QEMU, and of its end."""
    process, logs = qemu.process, {}
    if process.log.path:
        logs["log"] = {
            "path": process.log.path,
            "back_bytes": back_bytes,
            "since": since,
        }
    async with qemu.host.agent_session(["follow"]) as session:
        await session.send(
            {"pid": process.pid, "started": process.started, "files": logs}
        )
        answer = await session.receive()
        if answer != {"following": list(logs)}:
            raise HostError(
                f"{qemu.host.name}: the agent answers {answer!r}",
                "Please report it.",
            )
        qemu.follower = Follower(session, on_log, qemu)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(qemu.follower.read()),
                group.create_task(qemu.follower.beat()),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()


class Follower:
    """The agent that follows the log of a QEMU.

    :param session: The conversation with it.
    :param on_log: Called with each piece of the log.
    :param qemu: Told when it has ended, or something was lost.
    """

    def __init__(
        self, session: AgentSession, on_log: OnLog, qemu: AttachedQemu
    ) -> None:
        self._session = session
        self._on_log = on_log
        self._qemu = qemu
        self._asked = 0
        self._answered = 0
        self._changed = asyncio.Event()

    async def read(self) -> None:
        """Take what the agent sends."""
        while True:
            answer: dict[str, Any] = await self._session.receive()
            if "data" in answer:
                self._on_log(base64.b64decode(answer["data"]))
            if answer.get("lost"):
                self._qemu.lost = True
            if "gone" in answer:
                self._qemu.gone.set()
            if "mark" in answer:
                self._answered = int(answer["mark"])
                self._changed.set()

    async def beat(self) -> None:
        """Show the agent that somebody listens."""
        while True:
            await asyncio.sleep(_BEAT_S)
            await self._session.send({})

    async def catch_up(self) -> bool:
        """Wait until all is read that the log holds now.

        :return: Whether it was, within a generous time.
        """
        self._asked += 1
        asked = self._asked
        await self._session.send({"mark": asked})
        with suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_S):
                while self._answered < asked:
                    self._changed.clear()
                    await self._changed.wait()
        return self._answered >= asked


def explain(err: BaseException) -> HarnessError | OSError | None:
    """Return what a user can be told of a group of errors, if anything.

    It is our own error, if there is one, or else that of a file.
    """
    return _first(err, HarnessError) or _first(err, OSError)


def _first(err: BaseException, kind: type[_E]) -> _E | None:
    if isinstance(err, kind):
        return err
    if isinstance(err, BaseExceptionGroup):
        for each in err.exceptions:
            if found := _first(each, kind):
                return found
    return None
