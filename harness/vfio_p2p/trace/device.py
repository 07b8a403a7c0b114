# SPDX-License-Identifier: GPL-2.0-or-later
"""What p2psim's devices log about themselves, as values.

There is one class for each event of images/p2psim/README.md.  All states are
the uAPI's.  All times are nanoseconds of CLOCK_REALTIME, the clock of QEMU's
traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from vfio_p2p.uapi import DeviceState


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a device's log.

    :param file: The name of the log, as it is shown.
    :param line: The number of the line; the first is 1.
    :param time_ns: The time at which it was written, CLOCK_REALTIME.
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
        """The device's number in its group; None without a group."""
        text = self.settings.get("peer_id", "")
        return int(text) if text.isascii() and text.isdigit() else None


@dataclass(frozen=True, slots=True)
class Gone(LogEntry):
    """The device was removed."""


@dataclass(frozen=True, slots=True)
class Open(LogEntry):
    """A user, that is QEMU, opened the device."""


@dataclass(frozen=True, slots=True)
class Close(LogEntry):
    """The user closed the device and left it in `state`."""

    state: DeviceState


@dataclass(frozen=True, slots=True)
class DeviceReset(LogEntry):
    """The device was reset and so is RUNNING; it was in `state` before."""

    state: DeviceState


@dataclass(frozen=True, slots=True)
class Request(LogEntry):
    """A request arrived; `target` is None if no such state exists."""

    before: DeviceState
    target: DeviceState | None


@dataclass(frozen=True, slots=True)
class Walked(LogEntry):
    """One arc of a request is over; `ret` is 0 or -errno."""

    before: DeviceState
    target: DeviceState
    ret: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class RequestResult(LogEntry):
    """A request is over; the device is now in `state`."""

    target: DeviceState | None
    state: DeviceState
    ret: int


@dataclass(frozen=True, slots=True)
class Saved(LogEntry):
    """A saving session ended; `complete` if all data had been read."""

    size_bytes: int
    complete: bool
    crc32: int


@dataclass(frozen=True, slots=True)
class Loaded(LogEntry):
    """A loading session ended; `complete` if the data had an end frame."""

    size_bytes: int
    complete: bool


@dataclass(frozen=True, slots=True)
class ChecksumOk(LogEntry):
    """The loaded data has the checksum that was sent with it."""

    crc32: int


@dataclass(frozen=True, slots=True)
class ChecksumBad(LogEntry):
    """The loaded data does not have the checksum that was sent with it.

    `reason` is ``short``, ``broken``, ``mismatch`` or ``peers``.  With
    ``mismatch``, the checksums that were `sent` and `found` are given.
    """

    reason: str
    sent: int | None = None
    found: int | None = None


@dataclass(frozen=True, slots=True)
class Dropped(LogEntry):
    """The log was full; `count` events are missing from it."""

    count: int


@dataclass(frozen=True, slots=True)
class Lost(LogEntry):
    """A transaction was never answered.

    :param sender: The sender's number in the group.
    :param receiver: The receiver's number in the group.
    :param seq: The transaction's number, counted from 1 for each receiver.
    :param from_state: The state of the sender.
    :param to_state: The state of the receiver; None if it was not open.
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
class ResetDeferred(LogEntry):
    """A reset was asked for, and takes effect when the request is over."""


@dataclass(frozen=True, slots=True)
class Reinit(LogEntry):
    """The device has new initial data.

    :param initial_bytes: How much memory it offers as initial data again.
    :param announced: Whether its user has opted in to being told.
    """

    initial_bytes: int
    announced: bool


@dataclass(frozen=True, slots=True)
class Quiet(LogEntry):
    """An arc waited until `outstanding` transactions were over."""

    waited_ns: int
    outstanding: int


@dataclass(frozen=True, slots=True)
class Peer(LogEntry):
    """What has passed between the device and one peer so far.

    :param peer: The peer's number in their group.
    :param when: ``saved``, ``loaded``, ``close`` or ``reset``.
    :param sent: The number of transactions sent to the peer.
    :param received: The number of transactions accepted from the peer.
    :param lost: How many of the sent ones were never answered.
    :param doubled: How many of the received ones had been received before.
    :param missed: How many never arrived, though later ones did.
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
class Dma(LogEntry):
    """The records that the device has written to the guest's memory.

    :param when: ``stop`` when it left a state in which it writes, ``close``,
        ``reset`` or ``off``.
    :param seq: The number of the last record, from 1; 0 if there is none.
    :param failed: How many writes the kernel has refused.
    :param error: What the last of those returned, or 0.
    """

    when: str
    seq: int
    failed: int
    error: int


