# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs of QMP events: what a monitor tells of a migration.

A QEMU without a readable trace still has a monitor.  Since 9.1 it sends the
event VFIO_MIGRATION when a device has come to another state, if the device
has the property ``migration-events=on``.  Such a log has one JSON document in
each line: an event as QEMU sent it, or a line of a bundle's ``qmp.jsonl``.

Lines that are no events are counted and left out.  A log is untrusted, as a
trace is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import msgspec

from vfio_p2p.foreign import NOT_JSON
from vfio_p2p.trace.formats import VERSIONS, Kind
from vfio_p2p.trace.record import Backend, Record, Summary, Tally
from vfio_p2p.uapi import DeviceState

#: The name of the event about a device's state.
EVENT = "VFIO_MIGRATION"
#: Sent before a request, unlike all others (5ab3bce0f3).
PREPARE = "pre-copy-p2p-prepare"

_LINE_BYTES = 64 << 10
_TEXT_BYTES = 2048
# Answers of QMP may come before the first event.
_LOOKED_AT = 20
_BOM = b"\xef\xbb\xbf"
_EVENT_SINCE = "9.1"
_ELEVEN = "11.0"
_ELEVEN_STATUSES = frozenset({"failing"})
# Events that tell why a VM stops.
_REASONS = {
    "SHUTDOWN": "shutdown",
    "BLOCK_IO_ERROR": "io-error",
    "GUEST_PANICKED": "guest-panicked",
    "WATCHDOG": "watchdog",
}
_RELEVANT = re.compile(rb'"timestamp"|"QMP"|VFIO_MIGRATION')
# What is left of an event.
_DAMAGED = re.compile(rb'"timestamp": ?\{ ?"seconds|VFIO_MIGRATION')
_STATES = {
    state.name.lower().replace("_", "-"): state.name for state in DeviceState
}


class _Timestamp(msgspec.Struct, frozen=True):
    seconds: int
    microseconds: int


class _Release(msgspec.Struct, frozen=True):
    major: int
    minor: int


class _Version(msgspec.Struct, frozen=True):
    qemu: _Release


class _Greeting(msgspec.Struct, frozen=True):
    version: _Version


class _Message(msgspec.Struct, frozen=True):
    event: str | None = None
    timestamp: _Timestamp | None = None
    data: dict[str, Any] = {}
    greeting: _Greeting | None = msgspec.field(default=None, name="QMP")


class _Line(_Message, frozen=True):
    dir: str | None = None
    msg: _Message | None = None


class _Said(msgspec.Struct, frozen=True):
    time_ns: int
    dir: str
    msg: dict[str, Any]


_SAID = msgspec.json.Decoder(_Said)
_DECODER = msgspec.json.Decoder(_Line)


def is_events(head: bytes) -> bool:
    """Return whether a file is a log of QMP events.

    :param head: The file's first bytes.
    """
    lines = head.removeprefix(_BOM).split(b"\n")[:_LOOKED_AT]
    for line in filter(None, map(bytes.strip, lines)):
        if not line.startswith(b"{"):
            return False
        if _message(line) is not None:
            return True
    return False


def _decode(line: bytes) -> _Line | None:
    """Return what is in a line; None if it is not like any of QMP's."""
    if not line.startswith(b"{"):
        return None
    try:
        return _DECODER.decode(line)
    except NOT_JSON:
        return None


def _message(line: bytes) -> _Message | None:
    """Return the event or the greeting in a line, if it has one.

    All lines of a transcript count, so that it is known by its first line.
    """
    found = _decode(line)
    if found is None:
        return None
    if found.dir is not None and found.msg is not None:
        return found.msg
    if found.greeting is not None:
        return found
    if found.event is not None and found.timestamp is not None:
        return found
    return None


class Heard(NamedTuple):
    """The part of a transcript in which no event is missing.

    :param start_ns: Its first moment, in nanoseconds since 1970.
    :param end_ns: Its last moment.
    :param data: Its lines.
    """

    start_ns: int
    end_ns: int
    data: bytes


def heard(transcript: bytes) -> Heard | None:
    """Return the part of a transcript in which no event is missing.

    QEMU sends none before capabilities are negotiated, and those after
    ``quit`` may not arrive.

    :param transcript: A bundle's ``qmp.jsonl``.
    :return: None if nothing was negotiated.
    """
    start_ns = end_ns = None
    size = 0
    for line in transcript.splitlines(keepends=True):
        try:
            said = _SAID.decode(line)
        except NOT_JSON:
            size += len(line)
            continue
        end_ns = said.time_ns
        if start_ns is None and said.dir == "<-" and "return" in said.msg:
            start_ns = said.time_ns
        if said.msg.get("execute") == "quit":
            break
        size += len(line)
    if start_ns is None or end_ns is None:
        return None
    return Heard(start_ns, end_ns, transcript[:size])


