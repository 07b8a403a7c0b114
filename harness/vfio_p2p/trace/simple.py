# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of QEMU's `simple` trace backend: binary records.

The format is that of trace/simple.c (format version 4, QEMU 8.1 to 11.1).  A
header of three 64-bit words is followed by *mappings* and *events*, each
behind a word that says which of the two it is.  A mapping has an event's
number and its name.  An event has its number, time, length, process id and
arguments: a number takes 64 bits, and a string follows its 32-bit length.
Everything is in the byte order of the host.

The file tells neither the types of the arguments nor a format, but `FORMATS`
does: words are strings, and all others are numbers.  A file is as untrusted
as a log.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Set
from functools import lru_cache
from itertools import chain, groupby
from typing import NamedTuple

from vfio_p2p.errors import TraceError
from vfio_p2p.trace.formats import (
    FORMATS,
    Format,
    Kind,
    arguments,
    is_word,
)
from vfio_p2p.trace.record import Record, Tally, printable

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
_LEAST_BYTES = _TIME.size - _TYPE_BYTES
# This is TRACE_BUF_LEN: an event has to fit into QEMU's buffer.
_MOST_BYTES = 4096 * 64
_MOST_NAME_BYTES = 256
# QEMU 10.2 has 5,500.
_MOST_EVENTS = 1 << 16
# Four strings of MAX_TRACE_STRLEN; no event of ours has more arguments.
_MOST_PAYLOAD = 4 * (4 + 512)
# How many texts of one event may be remembered.
_REMEMBERED = 1024

_U32 = struct.Struct("<I")


class _Layout(NamedTuple):
    """An event's arguments in a range of versions.

    :param fmt: The newest format with these arguments.
    :param render: Makes its text of the arguments' values.
    :param names: Their names.
    :param parts: A struct for each run of numbers, and the name of each word.
    :param versions: The first and the last of `VERSIONS` with them.
    """

    fmt: Format
    render: Callable[[Mapping[str, object]], str]
    names: tuple[str, ...]
    parts: tuple[struct.Struct | str, ...]
    versions: tuple[str, str]

    def fields(self, payload: bytes) -> dict[str, int | str] | None:
        """Return the arguments' values; None if the payload is not of these.

        :param payload: The arguments as they are in the file.
        """
        values: list[int | str] = []
        at = 0
        try:
            for part in self.parts:
                if isinstance(part, str):
                    begin = at + 4
                    at = begin + _U32.unpack_from(payload, at)[0]
                    word = _word(part, payload[begin:at])
                    if word is None:
                        return None
                    values.append(word)
                else:
                    values += part.unpack_from(payload, at)
                    at += part.size
        except struct.error:
            return None
        if at != len(payload):
            return None
        return dict(zip(self.names, values, strict=True))


@lru_cache(maxsize=_REMEMBERED)
def _word(name: str, data: bytes) -> str | None:
    word = data.decode("utf-8", "backslashreplace")
    return word if is_word(name, word) else None


def _parts(
    args: tuple[tuple[str, str], ...]
) -> Iterator[struct.Struct | str]:
    for numbers, run in groupby(args, lambda arg: bool(arg[1])):
        if numbers:
            signs = "".join("q" if x == "d" else "Q" for _, x in run)
            yield struct.Struct(f"<{signs}")
        else:
            yield from (name for name, _ in run)


def _layouts() -> dict[str, tuple[_Layout, ...]]:
    """Return all layouts by event; in binary, hexadecimal is no difference."""
    found: dict[str, dict[tuple[str, ...], _Layout]] = {}
    for fmt in FORMATS:
        args = arguments(fmt.template)
        key = tuple(conversion.replace("x", "u") for _, conversion in args)
        layouts = found.setdefault(fmt.event, {})
        since = layouts[key].versions[0] if key in layouts else fmt.since
        layouts[key] = _Layout(
            fmt,
            fmt.renderer,
            tuple(name for name, _ in args),
            tuple(_parts(args)),
            (since, fmt.versions[1]),
        )
    return {event: tuple(by.values()) for event, by in found.items()}


_LAYOUTS = _layouts()


# The later half of a `Record`: event, kind, fields and text.
_Said = tuple[str, Kind, dict[str, int | str], str]


class _Event(dict[bytes, _Said | None]):
    """What an event says, by its arguments as they are in the file.

    None stands for an event that does not matter.  QEMU says the same things
    again and again, so a decoded text is remembered.

    :param name: The name of the event.
    :param ranges: Gets the `VERSIONS` that have the event in this form.
    """

    def __init__(self, name: str, ranges: set[tuple[str, str]]) -> None:
        super().__init__()
        self._name = name
        self._ranges = ranges

    def __missing__(self, payload: bytes) -> _Said | None:
        found = self._decode(payload)
        if len(self) < _REMEMBERED:
            self[payload] = found
        return found

    def _decode(self, payload: bytes) -> _Said | None:
        name = self._name
        if name == _DROPPED:
            dropped = int.from_bytes(payload[:8], "little")
            return "", Kind.DROPPED, {}, f"dropped {dropped} events"
        layouts = _LAYOUTS[name]
        for layout in layouts:
            fields = layout.fields(payload)
            if fields is not None:
                self._ranges.add(layout.versions)
                kind = layout.fmt.kind_of(fields)
                return name, kind, fields, layout.render(fields)
        if all(layout.fmt.kind is Kind.OTHER for layout in layouts):
            return None
        text = f"{name} with unknown arguments {payload[:64].hex()}"
        return name, Kind.UNKNOWN, {}, text


