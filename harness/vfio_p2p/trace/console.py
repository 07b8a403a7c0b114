# SPDX-License-Identifier: GPL-2.0-or-later
"""A reader for the log of a guest's console, version 1.

docs/formats.md describes the format.  Like a device's log, it is a witness, so
that any deviation from the format is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

from vfio_p2p.errors import TraceError
from vfio_p2p.trace.device import Heartbeat, LogEntry
from vfio_p2p.trace.lines import ascii_lines
from vfio_p2p.trace.record import printable

VERSION = 1

# The agent keeps fewer and shorter ones.
_MOST_LINES = 10_000
_LINE_BYTES = 4096

_HEADER = re.compile(r"vfio-p2p-console version=(\d{1,9}) clock=(\w{1,32})")
_BEAT = re.compile(r"beat (\d{1,10})")
# A guest's counter has the size of a register.
_MODULUS = 1 << 32
_DROPPED = re.compile(r"vfio-p2p-console dropped (\d{1,15})")
_TEXT = re.compile(r"(\d{1,20}) (.*)")
_FIGURES = (
    "count", "first", "first_ns", "last", "last_ns", "gap_start_ns",
    "gap_end_ns", "missed", "repeated",
)  # fmt: skip
_END = re.compile(
    r"vfio-p2p-console end how=(none|closed|lost|open) cut=([01]) "
    + " ".join(rf"{key}=(?P<{key}>\d{{1,20}})" for key in _FIGURES)
)


@dataclass(frozen=True, slots=True)
class ConsoleLog:
    """What a guest wrote to its console.

    :param name: The file's name, as it is shown.
    :param lines: The lines; some of the middle may be missing.
    :param dropped: How many of them are missing.
    :param how: ``closed`` if QEMU ended; ``lost`` if the connection broke
        while QEMU ran, so that later lines are unknown; ``none`` if QEMU
        never connected; ``open`` if nobody waited for QEMU's end.
    :param cut: Whether the last line has no end.  A guest that migrates in
        the middle of a line goes on with it at the destination.
    :param beats: The figures on all beats.
    """

    name: str
    lines: tuple[LogEntry, ...]
    dropped: int
    how: str
    cut: bool
    beats: Heartbeat


def read_console(
    stream: BinaryIO, name: str, shift_ns: int = 0
) -> ConsoleLog:
    """Read the log of a console.

    :param stream: The log, opened in binary mode; it is not closed.
    :param name: What to call the log in messages.
    :param shift_ns: What to add to its times, in nanoseconds.
    :raise TraceError: When it is damaged, or newer than this program.
    """
    found: list[LogEntry] = []
    dropped = 0
    number, text = 0, ""
    for number, text in enumerate(ascii_lines(
        stream,
        _LINE_BYTES,
        partial(_damaged, name),
        "the line has strange characters",
    ), 1):
        if number == 1:
            _check_header(name, text)
        elif number > _MOST_LINES:
            raise _damaged(name, number, "a console's log has fewer lines")
        elif match := _DROPPED.fullmatch(text):
            dropped += int(match[1])
        elif match := _END.fullmatch(text):
            break
        elif (match := _TEXT.fullmatch(text)) is None:
            raise _damaged(name, number, "the line has no time")
        else:
            time_ns = int(match[1]) + shift_ns
            found.append(LogEntry(name, number, time_ns, match[2]))
    else:
        raise _damaged(
            name,
            number + 1,
            "the log has no last line: its reader did not end by itself",
        )
    if stream.read(1):
        raise _damaged(name, number + 1, "a line follows the last one")
    values = {key: int(match[key]) for key in _FIGURES}
    if values["count"]:
        for key in _FIGURES:
            if key.endswith("_ns"):
                values[key] += shift_ns
    beats = Heartbeat(
        name,
        number,
        values["last_ns"],
        text,
        when="close",
        untimely=0,
        **values,
    )
    return ConsoleLog(
        name, tuple(found), dropped, match[1], match[2] == "1", beats
    )


def continued(source: ConsoleLog, destination: ConsoleLog) -> Heartbeat:
    """Return a destination's beats, with one that began at the source.

    Such a beat has come when its line was whole.

    :param source: The log of the console from which the guest came.
    :param destination: The log of the console to which it came.
    """
    beats = destination.beats
    if not (source.cut and source.lines and destination.lines):
        return beats
    first = destination.lines[0]
    match = _BEAT.fullmatch(source.lines[-1].text + first.text)
    # If the second line is none, the first one was all that came.
    if match is None or (len(destination.lines) == 1 and destination.cut):
        return beats
    number, time_ns = int(match[1]), first.time_ns
    if not beats.count:
        return replace(
            beats,
            count=1,
            first=number,
            first_ns=time_ns,
            last=number,
            last_ns=time_ns,
            gap_start_ns=time_ns,
            gap_end_ns=time_ns,
        )
    missed = (beats.first - number) % _MODULUS - 1
    longer = (
        beats.first_ns - time_ns > beats.gap_end_ns - beats.gap_start_ns
    )
    return replace(
        beats,
        count=beats.count + 1,
        first=number,
        first_ns=time_ns,
        missed=beats.missed + missed,
        gap_start_ns=time_ns if longer else beats.gap_start_ns,
        gap_end_ns=beats.first_ns if longer else beats.gap_end_ns,
    )


def _damaged(name: str, line: int, why: str) -> TraceError:
    return TraceError(
        f"{printable(name)}:{line}: {why}",
        "Give the log of a console as vfio-p2p wrote it.",
    )


def _check_header(name: str, text: str) -> None:
    match = _HEADER.match(text)
    if match is None:
        raise _damaged(name, 1, "this is not the log of a console")
    if int(match[1]) > VERSION:
        raise TraceError(
            f"{printable(name)}:1: version {match[1]} of the log is newer "
            f"than this program, which knows up to {VERSION}",
            "Use a newer vfio-p2p.",
        )
    if match[2] != "CLOCK_REALTIME" or match.end() != len(text):
        raise _damaged(
            name, 1, "the log has another clock than QEMU's traces"
        )
