# SPDX-License-Identifier: GPL-2.0-or-later
"""A streaming reader for QEMU's `log` trace backend.

Reads bytes in chunks, lets one regular expression find the few lines that
concern VFIO, and yields those as records; memory is bounded by the chunk,
whatever the file holds.  A log is untrusted: a line may be endless, damaged
or forged, and `printable` makes any of it fit to show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from harness.errors import TraceError
from harness.trace.formats import (
    FORMATS,
    MESSAGES,
    PREFIXES,
    VERSIONS,
    Format,
    Kind,
    numbers,
    pattern,
)

_CHUNK_BYTES = 1 << 20
# An event's line is shorter than this by far; a longer one is damaged.
_LINE_BYTES = 2048
# What is kept of a line while its end is looked for.
_CARRY_BYTES = 64 << 10

# Part of every line that matters; `_LINE` and `_MESSAGE` have the last word.
# The search tries to match wherever one of the first letters stands, so few
# and rare ones make it fast: hence "minating on", and "sync" behind itself.
_RELEVANT = re.compile(
    rb"vfio_(?:vmstate|migration|save|load|state_p|query|send)"
    rb"|vm_state_notify|vmstate_downtime_"
    rb"|migrat(?:e_|ion_c|ion_r|ion f)|minating on"
    rb"|savevm_state_cleanup|source_return_path_t|sync(?<=out of sync)"
    rb"|process_incoming_m"
    rb"|VFIO|Failed (?:set|reset)"
)
_MESSAGE = re.compile("|".join(re.escape(m) for m in MESSAGES))

_PREFIX = "|".join(
    f"(?P<prefix{i}>{prefix.pattern})" for i, prefix in enumerate(PREFIXES)
)
_LINE = re.compile(rf"(?:{_PREFIX})(?P<event>\w+)(?: +(?P<text>.*))?")
# An event that does not stand where it should: a line ran into another.
_DAMAGED = re.compile(
    rf"\b(?:{'|'.join(sorted({f.event for f in FORMATS}))})  \("
)
_BY_EVENT: dict[str, list[tuple[Format, re.Pattern[str], set[str]]]] = {}
for _format in FORMATS:
    _BY_EVENT.setdefault(_format.event, []).append(
        (
            _format,
            re.compile(pattern(_format.template)),
            numbers(_format.template),
        )
    )
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")

_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\x1b")) + b"\x7f"


def printable(text: str) -> str:
    """The text with all that could act on a terminal escaped.

    :param text: Anything, of any origin.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )


@dataclass(frozen=True, slots=True)
class Record:
    """One line that concerns VFIO migration.

    :param line: Its number, 1 is the first.
    :param time_ns: Wall-clock time, nanoseconds since 1970, if printed.
    :param thread: Thread id, if printed.
    :param event: Name of the trace event; empty for a message.
    :param kind: What the line says.
    :param fields: The event's arguments.
    :param text: The line itself, *not* fit to print (see `printable`).
    """

    line: int
    time_ns: int | None
    thread: int | None
    event: str
    kind: Kind
    fields: Mapping[str, int | str]
    text: str

    @property
    def device(self) -> str:
        """Name of the device, empty when the event has none."""
        return str(self.fields.get("device", ""))


@dataclass(frozen=True, slots=True)
class Summary:
    """What a log is like as a whole.

    :param name: The file's name, as it is shown.
    :param size_bytes: Its size.
    :param lines: Number of complete lines.
    :param records: Number of lines that concern VFIO migration.
    :param cut: The last line has no end.
    :param versions: First and last of `VERSIONS` that print all that was
        seen; None when no single one does.
    """

    name: str
    size_bytes: int
    lines: int
    records: int
    cut: bool
    versions: tuple[str, str] | None


