# SPDX-License-Identifier: GPL-2.0-or-later
"""A reader for the logs that p2psim's devices keep, versions 1 to 6.

The format is described in images/p2psim/README.md.  Such a log is a second
witness next to QEMU's trace, so nothing in it is guessed: any deviation from
the format is an error that names the file and the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, BinaryIO

from vfio_p2p.errors import TraceError
from vfio_p2p.trace.device import (
    Call,
    ChecksumBad,
    ChecksumOk,
    Close,
    DeviceLog,
    DeviceReset,
    Dma,
    DmaMemory,
    Dropped,
    Fault,
    Gone,
    Heartbeat,
    Live,
    Loaded,
    LogEntry,
    LoggingReport,
    LoggingStarted,
    LoggingStopped,
    Lost,
    Open,
    Peer,
    Quiet,
    Reinit,
    Request,
    RequestResult,
    ResetDeferred,
    Saved,
    Walked,
)
from vfio_p2p.trace.lines import ascii_lines
from vfio_p2p.trace.record import printable
from vfio_p2p.uapi import DeviceState

VERSION = 6

# The kernel stays far below both limits; a log beyond them is not p2psim's.
_MOST_ENTRIES = 200_000
_LINE_BYTES = 1024


def read_device_log(
    stream: BinaryIO, name: str, shift_ns: int = 0
) -> DeviceLog:
    """Read a device's log.

    :param stream: The log, opened in binary mode; it is not closed.
    :param name: What to call the log in messages.
    :param shift_ns: What is added to every time, in nanoseconds, so that a
        log can be read by the clock of another host.
    :raise TraceError: When it is damaged, or newer than this program.
    """
    lines = ascii_lines(
        stream,
        _LINE_BYTES,
        partial(_damaged, name),
        "a device writes no such characters",
    )
    version = _version(name, next(lines, ""))
    entries = []
    builder = _Calls(name)
    for number, text in enumerate(lines, 2):
        if number > _MOST_ENTRIES:
            raise _damaged(name, number, "a device's log has fewer lines")
        entry = _parse(name, number, text, version, shift_ns)
        entries.append(entry)
        builder.add(entry)
    return DeviceLog(name, version, tuple(entries), builder.finish())


def _damaged(name: str, line: int, why: str) -> TraceError:
    return TraceError(
        f"{printable(name)}:{line}: {why}",
        "Give the log of a p2psim device as the kernel wrote it.",
    )


_HEADER = re.compile(r"p2psim-log version=(\d{1,9}) clock=(\w{1,32})")


def _version(name: str, text: str) -> int:
    match = _HEADER.match(text)
    if match is None:
        raise _damaged(name, 1, "this is not the log of a p2psim device")
    version = int(match[1])
    if version > VERSION:
        raise TraceError(
            f"{printable(name)}:1: version {version} of the log is newer "
            f"than this program, which knows up to {VERSION}",
            "Use a newer vfio-p2p.",
        )
    if match[2] != "CLOCK_REALTIME" or match.end() != len(text):
        raise _damaged(
            name, 1, "the log has another clock than QEMU's traces"
        )
    return version


def _state(text: str) -> DeviceState:
    return DeviceState[text]


def _asked(text: str) -> DeviceState | None:
    return None if text == "INVALID" else DeviceState[text]


def _addressed(text: str) -> DeviceState | None:
    return None if text == "CLOSED" else DeviceState[text]


def _number(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,20}", text):
        raise ValueError(text)
    return int(text)


def _moment(text: str) -> int:
    """Read a time of the kernel's clock, which can be shifted."""
    return _number(text)


def _flag(text: str) -> bool:
    return {"0": False, "1": True}[text]


def _crc(text: str) -> int:
    if not re.fullmatch(r"[0-9a-f]{8}", text):
        raise ValueError(text)
    return int(text, 16)


