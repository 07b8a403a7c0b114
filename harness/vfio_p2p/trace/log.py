# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of QEMU's `log` trace backend: lines of text.

A few regular expressions find the few lines that concern VFIO, and these
become records; all other lines are only counted.  A log is untrusted: a line
may be endless, damaged or forged.  `printable` makes any line fit to show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from datetime import datetime
from functools import lru_cache

from vfio_p2p.errors import TraceError
from vfio_p2p.trace.formats import (
    FORMATS,
    MESSAGES,
    PREFIXES,
    Format,
    Kind,
    numbers,
    pattern,
)
from vfio_p2p.trace.record import Record, Tally, printable

# A trace line is far shorter than this; a longer line is damaged.
_LINE_BYTES = 2048
# How much of a line is kept while its end is looked for.
_CARRY_BYTES = 64 << 10

# Every relevant line has one of these texts, but `_LINE` and `_MESSAGE`
# decide.  A search for one first letter is three times as fast as one for
# several, so all patterns begin with one of two rare letters or a word.
_RELEVANT = (
    re.compile(
        rb"v(?:fio_(?:vmstate|migration|save|load|state_p|query|send)"
        rb"|m_state_(?:notify|cleanup)|mstate_downtime_|er_acked)"
    ),
    re.compile(
        rb"g(?:rat(?:e_|ion_[cr]|ion f|ion is)| on signal| device)"
    ),
    re.compile(rb"data_fd out of sync"),
)
_MESSAGE = re.compile("|".join(re.escape(m) for m in MESSAGES))

_PREFIX = "|".join(
    f"(?P<prefix{i}>{prefix.pattern})" for i, prefix in enumerate(PREFIXES)
)
_LINE = re.compile(rf"(?:{_PREFIX})(?P<event>\w+)(?: +(?P<text>.*))?")
# An event at the wrong place: its line ran into another one.
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


def scan(
    chunks: Iterator[bytes], tally: Tally, without: Set[str]
) -> Iterator[Record]:
    """Yield the records of a log in the order of the file.

    :param chunks: The file's content.
    :param tally: Counts what the file holds.
    :param without: The names of events that are not wanted.
    :raise TraceError: When it is a binary file.
    """
    carry = b""
    begun = False
    for chunk in chunks:
        _refuse_binary(chunk, b"" if begun else chunk[:4096], tally.name)
        begun = True
        data = carry + chunk
        end = data.rfind(b"\n") + 1
        for record in _scan(data[:end], tally):
            if record.event not in without:
                tally.records += 1
                yield record
        carry = data[end : end + _CARRY_BYTES]
    tally.cut = bool(carry)


def _refuse_binary(chunk: bytes, head: bytes, name: str) -> None:
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if b"\0" in chunk or controls * 20 > len(head):
        raise TraceError(
            f"{printable(name)} is a binary file, and not a trace",
            "Give a file that QEMU's 'log' or 'simple' trace backend wrote.",
        )


def _scan(block: bytes, tally: Tally) -> Iterator[Record]:
    """Yield the records of a block of complete lines."""
    position = 0
    hits = sorted(
        match.start()
        for relevant in _RELEVANT
        for match in relevant.finditer(block)
    )
    for hit in hits:
        if hit < position:
            continue
        start = block.rfind(b"\n", position, hit) + 1
        start = start or position
        tally.lines += block.count(b"\n", position, start) + 1
        end = block.index(b"\n", hit)
        position = end + 1
        raw = block[start : min(end, start + _LINE_BYTES)]
        text = raw.rstrip(b"\r").decode("utf-8", "backslashreplace")
        record = _parse(text, tally)
        if record is not None:
            yield record
    tally.lines += block.count(b"\n", position)


def _parse(text: str, tally: Tally) -> Record | None:
    match = _LINE.fullmatch(text)
    name = match["event"] if match else ""
    if match is None or name not in _BY_EVENT or len(text) >= _LINE_BYTES:
        return _foreign(text, tally.lines)
    found = _event(name, (match["text"] or "").rstrip(" "))
    if found is None:
        formats = _BY_EVENT[name]
        if all(fmt.kind is Kind.OTHER for fmt, _, _ in formats):
            return None
        return _plain(tally.lines, name, Kind.UNKNOWN, text)
    fmt, fields = found
    prefix = next(
        prefix
        for i, prefix in enumerate(PREFIXES)
        if match[f"prefix{i}"] is not None
    )
    tally.ranges |= {fmt.versions, prefix.versions}
    thread = match["tid"] or match["tid2"]
    return Record(
        tally.lines,
        _time_ns(match),
        int(thread) if thread else None,
        name,
        fmt.kind_of(fields),
        fields,
        text,
    )


# QEMU prints the same texts again and again.
@lru_cache(maxsize=4096)
def _event(
    name: str, text: str
) -> tuple[Format, dict[str, int | str]] | None:
    """Return the format and the arguments of an event's text.

    :return: None if the event has no such format.
    """
    for fmt, regex, numeric in _BY_EVENT[name]:
        found = regex.fullmatch(text)
        if found is not None:
            return fmt, {
                field: _number(value) if field in numeric else value
                for field, value in found.groupdict().items()
            }
    return None


def _foreign(text: str, line: int) -> Record | None:
    """Make a record of a line that is no trace line, if it matters."""
    if _DAMAGED.search(text):
        return _plain(line, "", Kind.UNKNOWN, text)
    if _MESSAGE.search(text):
        return _plain(line, "", Kind.MESSAGE, text)
    return None


def _plain(line: int, event: str, kind: Kind, text: str) -> Record:
    return Record(line, None, None, event, kind, {}, text)


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
