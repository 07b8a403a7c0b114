# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of QEMU that moved figures, each raised once and then given a state.

An alert is about one series of comparable results, in one testbed, and about
the first revision of a new level.  Its figures are all metrics that moved
there.  A level may begin some revisions earlier or later in another metric, or
when more results have come, so changes that are nearer to one another than the
shortest level are one alert.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from vfio_p2p.downtime.metrics import BLACKOUT
from vfio_p2p.history.changes import LEVEL, MIN_SEGMENT
from vfio_p2p.history.database import Entry
from vfio_p2p.history.trend import (
    NO_ORDER,
    Shift,
    by_revision,
    ranked_trends,
    series_of,
)

# Percent of the blackout; what moves by less is not worth an alert.
NEGLIGIBLE = 0.1


class AlertState(StrEnum):
    """What became of an alert."""

    NEW = "new"
    CONFIRMED = "confirmed"     # somebody has seen it elsewhere, too
    EXPECTED = "expected"       # the change was meant to do that
    FIXED = "fixed"             # a later change has undone it
    INVALID = "invalid"         # it says nothing about QEMU

    @property
    def is_open(self) -> bool:
        """Whether somebody still has to do something about it."""
        return self in (AlertState.NEW, AlertState.CONFIRMED)


@dataclass(frozen=True)
class Moved:
    """A metric that came to another level.

    :param name: The name of the metric.
    :param unit: Its unit.
    :param before: The level before.
    :param after: The new level.
    :param p_value: How often chance alone would show such a change.
    """

    name: str
    unit: str
    before: float
    after: float
    p_value: float


@dataclass(frozen=True)
class Series:
    """What all results have in common that an alert is about.

    :param scenario: The name of the scenario.
    :param variant: The name of the tree.
    :param host: Where it ran.
    :param scenario_digest: The digest of the scenario.
    :param testbed: The digest of the testbed.
    """

    scenario: str
    variant: str
    host: str
    scenario_digest: str
    testbed: str

    @classmethod
    def of(cls, entry: Entry) -> Series:
        """Return the series of a result.

        :param entry: The result.
        """
        return cls(*series_of(entry), entry.testbed)


@dataclass(frozen=True)
class AlertRevision:
    """A QEMU of a series.

    :param commit: Its commit; empty without one.
    :param build: Its key in the build store.
    :param version: Its version string.
    """

    commit: str
    build: str
    version: str

    @classmethod
    def of(cls, entry: Entry) -> AlertRevision:
        """Return the revision of a result.

        :param entry: The result.
        """
        return cls(entry.qemu_revision, entry.build, entry.qemu_version)


@dataclass(frozen=True)
class LevelChange:
    """A change of a series.

    :param series: The series.
    :param last: The last revision of the level before.
    :param first: The first revision of the new level.
    :param moved: The metrics that moved, the blackout first.
    """

    series: Series
    last: AlertRevision
    first: AlertRevision
    moved: tuple[Moved, ...]


@dataclass(frozen=True)
class Alert:
    """A change that was raised.

    :param number: Its number in the history.
    :param change: The change.
    :param raised_s: When it was raised, in seconds of Unix time.
    :param state: What became of it.
    :param note: What somebody had to say about that.
    """

    number: int
    change: LevelChange
    raised_s: int
    state: AlertState = AlertState.NEW
    note: str = ""


@dataclass(frozen=True)
class _MetricShift:
    """A change of level of one metric.

    :param place: The place of the new level's first revision.
    :param metric: The name of the metric.
    :param unit: Its unit.
    :param shift: The change.
    """

    place: int
    metric: str
    unit: str
    shift: Shift

    @property
    def size(self) -> float:
        """How far the level moved, in the metric's unit."""
        return abs(self.shift.change.difference)


def in_series(entries: Iterable[Entry]) -> dict[Series, list[Entry]]:
    """Group results that can be compared.

    :param entries: The results.
    """
    groups: dict[Series, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(Series.of(entry), []).append(entry)
    return groups


def find_changes(
    groups: Mapping[Series, list[Entry]],
    *,
    level: float = LEVEL,
    min_segment: int = MIN_SEGMENT,
    rank: Mapping[str, int] = NO_ORDER,
) -> list[LevelChange]:
    """Find the changes of QEMU that moved figures.

    :param groups: The results, as of `in_series`.
    :param level: See `vfio_p2p.history.changes.change_points`.
    :param min_segment: The smallest number of revisions of a level.
    :param rank: The numbers of commits, if their order is known.
    """
    return [
        _change(series, near)
        for series, group in groups.items()
        for near in _clusters(
            _shifts(group, level, min_segment, rank), min_segment
        )
    ]


def places(
    entries: Iterable[Entry], rank: Mapping[str, int] = NO_ORDER
) -> dict[AlertRevision, int]:
    """Return the place of each revision in a series.

    :param entries: The results of the series.
    :param rank: The numbers of commits, if their order is known.
    """
    found: dict[AlertRevision, int] = {}
    for group in by_revision(entries, rank):
        found.setdefault(AlertRevision.of(group[0]), len(found))
    return found


def _shifts(
    entries: list[Entry],
    level: float,
    min_segment: int,
    rank: Mapping[str, int],
) -> list[_MetricShift]:
    """Return the changes of all metrics of a series, by their places."""
    at = places(entries, rank)
    whole = [
        x.value for y in entries if (x := y.metric(BLACKOUT)) is not None
    ]
    least = NEGLIGIBLE / 100 * median(whole) if whole else 0.0
    found = [
        _MetricShift(
            at[AlertRevision.of(shift.point.entry)],
            trend.metric,
            trend.unit,
            shift,
        )
        for name in {x.name for y in entries for x in y.metrics}
        for trend in ranked_trends(
            entries, name, level=level, min_segment=min_segment, rank=rank
        )
        for shift in trend.shifts
        if _is_of_qemu(shift)
    ]
    return sorted(
        (x for x in found if x.unit != "ns" or x.size >= least),
        key=lambda x: x.place,
    )


def _is_of_qemu(shift: Shift) -> bool:
    names = {name for name, _, _ in shift.causes}
    return bool(names & {"QEMU", "build"})


def _clusters(
    shifts: Iterable[_MetricShift], min_segment: int
) -> list[list[_MetricShift]]:
    """Group changes that are nearer than the shortest level."""
    found: list[list[_MetricShift]] = []
    for each in shifts:
        if found and each.place - found[-1][0].place < min_segment:
            found[-1].append(each)
        else:
            found.append([each])
    return found


def _change(series: Series, shifts: list[_MetricShift]) -> LevelChange:
    # The whole says best where the level begins; else the largest change does.
    ordered = sorted(
        shifts, key=lambda x: (x.metric != BLACKOUT, -x.size, x.metric)
    )
    leading = ordered[0].shift
    moved: dict[str, Moved] = {}
    for each in ordered:
        change = each.shift.change
        # The largest change of a metric is the one that counts.
        moved.setdefault(
            each.metric,
            Moved(
                each.metric,
                each.unit,
                change.before,
                change.after,
                change.p_value,
            ),
        )
    return LevelChange(
        series,
        AlertRevision.of(leading.last.entry),
        AlertRevision.of(leading.point.entry),
        tuple(moved.values()),
    )
