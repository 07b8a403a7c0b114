# SPDX-License-Identifier: GPL-2.0-or-later
"""Record the migrations of QEMUs that somebody else started.

Each migration leaves a bundle with the provenance ``attached``, which is
written whole or not at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vfio_p2p.attach.capture import Capture, Phase
from vfio_p2p.attach.domain import DomainMonitor, domain_monitor
from vfio_p2p.attach.drive import Drive, driving
from vfio_p2p.attach.folder import next_bundle, prune
from vfio_p2p.attach.monitor import AGAIN, LOST
from vfio_p2p.attach.qemu import (
    AttachedQemu,
    arriving,
    attached,
    explain,
)
from vfio_p2p.attach.target import Target, TargetKind
from vfio_p2p.bundle.manifest import RESULT, Inputs, ProgramInput, trace_file
from vfio_p2p.bundle.provenance import AttachedMachine, AttachedProvenance
from vfio_p2p.bundle.write import seal, writing
from vfio_p2p.errors import HarnessError, InputError, VMError
from vfio_p2p.machine.host import Host, HostSpec, open_host
from vfio_p2p.machine.qemu import TRANSCRIPT
from vfio_p2p.scenario.result import Result
from vfio_p2p.side import Side

_TICK_S = 0.2
_AGAIN_S = 1.0
_ASK_S = 2.0
_POLL_S = 1.0

# The variant of a QEMU that was not built here.
ATTACHED = "attached"


@dataclass(frozen=True)
class Attachment:
    """A QEMU to attach to.

    :param target: What names it.
    :param host: Its host.
    :param libvirt: The URI of libvirt, for a domain.
    """

    target: Target
    host: HostSpec = field(default_factory=HostSpec)
    libvirt: str = ""

    def arrives(self, side: Side) -> bool:
        """Return whether there is a QEMU only while there is a migration.

        libvirt starts that of a destination when a migration begins.

        :param side: The side of this QEMU.
        """
        return (
            side is Side.DESTINATION and self.target.kind is TargetKind.DOMAIN
        )


class Listener:
    """Told of what happens; all of its methods do nothing."""

    def attached(self, side: Side, qemu: AttachedQemu) -> None:
        """A QEMU is listened to."""

    def awaited(self, side: Side, target: Target) -> None:
        """A QEMU will be listened to as soon as a migration to it begins."""

    def log(self, side: Side, data: bytes) -> None:
        """A QEMU has written to its log."""

    def event(self, side: Side, event: Mapping[str, Any]) -> None:
        """A QEMU has sent a QMP event."""

    def answer(self, side: Side, answer: Mapping[str, Any]) -> None:
        """A QEMU has answered to query-migrate."""

    def began(self) -> None:
        """A migration has begun."""

    def recorded(self, bundle: Path) -> None:
        """A migration is over, and its bundle is whole."""

    def lost(self, why: HarnessError) -> None:
        """A QEMU, its host or its monitor is gone."""


@dataclass
class Recorder:
    """Records migrations of one QEMU, or of two.

    :param attachments: The QEMUs by side.
    :param out: The folder of the bundles.
    :param count: After how many migrations to end; 0 means never.
    :param follow: Whether to wait for QEMUs that are gone to come back.
    :param keep: How many bundles to keep; 0 keeps all.
    :param trace: Whether to switch trace events on.
    :param drive: The migration to begin; None waits for somebody else's.
    :param listener: Told of what happens.
    """

    attachments: Mapping[Side, Attachment]
    out: Path
    count: int = 1
    follow: bool = False
    keep: int = 0
    trace: bool = True
    drive: Drive | None = None
    listener: Listener = field(default_factory=Listener)
    bundles: list[Path] = field(default_factory=list)
    qemus: dict[Side, AttachedQemu] = field(default_factory=dict)
    arriving: dict[Side, DomainMonitor] = field(default_factory=dict)

    async def run(self) -> list[Path]:
        """Record until there were enough migrations, or a QEMU is gone.

        :return: The bundles, in order.
        :raise HarnessError: When a QEMU cannot be attached to, or is gone
            before anything was recorded.
        :raise InputError: When waiting would not help.
        :raise OSError: When a bundle cannot be written.
        """
        while True:
            try:
                await self._attach()
            except BaseException as err:
                why = explain(err)
                if why is None:
                    raise
                if isinstance(why, OSError):
                    # A full disk, for example, would stay so.
                    raise why from err
                if not self.follow and self.bundles:
                    return self.bundles
                if not self.follow or isinstance(why, InputError):
                    raise why from err
                self.listener.lost(why)
            if self.count and len(self.bundles) >= self.count:
                return self.bundles
            if not self.follow:
                return self.bundles
            await asyncio.sleep(_AGAIN_S)

    async def _attach(self) -> None:
        """Listen until there were enough migrations, or a QEMU is gone."""
        self.qemus, self.arriving = {}, {}
        async with AsyncExitStack() as stack:
            cut = stack.enter_context(_Cutter(self))
            arrivals: list[tuple[Side, Host]] = []
            for side, wanted in self.attachments.items():
                host = await stack.enter_async_context(open_host(wanted.host))
                if wanted.arrives(side):
                    monitor = await stack.enter_async_context(
                        domain_monitor(
                            str(side),
                            wanted.libvirt,
                            wanted.target.value,
                            partial(cut.event, side),
                        )
                    )
                    self.arriving[side] = monitor
                    arrivals.append((side, host))
                    self.listener.awaited(side, wanted.target)
                    continue
                self.qemus[side] = await stack.enter_async_context(
                    attached(
                        str(side),
                        host,
                        wanted.target,
                        libvirt=wanted.libvirt,
                        on_log=partial(cut.log, side),
                        on_event=partial(cut.event, side),
                        trace=self.trace,
                    )
                )
                self.listener.attached(side, self.qemus[side])
            if self.drive:
                await stack.enter_async_context(
                    driving(self.qemus, self.drive)
                )
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._receive(*x, cut)) for x in arrivals
                ]
                try:
                    await cut.run()
                finally:
                    for task in tasks:
                        task.cancel()

    async def _receive(self, side: Side, host: Host, cut: _Cutter) -> None:
        """Listen to one QEMU after another that is migrated to."""
        monitor = self.arriving[side]
        # On one host, the source has the same UUID.
        others = {
            x.process.pid
            for x in self.qemus.values()
            if x.host.name == host.name
        }
        while True:
            async with arriving(
                str(side), host, monitor, partial(cut.log, side), others
            ) as qemu:
                self.qemus[side] = qemu
                self.listener.attached(side, qemu)
                await cut.left(side)

    def waits(self) -> bool:
        """Return whether a QEMU has come that is not listened to yet."""
        return any(
            monitor.pending and side not in self.qemus
            for side, monitor in self.arriving.items()
        )

    def add(self, bundle: Path) -> None:
        """Take notice of a bundle that is whole."""
        self.bundles.append(bundle)
        self.listener.recorded(bundle)


class _Dropped(Exception):
    """A migration that did not come to its end is not kept."""


class _Migration:
    """The bundle of a migration that is being recorded.

    :param path: Its final folder.
    :param capture: What is written into it.
    :param logs: The sides whose logs can be read, as far as is known.
    """

    def __init__(
        self, path: Path, capture: Capture, logs: Iterable[Side]
    ) -> None:
        self.path = path
        self._publishing = ExitStack()
        self._files = ExitStack()
        self.folder = self._publishing.enter_context(writing(path))
        for side, stream in capture.streams.items():
            log = self.folder / trace_file(str(side))
            log.parent.mkdir()
            if side in logs:
                stream.log = self._files.enter_context(log.open("wb"))
            stream.events = self._files.enter_context(
                (log.parent / TRANSCRIPT).open("w")
            )

    def keep(self, inputs: Inputs, result: Result) -> None:
        """Make the bundle whole."""
        self._files.close()
        for side in Side:
            log = self.folder / trace_file(str(side))
            # That of a QEMU that never came, or has no log.
            if log.is_file() and not log.stat().st_size:
                log.unlink()
        (self.folder / RESULT).write_bytes(result.to_json())
        seal(self.folder, inputs)
        self._publishing.close()

    def drop(self) -> None:
        """Leave nothing behind."""
        self._files.close()
        with suppress(_Dropped), self._publishing:
            raise _Dropped


class _Cutter:
    """Cuts what QEMUs write into bundles; use it as a context manager."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._migration: _Migration | None = None
        self._capture = self._new()
        self._ended: set[Side] = set()
        self._downtime_ms: int | None = None
        self._asked = False
        self._over = asyncio.Event()

    def __enter__(self) -> _Cutter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._migration:
            self._migration.drop()

    def _new(self) -> Capture:
        return Capture(self._recorder.attachments, self._begin)

    def log(self, side: Side, data: bytes) -> None:
        """Take a piece of a log."""
        self._recorder.listener.log(side, data)
        self._capture.log(side, data, time.time_ns())
        self._look()

    def event(self, side: Side, event: Mapping[str, Any]) -> None:
        """Take a QMP event."""
        self._recorder.listener.event(side, event)
        self._capture.event(side, event, time.time_ns())
        self._look()

    def _look(self) -> None:
        # libvirt ends the source at once.
        if self._capture.phase is Phase.ENDING and not self._asked:
            self._over.set()

    def _begin(self, capture: Capture) -> None:
        """Open the files of a migration."""
        recorder = self._recorder
        logs = {x for x, y in recorder.qemus.items() if y.process.log.path}
        # A QEMU that arrives may still be on its way.
        logs |= recorder.attachments.keys() - recorder.qemus.keys()
        self._migration = _Migration(
            next_bundle(recorder.out), capture, logs
        )
        recorder.listener.began()

    async def run(self) -> None:
        """Cut until there were enough migrations, or a QEMU is gone."""
        recorder = self._recorder
        asked_s = time.monotonic()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), _TICK_S)
            await self._ask()
            if time.monotonic() - asked_s >= _POLL_S:
                await self._poll()
                asked_s = time.monotonic()
            for side, qemu in list(recorder.qemus.items()):
                if qemu.gone.is_set() and side not in self._ended:
                    self._ended.add(side)
                    self._capture.ended(side, time.time_ns())
            if self._capture.done(time.time_ns()) and not recorder.waits():
                await self._finish()
                if recorder.count and len(recorder.bundles) >= recorder.count:
                    return
            if self._capture.phase is Phase.IDLE and await self._is_over():
                return

    async def _poll(self) -> None:
        """Ask the source how far the migration is."""
        if self._capture.phase is not Phase.RUNNING:
            return
        source = self._recorder.qemus.get(Side.SOURCE)
        answer = await _query(source) if source else {}
        if answer:
            self._capture.answer(Side.SOURCE, answer, time.time_ns())
            self._recorder.listener.answer(Side.SOURCE, answer)

    async def _is_over(self) -> bool:
        """Return whether a QEMU is gone that does not come by itself.

        :raise VMError: When only its monitor is gone.
        """
        recorder = self._recorder
        for side, qemu in list(recorder.qemus.items()):
            if qemu.gone.is_set():
                if not recorder.attachments[side].arrives(side):
                    return True
            elif (
                qemu.monitor
                and qemu.monitor.closed
                # Its end may not have been noticed yet.
                and await qemu.runs()
            ):
                raise VMError(str(side), LOST, AGAIN)
        return False

    async def left(self, side: Side) -> None:
        """Wait until a QEMU is gone, and its migration is recorded."""
        await self._recorder.qemus[side].gone.wait()
        while (
            side not in self._ended or self._capture.phase is not Phase.IDLE
        ):
            await asyncio.sleep(_TICK_S)
        self._ended.discard(side)
        self._capture.replaced(side)
        del self._recorder.qemus[side]

    async def _ask(self) -> None:
        """Ask the source for its own figure before somebody ends it."""
        if not self._over.is_set():
            return
        self._over.clear()
        self._asked = True
        source = self._recorder.qemus.get(Side.SOURCE)
        if source and Side.SOURCE not in self._ended:
            self._downtime_ms = (await _query(source)).get("downtime")

    async def _finish(self) -> None:
        recorder, migration = self._recorder, self._migration
        assert migration
        # The next one may come meanwhile.
        for qemu in list(recorder.qemus.values()):
            await qemu.catch_up()
            await qemu.introduce()
        result = self._capture.result(self._downtime_ms)
        ended = self._capture
        self._downtime_ms, self._asked = None, False
        self._capture, self._migration = self._new(), None
        for side in self._ended:
            self._capture.ended(side, time.time_ns())
        migration.keep(_inputs(recorder.qemus, ended), result)
        recorder.add(migration.path)
        prune(recorder.out, recorder.keep)