def _word(*known: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in known:
            raise ValueError(text)
        return text

    return check


@dataclass(frozen=True)
class _Shape:
    """What lines of one event look like.

    :param make: The class of its values.
    :param keys: The keys in the log; for each, the field of the value and
        the function that reads it.
    :param optional: The fields that may be missing.
    :param since: The first version of the log with this event.
    """

    make: Callable[..., LogEntry]
    keys: Mapping[str, tuple[str, Callable[[str], object]]] = field(
        default_factory=dict
    )
    optional: tuple[str, ...] = ()
    since: int = 1

    @cached_property
    def needed(self) -> frozenset[str]:
        """The keys that every line has."""
        return frozenset(
            key
            for key, (what, _) in self.keys.items()
            if what not in self.optional
        )


def _same(**keys: Callable[[str], object]) -> dict[str, Any]:
    return {key: (key, read) for key, read in keys.items()}


_ARC = {"from": ("before", _state), "to": ("target", _state)}
_TO = {"to": ("target", _asked)}
_SIZE = {"bytes": ("size_bytes", _number)}

_SHAPES: Mapping[str, _Shape] = {
    "gone": _Shape(Gone),
    "open": _Shape(Open),
    "close": _Shape(Close, _same(state=_state)),
    "reset": _Shape(DeviceReset, _same(state=_state)),
    "request": _Shape(Request, {"from": ("before", _state), **_TO}),
    "arc": _Shape(
        Walked,
        {**_ARC, **_same(ret=_number, start_ns=_moment, end_ns=_moment)},
    ),
    "result": _Shape(
        RequestResult, {**_TO, **_same(state=_state, ret=_number)}
    ),
    "saved": _Shape(Saved, {**_SIZE, **_same(complete=_flag, crc32=_crc)}),
    "loaded": _Shape(Loaded, {**_SIZE, **_same(complete=_flag)}),
    "checksum ok": _Shape(ChecksumOk, _same(crc32=_crc)),
    "checksum bad": _Shape(
        ChecksumBad,
        _same(
            reason=_word("short", "broken", "mismatch", "peers"),
            sent=_crc,
            found=_crc,
        ),
        optional=("sent", "found"),
    ),
    "dropped": _Shape(Dropped, _same(count=_number)),
    "lost": _Shape(
        Lost,
        {
            "from": ("sender", _number),
            "to": ("receiver", _number),
            "seq": ("seq", _number),
            "from_state": ("from_state", _state),
            "to_state": ("to_state", _addressed),
        },
        since=2,
    ),
    "quiet": _Shape(
        Quiet, _same(waited_ns=_number, outstanding=_number), since=2
    ),
    "peer": _Shape(
        Peer,
        {
            "id": ("peer", _number),
            **_same(
                when=_word("saved", "loaded", "close", "reset"),
                sent=_number,
                received=_number,
                lost=_number,
                doubled=_number,
                missed=_number,
            ),
        },
        since=2,
    ),
    "heartbeat": _Shape(
        Heartbeat,
        _same(
            when=_word("close", "reset"),
            count=_number,
            first=_number,
            first_ns=_moment,
            last=_number,
            last_ns=_moment,
            gap_start_ns=_moment,
            gap_end_ns=_moment,
            missed=_number,
            repeated=_number,
            untimely=_number,
        ),
        since=3,
    ),
    "reinit": _Shape(
        Reinit, _same(initial_bytes=_number, announced=_flag), since=4
    ),
    "deferred": _Shape(ResetDeferred, since=5),
    "dma": _Shape(
        Dma,
        _same(
            when=_word("stop", "close", "reset", "off"),
            seq=_number,
            failed=_number,
            error=_number,
        ),
        since=6,
    ),
    "dma memory": _Shape(
        DmaMemory,
        _same(
            last=_number,
            pages=_number,
            stale=_number,
            empty=_number,
            error=_number,
        ),
        since=6,
    ),
    "logging started": _Shape(
        LoggingStarted,
        _same(ranges=_number, pages=_number, page_size=_number),
        since=6,
    ),
    "logging stopped": _Shape(
        LoggingStopped, _same(reported=_number, left=_number), since=6
    ),
    "logging report": _Shape(
        LoggingReport, _same(pages=_number, seq=_number), since=6
    ),
}
_LINE = re.compile(r"(\d{1,20}) ([a-z]+(?: [a-z]+(?= |$))*)(?: (.*))?")


def _parse(
    name: str, number: int, text: str, version: int, shift_ns: int
) -> LogEntry:
    match = _LINE.fullmatch(text)
    if match is None:
        raise _damaged(name, number, "the line is not an event")
    time_ns, event, rest = int(match[1]), match[2], match[3] or ""
    time_ns += shift_ns
    if version >= 2 and event.split()[0] == "fault":
        what = text.partition(" fault ")[2]
        return Fault(name, number, time_ns, text, what)
    values = _values(name, number, rest)
    if event == "live":
        # Its keys are whatever can be configured.
        return Live(name, number, time_ns, text, values)
    shape = _SHAPES.get(event)
    if shape is None or shape.since > version:
        raise _damaged(
            name,
            number,
            f"version {version} of the log has no event {event!r}",
        )
    if not shape.needed <= values.keys() <= shape.keys.keys():
        raise _damaged(
            name, number, f"these are not the keys of {event!r}"
        )
    fields: dict[str, Any] = {}
    for key, value in values.items():
        what, read = shape.keys[key]
        try:
            fields[what] = read(value)
            if read is _moment:
                fields[what] += shift_ns
        except (KeyError, ValueError):
            raise _damaged(
                name, number, f"{key}={printable(value)} is not a valid value"
            ) from None
    return shape.make(name, number, time_ns, text, **fields)


def _values(name: str, number: int, text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in text.split():
        key, equals, value = part.partition("=")
        if not key or not equals or key in values:
            raise _damaged(
                name, number, "the line is not a list of different keys"
            )
        values[key] = value
    return values


@dataclass(slots=True)
class _Calls:
    """Groups entries into requests; a device handles one at a time."""

    name: str
    request: Request | None = None
    steps: list[Walked] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def add(self, entry: LogEntry) -> None:
        """Take the next entry."""
        match entry:
            case Request():
                if self.request is not None:
                    raise self._misplaced(entry)
                self.request = entry
            case Walked():
                if self.request is None:
                    raise self._misplaced(entry)
                self.steps.append(entry)
            case RequestResult():
                if (
                    self.request is None
                    or self.request.target is not entry.target
                ):
                    raise self._misplaced(entry)
                self._end(entry)
            case _:
                pass

    def finish(self) -> tuple[Call, ...]:
        """End the log, and with it the last request."""
        self._end(None)
        return tuple(self.calls)

    def _end(self, result: RequestResult | None) -> None:
        if self.request is not None:
            self.calls.append(Call(self.request, tuple(self.steps), result))
        self.request = None
        self.steps = []

    def _misplaced(self, entry: LogEntry) -> TraceError:
        return _damaged(
            entry.file, entry.line, "the line does not follow from the others"
        )
