# SPDX-License-Identifier: GPL-2.0-or-later
"""What the readers yield, whichever trace backend wrote the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from vfio_p2p.trace.formats import VERSIONS, Kind


class Clock(StrEnum):
    """The clock of a trace's times."""

    REALTIME = "realtime"       # counts from 1970
    MONOTONIC = "monotonic"     # counts from about the boot of the host


class Backend(StrEnum):
    """The trace backend of QEMU that wrote a file.

    QMP is none, but its events tell of the devices' states as well.
    """

    LOG = "log"
    SIMPLE = "simple"
    QMP = "qmp"

    @property
    def clock(self) -> Clock:
        """The clock of its times.

        The `log` backend and QMP call gettimeofday(), the `simple` backend
        get_clock(), which is CLOCK_MONOTONIC
        (scripts/tracetool/backend/log.py, qapi/qmp-event.c, trace/simple.c).
        """
        if self is Backend.SIMPLE:
            return Clock.MONOTONIC
        return Clock.REALTIME

    @property
    def unit(self) -> str:
        """The name of the file's unit, in the singular."""
        return "record" if self is Backend.SIMPLE else "line"

    @property
    def requests(self) -> bool:
        """Whether it tells of requests, rather than of states only."""
        return self is not Backend.QMP


# There are many records, and a tuple is made in a quarter of the time that a
# data class takes.
class Record(NamedTuple):
    """One line or record that concerns VFIO migration.

    :param line: Its number; the first is 1.
    :param time_ns: Its time in nanoseconds, if it has one, on the clock of
        `Summary.backend`.
    :param thread: The thread id, if it was printed.
    :param event: The name of the trace event; empty for a message.
    :param kind: What the line says.
    :param fields: The event's arguments.
    :param text: The line itself, *not* fit to print (see `printable`).  For
        a binary record it is what the `log` backend prints, without a
        prefix.
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
        """The name of the device; empty if the event has none."""
        return str(self.fields.get("device", ""))


@dataclass(frozen=True, slots=True)
class Summary:
    """What a trace is like as a whole.

    :param name: The file's name, as it is shown.
    :param size_bytes: The file's size.
    :param lines: The number of complete lines or records.
    :param records: The number of those that were yielded.
    :param cut: Whether the last one has no end.
    :param versions: The first and the last of `VERSIONS` that print all that
        was seen; None if no single one does.
    :param backend: The trace backend that wrote the file.
    :param wrapped: What was taken off of its lines, or how the file was
        packed, in words; empty if it is as QEMU wrote it.
    :param older: What shows that QEMU is older than `VERSIONS`; else empty.
    :param coarse: Whether the only times it has are in whole seconds, so
        that they are of no use.
    :param undated: Whether its times count from an unknown moment.
    """

    name: str
    size_bytes: int
    lines: int
    records: int
    cut: bool
    versions: tuple[str, str] | None
    backend: Backend = Backend.LOG
    wrapped: str = ""
    older: str = ""
    coarse: bool = False
    undated: bool = False

    @property
    def clock(self) -> Clock:
        """The clock of its times."""
        return Clock.MONOTONIC if self.undated else self.backend.clock


class Tally:
    """What a reader counts while it goes through a file.

    `ranges` holds the first and the last of `VERSIONS` for all that was seen,
    and `told` is the number of lines that are of known events.

    :param name: What to call the file in messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.backend = Backend.LOG
        self.size_bytes = 0
        self.lines = 0
        self.records = 0
        self.told = 0
        self.cut = False
        self.ranges: set[tuple[str, str]] = {(VERSIONS[0], VERSIONS[-1])}
        self.wrapped = ""
        self.older = ""
        self.coarse = False
        self.undated = False

    def summary(self) -> Summary:
        """Return all of it as a value."""
        since = max(VERSIONS.index(first) for first, _ in self.ranges)
        until = min(VERSIONS.index(last) for _, last in self.ranges)
        versions = None
        if since <= until and not self.older:
            versions = VERSIONS[since], VERSIONS[until]
        return Summary(
            self.name,
            self.size_bytes,
            self.lines,
            self.records,
            self.cut,
            versions,
            self.backend,
            self.wrapped,
            self.older,
            self.coarse,
            self.undated,
        )


def printable(text: str) -> str:
    """Return the text with all that could act on a terminal escaped.

    :param text: Any text, of any origin.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )
