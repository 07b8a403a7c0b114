# SPDX-License-Identifier: GPL-2.0-or-later
"""Cut what QEMUs write into migrations.

A migration begins with the status ``setup`` of its source, and ends with the
last status of each side.  Both the trace event ``migrate_set_state`` and the
QMP event ``MIGRATION`` tell the status.  QEMU goes on for a little while: it
cleans up, and the guest starts at the destination.  So the migration is cut
off only when its QEMUs have been quiet.

Nothing here waits or reads a clock: the caller tells the time.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, Any

from vfio_p2p.attach.lines import LogPieces
from vfio_p2p.scenario.course import Outcome
from vfio_p2p.scenario.result import Result
from vfio_p2p.side import Side
from vfio_p2p.trace import Kind

# What is kept of a log before a migration is known to have begun.
BACK_BYTES = 1 << 20
BACK_EVENTS = 1000
# What is kept of one side's migration: far more than one writes unless each
# page is traced, and less than half of what a bundle may have.
MOST_BYTES = 96 << 20
_QUIET_NS = 1_000_000_000
# The guest may need a while to start; a QEMU that never says so is not
# waited for.
_PATIENCE_NS = 10_000_000_000

_OVER = {"completed", "failed", "cancelled"}
_WAITING = {"none", "setup"}


class Phase(StrEnum):
    """Where the recording of a migration is."""

    IDLE = "idle"
    RUNNING = "running"
    ENDING = "ending"


@dataclass
class Stream:
    """What one QEMU writes.

    :param log: The file for its log, once a migration has begun.
    :param events: The file for its QMP events, once a migration has begun.
    :param witnesses: The statuses of the last migration, as the log tells
        them, and as events do.
    :param ended: Whether the QEMU has ended.
    :param cut: Whether the log was too long to be kept whole.
    """

    log: IO[bytes] | None = None
    events: IO[str] | None = None
    witnesses: dict[str, list[str]] = field(default_factory=dict)
    ended: bool = False
    cut: bool = False
    size_bytes: int = 0
    last_ns: int = 0
    _before: bytearray = field(default_factory=bytearray)
    _events: deque[str] = field(
        default_factory=lambda: deque(maxlen=BACK_EVENTS)
    )
    _pieces: LogPieces = field(default_factory=LogPieces)

    @property
    def statuses(self) -> list[str]:
        """The statuses of the last migration, by the witness who saw most."""
        return max(self.witnesses.values(), key=len, default=[])

    @property
    def status(self) -> str:
        """The last status that was told; empty if none was."""
        return self.statuses[-1] if self.statuses else ""

    @property
    def over(self) -> bool:
        """Whether nothing more of this migration can come."""
        return self.ended or self.status in _OVER

    def told(self, witness: str, status: str) -> None:
        """Note a status.

        The log lags behind events or the other way round, and each must not
        be taken for the next step of the other.

        :param witness: Who tells it.
        :param status: The status.
        """
        statuses = self.witnesses.setdefault(witness, [])
        if [status] != statuses[-1:]:
            statuses.append(status)

    def find_statuses(self, data: bytes) -> Iterator[str]:
        """Yield the statuses in the lines of the log that are whole now."""
        for record in self._pieces.records(data):
            if record.kind is Kind.STATUS:
                yield str(record.fields["status"])

    def write(self, data: bytes) -> None:
        """Keep a piece of the log of a migration that runs."""
        if self.log is None:
            return
        room = MOST_BYTES - self.size_bytes
        if len(data) > room:
            # A line that was cut off would be read as a damaged one.
            data = data[: data.rfind(b"\n", 0, max(room, 0)) + 1]
            self.cut = True
        self.size_bytes += len(data)
        self.log.write(data)

    def keep(self, data: bytes) -> None:
        """Keep a piece of the log, in case that a migration begins."""
        self._before += data
        if len(self._before) > BACK_BYTES:
            start = self._before.find(b"\n", len(self._before) - BACK_BYTES)
            del self._before[: start + 1]

    def begin(self) -> None:
        """Move what was kept to the migration that has begun."""
        before, self._before = bytes(self._before), bytearray()
        self.write(before)
        while self._events:
            self.note(self._events.popleft())

    def note(self, line: str) -> None:
        """Keep a QMP event."""
        if self.events is None:
            self._events.append(line)
        else:
            self.events.write(line)


class Capture:
    """One migration after another of one QEMU, or of two.

    :param sides: The sides that are attached to.
    :param on_begin: Called when a migration begins; opens the files of the
        streams.
    """

    def __init__(
        self, sides: Iterable[Side], on_begin: Callable[[Capture], None]
    ) -> None:
        self.streams = {side: Stream() for side in sides}
        self._on_begin = on_begin
        self.phase = Phase.IDLE
        self._over_ns = 0

    def log(self, side: Side, data: bytes, now_ns: int) -> None:
        """Take a piece of a QEMU's log.

        :param side: The QEMU's side.
        :param data: The piece.
        :param now_ns: The time.
        """
        stream = self.streams[side]
        stream.last_ns = now_ns
        if self.phase is Phase.IDLE:
            stream.keep(data)
        else:
            stream.write(data)
        for status in stream.find_statuses(data):
            self._status(side, "log", status, now_ns)

    def event(self, side: Side, event: Mapping[str, Any], now_ns: int) -> None:
        """Take a QMP event.

        :param side: The side of its QEMU.
        :param event: The event.
        :param now_ns: The time at which it came.
        """
        self._note(side, event, now_ns)
        match event:
            case {"event": "MIGRATION", "data": {"status": str(status)}}:
                self._status(side, "events", status, now_ns)

    def answer(
        self, side: Side, answer: Mapping[str, Any], now_ns: int
    ) -> None:
        """Keep what a QEMU answers to query-migrate.

        :param side: The side of its QEMU.
        :param answer: The answer.
        :param now_ns: The time at which it came.
        """
        self._note(side, {"return": answer}, now_ns)

    def _note(
        self, side: Side, message: Mapping[str, Any], now_ns: int
    ) -> None:
        entry = {"time_ns": now_ns, "dir": "<-", "msg": message}
        self.streams[side].note(json.dumps(entry) + "\n")

    def ended(self, side: Side, now_ns: int) -> None:
        """Take notice that a QEMU has ended."""
        self.streams[side].ended = True
        self._check(now_ns)

    def replaced(self, side: Side) -> None:
        """Take notice that another QEMU has come in place of one."""
        self.streams[side] = Stream()

    def _status(
        self, side: Side, witness: str, status: str, now_ns: int
    ) -> None:
        stream = self.streams[side]
        if self.phase is Phase.IDLE and stream.over and status not in _OVER:
            stream.witnesses.clear()
        stream.told(witness, status)
        if self.phase is Phase.IDLE and self._begins(side, status):
            self.phase = Phase.RUNNING
            self._on_begin(self)
            for each in self.streams.values():
                each.begin()
        self._check(now_ns)

    def _begins(self, side: Side, status: str) -> bool:
        if status in _OVER or status == "none":
            return False
        # A destination is set up long before anybody migrates to it.
        return side is Side.SOURCE or status not in _WAITING

    def _check(self, now_ns: int) -> None:
        if self.phase is not Phase.RUNNING:
            return
        first = self.streams.get(Side.SOURCE) or next(
            iter(self.streams.values())
        )
        if first.over:
            self.phase = Phase.ENDING
            self._over_ns = now_ns

    def done(self, now_ns: int) -> bool:
        """Return whether the migration can be cut off.

        :param now_ns: The time.
        """
        if self.phase is not Phase.ENDING:
            return False
        if now_ns - self._over_ns > _PATIENCE_NS:
            return True
        last_ns = max(x.last_ns for x in self.streams.values())
        return (
            all(x.over for x in self.streams.values())
            and now_ns - max(last_ns, self._over_ns) > _QUIET_NS
        )

    def result(self, downtime_ms: int | None = None) -> Result:
        """Return how the migration ended.

        :param downtime_ms: QMP's own figure, if it was asked for.
        """
        return Result(
            outcome=_outcome(self.streams.values()),
            migration={
                str(side): tuple(stream.statuses)
                for side, stream in self.streams.items()
            },
            legs=((str(Side.SOURCE), str(Side.DESTINATION)),),
            qmp_downtime_ms=downtime_ms,
        )


def _outcome(streams: Iterable[Stream]) -> Outcome:
    told = [x.status for x in streams if x.status]
    # The destination of a migration that is cancelled fails.
    if "cancelled" in told or "cancelling" in told:
        return Outcome.CANCELLED
    if "failed" in told or "failing" in told:
        return Outcome.FAILED
    if told and told[0] == "completed":
        return Outcome.MIGRATED
    return Outcome.LOST
