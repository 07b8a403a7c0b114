# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of QEMU's `log` trace backend: lines of text.

A few regular expressions find the few lines that concern VFIO, and these
become records; all other lines are only counted.  A log is untrusted: a line
may be endless, damaged or forged.  `printable` makes any line fit to show.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from datetime import datetime
from functools import lru_cache

from vfio_p2p.errors import TraceError
from vfio_p2p.trace import foreign, words
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
from vfio_p2p.trace.wrapped import Wrapping

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
        rb"|m_state_(?:notify|cleanup)|mstate_downtime_|er_acked"
        rb"|irtio_set_status)"
    ),
    re.compile(
        rb"g(?:rat(?:e_|ion_[cr]|ion_bitmap_sync_e|ion f|ion is)| on signal"
        rb"| device)"
    ),
)
# This one is rare, and a plain search for it is faster.
_DATA_FD = b"data_fd out of sync"
# What QEMU says behind its name, what its monitor or GLib says, and what
# libvirt says.  Such lines stand at the start or at the end of a log, if at
# all, and looking for them everywhere would cost a quarter of the speed: each
# pattern is looked for in the first chunk and in the last one, and in those
# between if the first one has it.
_SAID = (
    re.compile(rb"q(?:emu-[\w.+-]{1,32}: |emu: )"),
    re.compile(rb"E(?:rror: |RROR:)"),
    re.compile(rb"\+(?:0000: )"),
)
# Events of QEMU 8.0 and before, whose other lines look like newer ones.
_OLDER = {
    "vfio_migration_probe",
    "vfio_save_buffer",
    "vfio_save_pending",
    "vfio_update_pending",
}
# An event that repeats an error message.
_REPEATS = "migrate_error"
_EVENT_NAME = re.compile(r"(?:v(?:fio|m_state|mstate|er)_|migrat)\w*")
_MESSAGE = re.compile("|".join(re.escape(m) for m in MESSAGES))

_PREFIX = "|".join(
    f"(?P<prefix{i}>{prefix.pattern})" for i, prefix in enumerate(PREFIXES)
)
_LINE = re.compile(rf"(?:{_PREFIX})(?P<event>\w+)(?: +(?P<text>.*))?")
_PREFIX_VERSIONS = tuple(
    (_LINE.groupindex[f"prefix{i}"], prefix.versions)
    for i, prefix in enumerate(PREFIXES)
)
_LAST_WORD = re.compile(r"\w+\Z")
_LONGEST = max(len(fmt.event) for fmt in FORMATS)
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
    head = b""
    wrapping = Wrapping(_is_event)
    patterns: tuple[re.Pattern[bytes], ...] = (*_RELEVANT, *_SAID)
    following = next(chunks, None)
    while following is not None:
        chunk, following = following, next(chunks, None)
        _refuse_binary(chunk, b"" if head else chunk[:4096], tally.name)
        if not head:
            head = chunk[: foreign.HEAD_BYTES]
            usual = _RELEVANT + tuple(x for x in _SAID if x.search(chunk))
        elif following is None:
            patterns = (*_RELEVANT, *_SAID)
        else:
            patterns = usual
        data = carry + chunk
        end = data.rfind(b"\n") + 1
        for record in _scan(data[:end], tally, wrapping, patterns):
            if record.event not in without:
                tally.records += 1
                yield record
        carry = data[end : end + _CARRY_BYTES]
    tally.cut = tally.cut or bool(carry)
    tally.wrapped = ", ".join(
        filter(None, (tally.wrapped, wrapping.described(tally.told)))
    )
    tally.coarse = wrapping.coarse
    if not tally.told and not tally.older:
        foreign.refuse(head, tally.name)


def _is_event(text: str) -> bool:
    match = _LINE.fullmatch(text)
    return match is not None and (
        match["event"] in _BY_EVENT or match["event"] in _OLDER
    )


def _refuse_binary(chunk: bytes, head: bytes, name: str) -> None:
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if b"\0" in chunk or controls * 20 > len(head):
        raise TraceError(
            f"{printable(name)} is a binary file, and not a trace",
            "Give a file that QEMU's 'log' or 'simple' trace backend wrote.",
        )