async def _query(qemu: AttachedQemu) -> dict[str, Any]:
    """Ask a QEMU about its migration; it may be gone any moment."""
    if qemu.monitor is not None:
        with suppress(VMError):
            answer: dict[str, Any] = await qemu.monitor.execute(
                "query-migrate", limit_s=_ASK_S
            )
            return answer
    return {}


def _inputs(
    qemus: Mapping[Side, AttachedQemu], capture: Capture
) -> Inputs:
    machines = {
        side: AttachedMachine(
            hostname=qemu.host.name,
            guest=qemu.process.guest,
            devices=tuple(qemu.process.devices),
            log=qemu.process.log.how,
            timestamps=qemu.process.timestamps,
            events=qemu.events,
            cut=capture.streams[side].cut or qemu.lost,
        )
        for side, qemu in qemus.items()
    }
    versions = {side: qemu.version for side, qemu in qemus.items()}
    programs = {
        side: ProgramInput(
            variant=ATTACHED,
            build="",
            version=versions.get(side, ""),
            sha256="",
            libraries={},
        )
        for side in Side
    }
    return Inputs(
        source=programs[Side.SOURCE],
        destination=programs[Side.DESTINATION],
        scenario="",
        seed=0,
        place=AttachedProvenance(
            source_qemu=versions.get(Side.SOURCE, ""),
            destination_qemu=versions.get(Side.DESTINATION, ""),
            source=machines.get(Side.SOURCE),
            destination=machines.get(Side.DESTINATION),
        ),
    )