class EventReader:
    """Iterates once over the events of a log, and then has its `summary`.

    :param stream: The file, opened in binary mode; it is not closed.
    :param name: What to call the file in messages.
    :param shift_ns: What is added to every time, in nanoseconds.
    :param names: The names that devices have in a trace, by their ids.
    """

    def __init__(
        self,
        stream: BinaryIO,
        name: str,
        shift_ns: int = 0,
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self._names = names
        self._stream = stream
        self._shift_ns = shift_ns
        self._tally = Tally(name)
        self._tally.backend = Backend.QMP

    @property
    def summary(self) -> Summary:
        """The summary of the whole log, once the iteration is over."""
        return self._tally.summary()

    def __iter__(self) -> Iterator[Record]:
        """Yield what concerns a migration, in the order of the file."""
        tally = self._tally
        while raw := self._stream.readline(_LINE_BYTES):
            tally.size_bytes += len(raw)
            tally.cut = not raw.endswith(b"\n")
            damaged = False
            if tally.cut and len(raw) == _LINE_BYTES:
                damaged = self._skip(raw)
            if tally.cut:
                # What was not written to its end proves nothing.
                return
            tally.lines += 1
            line = raw.removeprefix(_BOM).strip()
            if damaged:
                yield self._damaged(line)
            elif _RELEVANT.search(line):
                yield from self._records(line)

    def _skip(self, raw: bytes) -> bool:
        """Skip the rest of a line that is longer than any event.

        :return: Whether it has the name of our event nevertheless.
        """
        tally = self._tally
        found = False
        while raw:
            tally.cut = not raw.endswith(b"\n")
            found = found or EVENT.encode() in raw
            if not tally.cut:
                break
            more = self._stream.readline(_LINE_BYTES)
            tally.size_bytes += len(more)
            # The name may be in two pieces.
            raw = raw[-len(EVENT) :] + more if more else b""
        return found

    def _damaged(self, line: bytes) -> Record:
        text = line[:_TEXT_BYTES].decode("utf-8", "backslashreplace")
        return self._made("", Kind.UNKNOWN, {}, None, text)

    def _records(self, line: bytes) -> Iterator[Record]:
        text = line[:_TEXT_BYTES].decode("utf-8", "backslashreplace")
        message = _message(line)
        if message is None:
            if _DAMAGED.search(line):
                yield self._damaged(line)
            return
        if message.greeting is not None:
            self._greeted(message.greeting.version.qemu)
        made = self._event(message)
        if made is not None:
            kind, fields = made
            at = message.timestamp
            # QEMU sends -1 if it cannot tell the time.
            time_ns = None
            if at is not None and at.seconds >= 0:
                time_ns = (at.seconds * 10**6 + at.microseconds) * 1000
                time_ns += self._shift_ns
            yield self._made(message.event or "", kind, fields, time_ns, text)

    def _made(
        self,
        event: str,
        kind: Kind,
        fields: Mapping[str, int | str],
        time_ns: int | None,
        text: str,
    ) -> Record:
        self._tally.records += 1
        return Record(
            self._tally.lines, time_ns, None, event, kind, fields, text
        )

    def _greeted(self, release: _Release) -> None:
        version = f"{release.major}.{release.minor}"
        if version in VERSIONS:
            self._tally.ranges.add((version, version))

    def _since(self, version: str) -> None:
        self._tally.ranges.add((version, VERSIONS[-1]))

    def _event(
        self, message: _Message
    ) -> tuple[Kind, dict[str, int | str]] | None:
        """Return what an event says; None if it says nothing of interest."""
        match message.event:
            case "VFIO_MIGRATION":
                self._since(_EVENT_SINCE)
                return self._device(message.data)
            case "MIGRATION":
                status = message.data.get("status")
                if not isinstance(status, str):
                    return Kind.UNKNOWN, {}
                if status in _ELEVEN_STATUSES:
                    self._since(_ELEVEN)
                return Kind.STATUS, {"status": status}
            case "RESUME":
                return Kind.NOTIFY, {"running": 1, "reason": "running"}
            case "STOP":
                return Kind.NOTIFY, {"running": 0, "reason": "paused"}
            case str(name) if name in _REASONS:
                return Kind.OTHER, {"reason": _REASONS[name]}
        return None

    def _device(
        self, data: dict[str, Any]
    ) -> tuple[Kind, dict[str, int | str]]:
        state, path = data.get("device-state"), data.get("qom-path")
        name = data.get("device-id")
        if not isinstance(name, str) or not name:
            # A device without an id has a path, as all have.
            name = path
        if not isinstance(name, str) or not isinstance(state, str):
            return Kind.UNKNOWN, {}
        name = self._names.get(name, name)
        if state == PREPARE:
            self._since(_ELEVEN)
            return Kind.ATTEMPT, {
                "device": name,
                "state": DeviceState.PRE_COPY_P2P.name,
                "recover": DeviceState.ERROR.name,
            }
        if state not in _STATES:
            return Kind.UNKNOWN, {"device": name}
        return Kind.CHANGED, {"device": name, "state": _STATES[state]}
