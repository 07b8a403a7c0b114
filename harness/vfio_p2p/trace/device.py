# SPDX-License-Identifier: GPL-2.0-or-later
"""What p2psim's devices say about themselves, as values.

One class for each event of images/p2psim/README.md; all states are the
uAPI's, all times nanoseconds of CLOCK_REALTIME, the clock of QEMU's traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from vfio_p2p.uapi import DeviceState


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line.

    :param file: Name of the log, as it is shown.
    :param line: Its number, 1 is the first.
    :param time_ns: When it was written, CLOCK_REALTIME.
    :param text: The line itself.
    """

    file: str
    line: int
    time_ns: int
    text: str


@dataclass(frozen=True, slots=True)
class Live(LogEntry):
    """The device appeared; `settings` are as they were configured."""

    settings: Mapping[str, str]

    @property
    def peer_id(self) -> int | None:
        """Its number in its group; None without a group."""
        text = self.settings.get("peer_id", "")
        return int(text) if text.isascii() and text.isdigit() else None


@dataclass(frozen=True, slots=True)
class Gone(LogEntry):
    """The device is gone."""


@dataclass(frozen=True, slots=True)
class Open(LogEntry):
    """A user, QEMU, has it open."""


@dataclass(frozen=True, slots=True)
class Close(LogEntry):
    """The user is gone; `state` is the one that it left."""

    state: DeviceState


@dataclass(frozen=True, slots=True)
class DeviceReset(LogEntry):
    """DeviceReset, and so RUNNING; `state` is the one before."""

    state: DeviceState


@dataclass(frozen=True, slots=True)
class Request(LogEntry):
    """A request arrived; `target` is None if no such state exists."""

    before: DeviceState
    target: DeviceState | None


@dataclass(frozen=True, slots=True)
class Walked(LogEntry):
    """One step of a request is over; `ret` is 0 or -errno."""

    before: DeviceState
    target: DeviceState
    ret: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class RequestResult(LogEntry):
    """A request is over; `state` is the one that the device is in."""

    target: DeviceState | None
    state: DeviceState
    ret: int


@dataclass(frozen=True, slots=True)
class Saved(LogEntry):
    """A saving session ended; `complete`: all of it had been read."""

    size_bytes: int
    complete: bool
    crc32: int


@dataclass(frozen=True, slots=True)
class Loaded(LogEntry):
    """A loading session ended; `complete`: it had an end frame."""

    size_bytes: int
    complete: bool


@dataclass(frozen=True, slots=True)
class ChecksumOk(LogEntry):
    """What was loaded has the checksum that was sent with it."""

    crc32: int


@dataclass(frozen=True, slots=True)
class ChecksumBad(LogEntry):
    """It has not: `reason` is ``short``, ``broken``, ``mismatch``, ``peers``.

    With ``mismatch`` the checksums that were `sent` and `found` are given.
    """

    reason: str
    sent: int | None = None
    found: int | None = None


@dataclass(frozen=True, slots=True)
class Dropped(LogEntry):
    """The log was full: `count` events are not in it."""

    count: int


@dataclass(frozen=True, slots=True)
class Lost(LogEntry):
    """A transaction was never answered.

    :param sender: Who sent it, a number in the group.
    :param receiver: To whom.
    :param seq: Its number, counted from 1 for each receiver.
    :param from_state: State of the sender.
    :param to_state: State of the receiver; None if nobody had it open.
    """

    sender: int
    receiver: int
    seq: int
    from_state: DeviceState
    to_state: DeviceState | None


@dataclass(frozen=True, slots=True)
class Fault(LogEntry):
    """A configured fault struck; `what` is its configuration."""

    what: str


@dataclass(frozen=True, slots=True)
class Quiet(LogEntry):
    """An arc waited until `outstanding` transactions were over."""

    waited_ns: int
    outstanding: int


@dataclass(frozen=True, slots=True)
class Peer(LogEntry):
    """What passed between the device and one peer, up to now.

    :param peer: The other's number in their group.
    :param when: ``saved``, ``loaded``, ``close`` or ``reset``.
    :param sent: Transactions sent to it.
    :param received: Transactions accepted from it.
    :param lost: Of those sent, never answered.
    :param doubled: Of those received, seen before.
    :param missed: Never seen, though later ones were.
    """

    peer: int
    when: str
    sent: int
    received: int
    lost: int
    doubled: int
    missed: int

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """All counters."""
        return (
            self.sent, self.received, self.lost, self.doubled, self.missed
        )


@dataclass(frozen=True, slots=True)
class Heartbeat(LogEntry):
    """What a guest wrote to the device, from opening or reset up to now.

    All times are nanoseconds of CLOCK_REALTIME.  Without a beat those, and
    the numbers, mean nothing.

    :param when: ``close`` or ``reset``.
    :param count: Beats.
    :param first: Number of the first one.
    :param first_ns: When it came.
    :param last: Number of the last one.
    :param last_ns: When it came.
    :param gap_start_ns: Where the longest time between two began.
    :param gap_end_ns: Where it ended.
    :param missed: Numbers jumped over.
    :param repeated: Beats with a number not above the one before.
    :param untimely: Beats in a state in which no VM runs.
    """

    when: str
    count: int
    first: int
    first_ns: int
    last: int
    last_ns: int
    gap_start_ns: int
    gap_end_ns: int
    missed: int
    repeated: int
    untimely: int


@dataclass(frozen=True, slots=True)
class Call:
    """One request, its steps and how it ended.

    :param request: Its beginning.
    :param steps: What the device did for it.
    :param result: Its end; None where the log ends before.
    """

    request: Request
    steps: tuple[Walked, ...]
    result: RequestResult | None

    @property
    def entries(self) -> tuple[LogEntry, ...]:
        """Beginning and end."""
        if self.result is None:
            return (self.request,)
        return (self.request, self.result)


_Kind = TypeVar("_Kind", bound=LogEntry)


@dataclass(frozen=True, slots=True)
class DeviceLog:
    """All that a device said about itself.

    :param name: The file's name, as it is shown.
    :param version: Version of its format.
    :param entries: All lines but the header.
    :param calls: Requests with their steps and results.
    """

    name: str
    version: int
    entries: tuple[LogEntry, ...]
    calls: tuple[Call, ...]

    def of(self, kind: type[_Kind]) -> tuple[_Kind, ...]:
        """The entries of one kind, in their order.

        :param kind: Which.
        """
        return tuple(x for x in self.entries if isinstance(x, kind))

    def opened_at(self, time_ns: int) -> DeviceLog:
        """What it said to one of several users, one after another.

        :param time_ns: When that user had it open.
        """
        opens = self.of(Open)
        begin = max((x.line for x in opens if x.time_ns <= time_ns), default=0)
        end = min((x.line for x in opens if x.line > begin), default=None)

        def inside(entry: LogEntry) -> bool:
            return begin <= entry.line and (end is None or entry.line < end)

        return replace(
            self,
            entries=tuple(
                entry
                for entry in self.entries
                if inside(entry) or isinstance(entry, Live | Dropped)
            ),
            calls=tuple(call for call in self.calls if inside(call.request)),
        )

    @property
    def whole(self) -> bool:
        """Whether the log has all that there was to say."""
        return not self.of(Dropped)
