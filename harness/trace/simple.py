# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of QEMU's `simple` trace backend: binary records.

As trace/simple.c writes them (format version 4, QEMU 8.1 to 11.1): a header
of three 64-bit words; then, each behind a word that tells them apart,
*mappings* (an event's number and its name) and *events*: number, time,
length, process id, and the arguments, a number as 64 bits, a string behind
its 32-bit length.  All in the byte order of the host.

The file says no argument's type and no format, but `FORMATS` does: words
are strings, and the rest are numbers.  A file is as untrusted as a log.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from harness.errors import TraceError
from harness.trace.formats import (
    FORMATS,
    Format,
    Kind,
    arguments,
    is_word,
    render,
)
from harness.trace.record import Event, Record, Tally, printable

SIGNATURE = b"\xff" * 8         # HEADER_EVENT_ID
_MAGIC = 0xF2B177CB0AA429B4
_VERSION = 4
_DROPPED = "dropped"
_DROPPED_ID = 2**64 - 2
_TYPE_MAPPING = 0
_TYPE_EVENT = 1

_HEADER = struct.Struct("<8sQQ")
HEADER_BYTES = _HEADER.size
_MAPPING = struct.Struct("<QQI")            # type, number, length of name
_HEAD = struct.Struct("<QQ")                # type and number
_EVENT = struct.Struct("<16s8xI")           # these as one, length
_TIME = struct.Struct("<16xQ8x")            # time, and where arguments begin
_TYPE_BYTES = 8                             # not counted by the length
# TRACE_BUF_LEN; an event has to fit into QEMU's buffer.
_MOST_BYTES = 4096 * 64
_MOST_NAME_BYTES = 256
# Four strings of MAX_TRACE_STRLEN; no event here has more arguments.
_MOST_PAYLOAD = 4 * (4 + 512)

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_S64 = struct.Struct("<q")


class _Layout(NamedTuple):
    """An event's arguments in a range of versions.

    :param fmt: The newest format that has them.
    :param arguments: Names and conversions.
    :param versions: First and last of `VERSIONS`.
    """

    fmt: Format
    arguments: tuple[tuple[str, str], ...]
    versions: tuple[str, str]


def _layouts() -> dict[str, tuple[_Layout, ...]]:
    """All layouts by event; hexadecimal or not is the same here."""
    found: dict[str, dict[tuple[str, ...], _Layout]] = {}
    for fmt in FORMATS:
        args = arguments(fmt.template)
        key = tuple(conversion.replace("x", "u") for _, conversion in args)
        layouts = found.setdefault(fmt.event, {})
        since = layouts[key].versions[0] if key in layouts else fmt.since
        layouts[key] = _Layout(fmt, args, (since, fmt.until))
    return {event: tuple(by.values()) for event, by in found.items()}


_LAYOUTS = _layouts()


def scan(chunks: Iterator[bytes], tally: Tally) -> Iterator[Record]:
    """Yield the records of a trace in the order of the file.

    :param chunks: The file's content; the first has `HEADER_BYTES` or all.
    :param tally: Counts what is there.
    :raise TraceError: When it is damaged, or of another format.
    """
    data = next(chunks)
    _check_header(data, tally.name)
    at = HEADER_BYTES
    offset = 0                  # of data in the file
    count = 0
    # By type and number; empty for events of no interest.
    names = {_HEAD.pack(_TYPE_EVENT, _DROPPED_ID): _DROPPED}
    for chunk in chain([b""], chunks):
        # What is of no interest may end after the data that is there.
        offset += min(at, len(data))
        at, data = max(0, at - len(data)), data[at:] + chunk
        while True:
            try:
                head, length = _EVENT.unpack_from(data, at)
                name = names[head]
            except struct.error:
                break
            except KeyError:
                mapping = _mapping(data, at)
                if mapping is None:
                    _check_mapping(data, at, offset, tally.name)
                    break
                number, name, at = mapping
                head = _HEAD.pack(_TYPE_EVENT, number)
                names[head] = name if name in _LAYOUTS else ""
                continue
            if name:
                if not _TIME.size - _TYPE_BYTES <= length <= _MOST_BYTES:
                    raise _damaged(tally.name, offset + at)
                stop = at + _TYPE_BYTES + length
                if stop > len(data):
                    break
                record = _record(count + 1, name, data[at:stop], tally)
                if record is not None:
                    tally.records += 1
                    yield record
            count += 1
            at += _TYPE_BYTES + length
    # A mapping can be shorter than any event's head.
    tally.cut = at != len(data) and _mapping(data, at) is None
    tally.lines = count - (at > len(data))


def _check_header(data: bytes, name: str) -> None:
    if len(data) < HEADER_BYTES:
        raise TraceError(
            f"{printable(name)} ends within its header, after {len(data)} "
            "bytes",
            "give the whole file; QEMU writes its end when it exits",
        )
    _, magic, version = _HEADER.unpack_from(data)
    if magic == int.from_bytes(_MAGIC.to_bytes(8, "little"), "big"):
        raise TraceError(
            f"{printable(name)} was written on a big-endian host",
            "only little-endian ones are supported; use the 'log' backend",
        )
    if magic != _MAGIC:
        raise TraceError(
            f"{printable(name)} is a binary file, and no trace",
            "give what QEMU's 'log' or 'simple' trace backend wrote",
        )
    if version != _VERSION:
        raise TraceError(
            f"{printable(name)} has version {version} of the 'simple' "
            f"backend's format, not {_VERSION}",
            "trace with QEMU 8.1 to 11.1, or use the 'log' backend",
        )


def _mapping(data: bytes, at: int) -> tuple[int, str, int] | None:
    """Number and name of an event, and where they end; None if cut."""
    if len(data) - at < _MAPPING.size:
        return None
    kind, number, length = _MAPPING.unpack_from(data, at)
    begin = at + _MAPPING.size
    stop = begin + length
    if kind != _TYPE_MAPPING or stop > len(data):
        return None
    return number, data[begin:stop].decode("ascii", "replace"), stop


def _check_mapping(data: bytes, at: int, offset: int, name: str) -> None:
    """More data may help a mapping, but nothing else."""
    kind, _, length = _MAPPING.unpack_from(data, at)
    if kind != _TYPE_MAPPING or length > _MOST_NAME_BYTES:
        raise _damaged(name, offset + at)


def _damaged(name: str, offset: int) -> TraceError:
    return TraceError(
        f"{printable(name)} is damaged: at byte {offset} there is neither "
        "an event nor an event's name",
        "give the file as QEMU's 'simple' backend wrote it",
    )


def _record(
    count: int, name: str, data: bytes, tally: Tally
) -> Record | None:
    (time_ns,) = _TIME.unpack_from(data)
    payload = data[_TIME.size : _TIME.size + _MOST_PAYLOAD]
    if name is _DROPPED:
        dropped = int.from_bytes(payload[:8], "little")
        text = f"QEMU dropped {dropped} events"
        return Record(count, time_ns, None, "", Kind.DROPPED, {}, text)
    found = _event(name, payload)
    if found is None:
        return None
    event, text = found
    if event.versions is not None:
        tally.ranges.add(event.versions)
    # The file has the process, but not the thread.
    return Record(
        count, time_ns, None, name, event.kind, event.fields, text
    )


# QEMU says the same again and again.
@lru_cache(maxsize=4096)
def _event(name: str, payload: bytes) -> tuple[Event, str] | None:
    """What an event says, and its text; None when that is of no weight."""
    layouts = _LAYOUTS[name]
    for layout in layouts:
        fields = _fields(layout.arguments, payload)
        if fields is not None:
            event = Event.of(layout.fmt, fields, layout.versions)
            return event, render(layout.fmt, fields)
    if all(layout.fmt.kind is Kind.OTHER for layout in layouts):
        return None
    text = f"{name} with unknown arguments {payload[:64].hex()}"
    return Event(Kind.UNKNOWN, {}, None), text


def _fields(
    wanted: tuple[tuple[str, str], ...], payload: bytes
) -> dict[str, int | str] | None:
    """The arguments' values; None when they are not these."""
    found: dict[str, int | str] = {}
    at = 0
    try:
        for name, conversion in wanted:
            if conversion:
                number = _S64 if conversion == "d" else _U64
                (found[name],) = number.unpack_from(payload, at)
                at += number.size
                continue
            (length,) = _U32.unpack_from(payload, at)
            begin = at + _U32.size
            at = begin + length
            word = payload[begin:at].decode("utf-8", "backslashreplace")
            if not is_word(name, word):
                return None
            found[name] = word
    except struct.error:
        return None
    return found if at == len(payload) else None
