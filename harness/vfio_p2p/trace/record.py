# SPDX-License-Identifier: GPL-2.0-or-later
"""What the readers yield, whichever trace backend wrote the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from vfio_p2p.trace.formats import VERSIONS, Kind


class Clock(StrEnum):
    """What a trace's times count from."""

    REALTIME = "realtime"       # 1970
    MONOTONIC = "monotonic"     # the boot of the host, or thereabouts


class Backend(StrEnum):
    """The trace backend of QEMU that wrote a file."""

    LOG = "log"
    SIMPLE = "simple"

    @property
    def clock(self) -> Clock:
        """The clock of its times.

        The one calls gettimeofday(), the other get_clock(), which is
        CLOCK_MONOTONIC (scripts/tracetool/backend/log.py, trace/simple.c).
        """
        return Clock.REALTIME if self is Backend.LOG else Clock.MONOTONIC

    @property
    def unit(self) -> str:
        """What the file consists of, in the singular."""
        return "line" if self is Backend.LOG else "record"


# A tuple because there are many: made in a quarter of a data class's time.
class Record(NamedTuple):
    """One line or record that concerns VFIO migration.

    :param line: Its number, 1 is the first.
    :param time_ns: Time in nanoseconds, if there is one; of which clock,
        `Summary.backend` tells.
    :param thread: Thread id, if printed.
    :param event: Name of the trace event; empty for a message.
    :param kind: What the line says.
    :param fields: The event's arguments.
    :param text: The line itself, *not* fit to print (see `printable`); of
        a binary record what the `log` backend prints, without a prefix.
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
    """What a trace is like as a whole.

    :param name: The file's name, as it is shown.
    :param size_bytes: Its size.
    :param lines: Number of complete lines or records.
    :param records: Number of those that were yielded.
    :param cut: The last one has no end.
    :param versions: First and last of `VERSIONS` that print all that was
        seen; None when no single one does.
    :param backend: What wrote it.
    """

    name: str
    size_bytes: int
    lines: int
    records: int
    cut: bool
    versions: tuple[str, str] | None
    backend: Backend = Backend.LOG


class Tally:
    """What a reader counts while it goes through a file.

    `ranges` has the first and last of `VERSIONS` of all that was seen.

    :param name: What to call the file in messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.backend = Backend.LOG
        self.size_bytes = 0
        self.lines = 0
        self.records = 0
        self.cut = False
        self.ranges: set[tuple[str, str]] = {(VERSIONS[0], VERSIONS[-1])}

    def summary(self) -> Summary:
        """All of it, as a value."""
        since = max(VERSIONS.index(first) for first, _ in self.ranges)
        until = min(VERSIONS.index(last) for _, last in self.ranges)
        versions = None
        if since <= until:
            versions = VERSIONS[since], VERSIONS[until]
        return Summary(
            self.name,
            self.size_bytes,
            self.lines,
            self.records,
            self.cut,
            versions,
            self.backend,
        )


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