@dataclass(frozen=True, slots=True)
class DmaMemory(LogEntry):
    """What a device that was loaded found in the memory it writes to.

    :param last: The number of the newest record in it; 0 if there is none.
    :param pages: The number of its pages.
    :param stale: How many of them have an older record than they should, if
        `last` was the last one.
    :param empty: How many of them have none.
    :param error: What a read that the kernel refused has returned, or 0.
    """

    last: int
    pages: int
    stale: int
    empty: int
    error: int


@dataclass(frozen=True, slots=True)
class LoggingStarted(LogEntry):
    """The user has asked for the pages that the device writes to.

    :param ranges: The number of ranges of memory.
    :param pages: How many pages of the device's memory are in them.
    :param page_size: The size of a page of the report, in bytes.
    """

    ranges: int
    pages: int
    page_size: int


@dataclass(frozen=True, slots=True)
class LoggingStopped(LogEntry):
    """The user wants no more reports.

    :param reported: How many pages were in reports.
    :param left: How many more were written to.
    """

    reported: int
    left: int


@dataclass(frozen=True, slots=True)
class LoggingReport(LogEntry):
    """A report that has pages in it.

    :param pages: Their number.
    :param seq: The number of the last record that was written until then.
    """

    pages: int
    seq: int


@dataclass(frozen=True, slots=True)
class Heartbeat(LogEntry):
    """What a guest wrote to the device since it was opened or reset.

    All times are nanoseconds of CLOCK_REALTIME.  If `count` is 0, the other
    numbers and the times mean nothing.

    :param when: ``close`` or ``reset``.
    :param count: The number of beats.
    :param first: The number of the first beat.
    :param first_ns: The time of the first beat.
    :param last: The number of the last beat.
    :param last_ns: The time of the last beat.
    :param gap_start_ns: The start of the longest time between two beats.
    :param gap_end_ns: The end of the longest time between two beats.
    :param missed: How many numbers were skipped.
    :param repeated: How many beats had a number not above the previous one.
    :param untimely: How many beats came in a state in which no VM runs.
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
    """One request, its arcs and its result.

    :param request: The entry for its start.
    :param steps: The arcs that the device took for it.
    :param result: The entry for its end; None if the log ends earlier.
    """

    request: Request
    steps: tuple[Walked, ...]
    result: RequestResult | None

    @property
    def entries(self) -> tuple[LogEntry, ...]:
        """The entries for its start and its end."""
        if self.result is None:
            return (self.request,)
        return (self.request, self.result)


_Kind = TypeVar("_Kind", bound=LogEntry)


@dataclass(frozen=True, slots=True)
class DeviceLog:
    """All that a device logged about itself.

    :param name: The file's name, as it is shown.
    :param version: The version of the log's format.
    :param entries: All lines except the header.
    :param calls: The requests with their arcs and results.
    """

    name: str
    version: int
    entries: tuple[LogEntry, ...]
    calls: tuple[Call, ...]

    def of(self, kind: type[_Kind]) -> tuple[_Kind, ...]:
        """Return the entries of one kind in their order.

        :param kind: Their class.
        """
        return tuple(x for x in self.entries if isinstance(x, kind))

    def opened_at(self, time_ns: int) -> DeviceLog:
        """Return what the device logged for one of several users in turn.

        :param time_ns: A time at which that user had the device open.
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
        """Whether the log holds all that the device had to say."""
        return not self.of(Dropped)