def scan(
    chunks: Iterator[bytes], tally: Tally, without: Set[str]
) -> Iterator[Record]:
    """Yield the records of a trace in the order of the file.

    :param chunks: The file's content; the first chunk has `HEADER_BYTES`, or
        is the whole file.
    :param tally: Counts what the file holds.
    :param without: The names of events that are not wanted.
    :raise TraceError: When it is damaged, or of another format.
    """
    data = next(chunks)
    _check_header(data, tally.name)
    at = HEADER_BYTES
    offset = 0                  # the offset of `data` in the file
    count = 0
    unpack, new = _EVENT.unpack_from, tuple.__new__
    # The events by type and number; None for those that are only counted.
    events: dict[bytes, _Event | None] = {
        _HEAD.pack(_TYPE_EVENT, _DROPPED_ID): _Event(_DROPPED, tally.ranges)
    }
    for chunk in chain([b""], chunks):
        # An event that is only counted may end behind the available data.
        offset += min(at, len(data))
        at, data = max(0, at - len(data)), data[at:] + chunk
        while True:
            try:
                head, length = unpack(data, at)
                event = events[head]
            except struct.error:
                break
            except KeyError:
                mapping = _mapping(data, at)
                if mapping is None:
                    _check_mapping(data, at, offset, tally.name)
                    break
                if len(events) > _MOST_EVENTS:
                    raise _damaged(
                        tally.name, offset + at, "one event name too many"
                    ) from None
                head, name, at = mapping
                events[head] = (
                    _Event(name, tally.ranges) if name in _LAYOUTS else None
                )
                continue
            stop = at + _TYPE_BYTES + length
            if event is not None:
                if not _LEAST_BYTES <= length <= _MOST_BYTES:
                    raise _damaged(tally.name, offset + at)
                if stop > len(data):
                    break
                (time_ns,) = _TIME.unpack_from(data, at)
                begin = at + _TIME.size
                most = begin + _MOST_PAYLOAD
                said = event[data[begin : stop if stop < most else most]]
                if said is None:
                    pass
                elif said[0] in without:
                    # It was only decoded for what it tells of the version.
                    events[head] = None
                else:
                    tally.records += 1
                    # The file has the process id, but no thread id.
                    yield new(Record, (count + 1, time_ns, None, *said))
            count += 1
            at = stop
    # A mapping can be shorter than the head of any event.
    tally.cut = at != len(data) and _mapping(data, at) is None
    tally.lines = count - (at > len(data))


def _check_header(data: bytes, name: str) -> None:
    if len(data) < HEADER_BYTES:
        raise TraceError(
            f"{printable(name)} ends within its header, after {len(data)} "
            "bytes",
            "Give the whole file. QEMU writes its end when it exits.",
        )
    _, magic, version = _HEADER.unpack_from(data)
    if magic == int.from_bytes(_MAGIC.to_bytes(8, "little"), "big"):
        raise TraceError(
            f"{printable(name)} was written on a big-endian host",
            "Use the 'log' backend. Only little-endian files can be read.",
        )
    if magic != _MAGIC:
        raise TraceError(
            f"{printable(name)} is a binary file, and not a trace",
            "Give a file that QEMU's 'log' or 'simple' trace backend wrote.",
        )
    if version != _VERSION:
        raise TraceError(
            f"{printable(name)} has version {version} of the 'simple' "
            f"backend's format, not {_VERSION}",
            "Trace with QEMU 8.1 to 11.1, or use the 'log' backend.",
        )


def _mapping(data: bytes, at: int) -> tuple[bytes, str, int] | None:
    """Return an event's head, its name and the mapping's end; None if cut."""
    if len(data) - at < _MAPPING.size:
        return None
    kind, number, length = _MAPPING.unpack_from(data, at)
    begin = at + _MAPPING.size
    stop = begin + length
    if kind != _TYPE_MAPPING or stop > len(data):
        return None
    name = data[begin:stop].decode("ascii", "replace")
    return _HEAD.pack(_TYPE_EVENT, number), name, stop


def _check_mapping(data: bytes, at: int, offset: int, name: str) -> None:
    """Raise unless this is a mapping that more data may complete."""
    kind, _, length = _MAPPING.unpack_from(data, at)
    if kind != _TYPE_MAPPING or length > _MOST_NAME_BYTES:
        raise _damaged(name, offset + at)


def _damaged(
    name: str, offset: int, what: str = "neither an event nor its name"
) -> TraceError:
    return TraceError(
        f"{printable(name)} is damaged: at byte {offset} there is {what}",
        "Give the file as QEMU's 'simple' backend wrote it.",
    )