class TraceReader:
    """Iterates once over the records of a log; then `summary` is there.

    :param stream: Opened in binary mode; not closed.
    :param name: What to call it in messages.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self.name = name
        self._size_bytes = 0
        self._lines = 0
        self._records = 0
        self._cut = False
        self._since = 0
        self._until = len(VERSIONS) - 1

    @property
    def summary(self) -> Summary:
        """The whole log's summary, once the iteration is over."""
        versions = None
        if self._since <= self._until:
            versions = VERSIONS[self._since], VERSIONS[self._until]
        return Summary(
            self.name,
            self._size_bytes,
            self._lines,
            self._records,
            self._cut,
            versions,
        )

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in the order of the file.

        :raise TraceError: When the file is binary or unreadable.
        """
        carry = b""
        while chunk := self._read():
            data = carry + chunk
            end = data.rfind(b"\n") + 1
            yield from self._scan(data[:end])
            carry = data[end : end + _CARRY_BYTES]
        self._cut = bool(carry)

    def _read(self) -> bytes:
        try:
            chunk = self._stream.read(_CHUNK_BYTES)
        except OSError as err:
            raise TraceError(
                f"{printable(self.name)}: {err.strerror}",
                "give a readable trace log",
            ) from err
        controls = 0
        if not self._size_bytes:
            head = chunk[:4096]
            controls = len(head) - len(head.translate(None, _CONTROLS))
        if b"\0" in chunk or controls * 20 > len(chunk[:4096]):
            raise TraceError(
                f"{printable(self.name)} is a binary file",
                "give the text that QEMU's 'log' trace backend wrote (a "
                "file of the 'simple' backend needs scripts/simpletrace.py)",
            )
        self._size_bytes += len(chunk)
        return chunk

    def _scan(self, block: bytes) -> Iterator[Record]:
        """Records of a block of complete lines."""
        position = 0
        while match := _RELEVANT.search(block, position):
            start = block.rfind(b"\n", position, match.start()) + 1
            start = start or position
            self._lines += block.count(b"\n", position, start) + 1
            end = block.index(b"\n", match.end())
            position = end + 1
            raw = block[start : min(end, start + _LINE_BYTES)]
            text = raw.rstrip(b"\r").decode("utf-8", "backslashreplace")
            record = self._parse(text)
            if record is not None:
                self._records += 1
                yield record
        self._lines += block.count(b"\n", position)

    def _parse(self, text: str) -> Record | None:
        match = _LINE.fullmatch(text)
        formats = _BY_EVENT.get(match["event"]) if match else None
        if match is None or formats is None or len(text) >= _LINE_BYTES:
            return self._foreign(text)
        event = match["event"]
        rest = (match["text"] or "").rstrip(" ")
        for fmt, regex, numeric in formats:
            found = regex.fullmatch(rest)
            if found is None:
                continue
            prefix = next(
                prefix
                for i, prefix in enumerate(PREFIXES)
                if match[f"prefix{i}"] is not None
            )
            self._narrow(fmt.since, fmt.until)
            self._narrow(prefix.since, prefix.until)
            fields: dict[str, int | str] = {
                name: _number(value) if name in numeric else value
                for name, value in found.groupdict().items()
            }
            thread = match["tid"] or match["tid2"]
            return Record(
                self._lines,
                _time_ns(match),
                int(thread) if thread else None,
                event,
                Kind.PREPARE if fields.get("pre") else fmt.kind,
                fields,
                text,
            )
        if all(fmt.kind is Kind.OTHER for fmt, _, _ in formats):
            return None
        return self._record(event, Kind.UNKNOWN, text)

    def _foreign(self, text: str) -> Record | None:
        """A line that is no trace line, if it matters all the same."""
        if _DAMAGED.search(text):
            return self._record("", Kind.UNKNOWN, text)
        if _MESSAGE.search(text):
            return self._record("", Kind.MESSAGE, text)
        return None

    def _record(self, event: str, kind: Kind, text: str) -> Record:
        return Record(self._lines, None, None, event, kind, {}, text)

    def _narrow(self, since: str, until: str) -> None:
        self._since = max(self._since, VERSIONS.index(since))
        self._until = min(self._until, VERSIONS.index(until))


def _number(text: str) -> int:
    return int(text, 16 if text.startswith("0x") else 10)


def _time_ns(match: re.Match[str]) -> int | None:
    if match["sec"]:
        return (int(match["sec"]) * 10**6 + int(match["usec"])) * 1000
    iso = match["iso"] or match["iso2"]
    if not iso:
        return None
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return None
    delta = moment - _EPOCH
    return (
        (delta.days * 86400 + delta.seconds) * 10**6 + delta.microseconds
    ) * 1000

