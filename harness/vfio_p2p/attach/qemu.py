# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU that somebody else started: who it is, and how to listen to it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from vfio_p2p.attach.domain import DomainMonitor, domain_monitor
from vfio_p2p.attach.monitor import Monitor, OnEvent, connected
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

OnLog = Callable[[bytes], None]

# Who listens at all addresses is reached at this one.
_LISTENS_AT = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}

# Well below the lease of the agent.
_BEAT_S = 2.0
# How long a QEMU may take to say what it is after a migration to it.
_ASK_S = 5.0
# libvirt says so in the log of a domain before it starts QEMU.
_STARTS = "starting up libvirt version"
# What is read of a log that may have begun before QEMU.
_BACK_BYTES = 1 << 20


class Socket(msgspec.Struct, frozen=True):
    """A QMP monitor of a QEMU.

    :param kind: ``unix`` or ``tcp``.
    :param address: Its path, or its ``HOST:PORT``.
    :param held: Whether a client is connected, or waits to be.
    """

    kind: str
    address: str
    held: bool


class Log(msgspec.Struct, frozen=True):
    """Where the traces of a QEMU go.

    :param path: The file; empty if there is none that can be read.
    :param how: What leads there, or why nothing does.
    """

    path: str
    how: str


class Process(msgspec.Struct, frozen=True):
    """The process of a QEMU, as the agent describes it.

    :param pid: Its number.
    :param name: Its program.
    :param user: Its user.
    :param argv: Its command line.
    :param started: When it began, in ticks since its host did.
    :param threads: The numbers of its threads.
    :param guest: The name of its guest.
    :param devices: Its VFIO devices, by the names that its traces have.
    :param incoming: Where it waits for a migration, as ``-incoming`` has
        it; empty if it was not started to be migrated to.
    :param log: Where its traces go.
    :param timestamps: Whether its messages have times.
    :param monitors: Its QMP monitors.
    :param complete: Whether all of it could be looked at.
    """

    pid: int
    name: str
    user: str
    argv: list[str]
    started: int
    threads: list[int]
    guest: str
    devices: list[str]
    incoming: str
    log: Log
    timestamps: bool
    monitors: list[Socket]
    complete: bool


class _Found(msgspec.Struct):
    qemus: list[Process]
    complete: bool


async def qemus_of(host: Host) -> list[Process]:
    """Return the QEMUs of a host.

    :param host: The host.
    :raise HostError: When the host does not answer.
    """
    answer = await host.agent(["qemus"])
    return msgspec.convert(answer, _Found).qemus


async def find_process(
    host: Host,
    target: Target,
    uuid: str = "",
    thread: int | None = None,
    others: Collection[int] = (),
) -> Process:
    """Find the process that a user has named.

    :param host: Its host.
    :param target: What names it; a domain is found by its UUID.
    :param uuid: The UUID of the domain.
    :param thread: The number of a thread of the domain's QEMU, if known.
    :param others: The processes of other QEMUs of the same UUID.
    :raise SkipError: When there is none.
    """
    if target.kind is TargetKind.PID:
        answer = await host.agent(["qemus", "--pid", target.value])
        return msgspec.convert(answer, Process)
    found = await qemus_of(host)
    if target.kind is TargetKind.DOMAIN:
        mine = [x for x in found if uuid in x.argv and x.pid not in others]
        # Two QEMUs of one host have the same UUID if its domains migrate
        # from one libvirt to another; who is migrated to is the youngest.
        mine.sort(key=lambda x: (thread in x.threads, x.started))
        if mine:
            return mine[-1]
    for process in found:
        if any(_same(target, monitor) for monitor in process.monitors):
            return process
    raise SkipError(
        f"{host.name}: no QEMU that can be seen has {target}",
        "'vfio-p2p watch --list' lists the QEMUs of this host. A process of "
        "another user is seen in full by root only.",
    )


def _same(target: Target, monitor: Socket) -> bool:
    if target.kind != monitor.kind:
        return False
    if target.kind is TargetKind.TCP:
        return (
            target.value.rpartition(":")[2]
            == monitor.address.rpartition(":")[2]
        )
    return target.value == monitor.address


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
            if await monitor.arrives():
                raise
    qemu = AttachedQemu(
        name, host, target, process, monitor, None, arrived=True
    )
    async with _following(qemu, on_log, _BACK_BYTES, _STARTS):
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
    wanted = [x for x in process.monitors if _same(target, x)]
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
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_read(session, on_log, qemu)),
                group.create_task(_beat(session)),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()


async def _read(
    session: AgentSession, on_log: OnLog, qemu: AttachedQemu
) -> None:
    while True:
        answer: dict[str, Any] = await session.receive()
        if "data" in answer:
            on_log(base64.b64decode(answer["data"]))
        if answer.get("lost"):
            qemu.lost = True
        if "gone" in answer:
            qemu.gone.set()


async def _beat(session: AgentSession) -> None:
    while True:
        await asyncio.sleep(_BEAT_S)
        await session.send({})


def explain(err: BaseException) -> HarnessError | None:
    """Return our own error in a group of errors, if there is one."""
    if isinstance(err, HarnessError):
        return err
    if isinstance(err, BaseExceptionGroup):
        for each in err.exceptions:
            if found := explain(each):
                return found
    return None