def _scan(
    block: bytes,
    tally: Tally,
    wrapping: Wrapping,
    patterns: Iterable[re.Pattern[bytes]],
) -> Iterator[Record]:
    """Yield the records of a block of complete lines."""
    position = 0
    hits = [
        match.start()
        for relevant in patterns
        for match in relevant.finditer(block)
    ]
    found = block.find(_DATA_FD)
    while found >= 0:
        hits.append(found)
        found = block.find(_DATA_FD, found + 1)
    hits.sort()
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
        record = _parse(text, tally, wrapping)
        if record is not None:
            yield record
    tally.lines += block.count(b"\n", position)


def _parse(text: str, tally: Tally, wrapping: Wrapping) -> Record | None:
    if wrapping.chains:
        record = _stripped(text, tally, wrapping)
        if record is not None:
            return record
    match = _LINE.fullmatch(text)
    name = match["event"] if match else ""
    if match is None or name not in _BY_EVENT or len(text) >= _LINE_BYTES:
        return _foreign(text, name, tally, wrapping)
    return _known(text, match, tally)


def _stripped(
    text: str, tally: Tally, wrapping: Wrapping
) -> Record | None:
    """Make a record of an event's line with something around it."""
    if len(text) >= _LINE_BYTES:
        return None
    stripped = wrapping.event(text)
    if stripped is None:
        return None
    match = _LINE.fullmatch(stripped.rest)
    if match is None:
        return None
    if match["event"] not in _BY_EVENT:
        tally.older = tally.older or match["event"]
        return None
    record = _known(stripped.rest, match, tally)
    if record is None:
        return None
    if record.time_ns is None and stripped.when is not None:
        stamp = wrapping.stamp(stripped)
        if stamp.time_ns is not None:
            tally.undated = tally.undated or not stamp.dated
            record = record._replace(time_ns=stamp.time_ns)
    if record.thread is None and stripped.pid is not None:
        record = record._replace(thread=stripped.pid)
    return record


def _known(
    text: str, match: re.Match[str], tally: Tally
) -> Record | None:
    """Make a record of a line of one of our events.

    :param match: How `_LINE` matches it.
    """
    name = match["event"]
    found = _event(name, (match["text"] or "").rstrip(" "))
    if found is None:
        formats = _BY_EVENT[name]
        if all(fmt.kind is Kind.OTHER for fmt, _, _ in formats):
            return None
        return _plain(tally.lines, name, Kind.UNKNOWN, text)
    fmt, fields = found
    for group, versions in _PREFIX_VERSIONS:
        if match[group] is not None:
            tally.ranges.add(versions)
            break
    tally.told += 1
    tally.ranges.add(fmt.versions)
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


def _foreign(
    text: str, name: str, tally: Tally, wrapping: Wrapping
) -> Record | None:
    """Make a record of a line that is none of our events, if it matters.

    :param text: The line.
    :param name: The event that it is of, if it is one of QEMU's.
    """
    line = tally.lines
    if name == _REPEATS:
        return _plain(line, "", Kind.REMARK, text)
    if name in _OLDER:
        tally.older = tally.older or name
        return None
    own = bool(name) and _EVENT_NAME.fullmatch(name) is not None
    if not own and not wrapping.chains:
        record = _stripped(text, tally, wrapping)
        if record is not None:
            return record
    if _is_damaged(text):
        return _plain(line, "", Kind.UNKNOWN, text)
    if not own:
        text = wrapping.message(text)
    if _MESSAGE.search(text) or (not own and words.is_error(text)):
        return _plain(line, "", Kind.MESSAGE, text)
    if not own and words.is_said(text):
        return _plain(line, "", Kind.REMARK, text)
    return None


def _is_damaged(text: str) -> bool:
    """Return whether an event is at the wrong place of a line.

    If so, its line ran into another one.
    """
    at = text.find("  (")
    while at >= 0:
        word = _LAST_WORD.search(text, max(0, at - _LONGEST - 1), at)
        if word is not None and word[0] in _BY_EVENT:
            return True
        at = text.find("  (", at + 1)
    return False


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
