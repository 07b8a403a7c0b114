# SPDX-License-Identifier: GPL-2.0-or-later
"""A metric over revisions, and the revisions that changed it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from vfio_p2p.history.changes import (
    LEVEL,
    MIN_SEGMENT,
    ChangePoint,
    change_points,
)
from vfio_p2p.history.database import Entry

NO_ORDER: Mapping[str, int] = {}

# What can cause a change, and what to call it.
_CAUSES = {
    "qemu_revision": "QEMU",
    "build": "build",
    "project_revision": "project",
    "testbed": "testbed",
}


@dataclass(frozen=True)
class Point:
    """One combination of revisions, over all seeds that it was run with.

    :param entry: The first of its results.
    :param value: The median of the metric.
    :param count: The number of its results.
    """

    entry: Entry
    value: float
    count: int


@dataclass(frozen=True)
class Shift:
    """A change of level, with its possible causes.

    :param change: The change; its index is that of `point`.
    :param last: The last point of the level before.
    :param point: The first point of the new level.
    """

    change: ChangePoint
    last: Point
    point: Point

    @property
    def causes(self) -> tuple[tuple[str, str, str], ...]:
        """What differs between the two points: its name, before, after.

        If the commits are known they stand for the builds.
        """
        differ = {
            name: (getattr(self.last.entry, name), now)
            for name in _CAUSES
            if (now := getattr(self.point.entry, name))
            != getattr(self.last.entry, name)
        }
        if "qemu_revision" in differ:
            differ.pop("build", None)
        return tuple(
            (_CAUSES[name], before, now)
            for name, (before, now) in differ.items()
        )


@dataclass(frozen=True)
class Trend:
    """A metric of one scenario, one variant and one host.

    :param metric: The name of the metric.
    :param unit: Its unit.
    :param scenario: The name of the scenario.
    :param variant: The name of the tree.
    :param host: Where it ran.
    :param points: The points in the order of their commits.
    :param shifts: The changes of the level.
    """

    metric: str
    unit: str
    scenario: str
    variant: str
    host: str
    points: tuple[Point, ...]
    shifts: tuple[Shift, ...]


def series_of(entry: Entry) -> tuple[str, str, str, str]:
    """Return what all results have in common that can be compared.

    :param entry: A result.
    """
    return (
        entry.scenario, entry.variant, entry.host, entry.scenario_digest
    )


def trends(
    entries: Iterable[Entry],
    metric: str,
    *,
    level: float = LEVEL,
    min_segment: int = MIN_SEGMENT,
    order: Sequence[str] = (),
) -> list[Trend]:
    """Group comparable results, and search each group for changes.

    :param entries: The results in the order in which they were recorded.
    :param metric: The name of the metric.
    :param level: See `change_points`.
    :param min_segment: See `change_points`.
    :param order: The commits in their order, if it is known.  Other commits
        follow them in the order of their times.  A result without a commit
        has the time at which it was recorded.
    """
    return ranked_trends(
        entries,
        metric,
        level=level,
        min_segment=min_segment,
        rank=ranked(order),
    )


def ranked(order: Iterable[str]) -> dict[str, int]:
    """Number commits in their order.

    :param order: The commits.
    """
    return {commit: number for number, commit in enumerate(order)}


def ranked_trends(
    entries: Iterable[Entry],
    metric: str,
    *,
    level: float = LEVEL,
    min_segment: int = MIN_SEGMENT,
    rank: Mapping[str, int] = NO_ORDER,
) -> list[Trend]:
    """Do as `trends` does, for callers that ask for many metrics.

    :param entries: See `trends`.
    :param metric: See `trends`.
    :param level: See `trends`.
    :param min_segment: See `trends`.
    :param rank: The numbers of commits, as of `ranked`.
    """
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        found = entry.metric(metric)
        if found is None:
            continue
        groups.setdefault((*series_of(entry), found.unit), []).append(entry)
    made = []
    for (scenario, variant, host, _, unit), group in sorted(groups.items()):
        points = _points(group, metric, rank)
        changes = change_points(
            [x.value for x in points], level=level, min_segment=min_segment
        )
        shifts = tuple(
            Shift(x, points[x.index - 1], points[x.index]) for x in changes
        )
        made.append(
            Trend(metric, unit, scenario, variant, host, points, shifts)
        )
    return made


def by_revision(
    entries: Iterable[Entry], rank: Mapping[str, int] = NO_ORDER
) -> list[list[Entry]]:
    """Group the results of one series by their revisions, in order.

    :param entries: The results.
    :param rank: The numbers of commits, if their order is known.
    """
    same: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        key = tuple(getattr(entry, name) for name in _CAUSES)
        same.setdefault(key, []).append(entry)
    return sorted(
        same.values(),
        key=lambda x: (
            rank.get(x[0].qemu_revision, len(rank)),
            x[0].qemu_revision_s or x[0].recorded_s,
        ),
    )


def _points(
    entries: Iterable[Entry], metric: str, rank: Mapping[str, int]
) -> tuple[Point, ...]:
    return tuple(
        Point(
            group[0],
            median(
                found.value
                for x in group
                if (found := x.metric(metric)) is not None
            ),
            len(group),
        )
        for group in by_revision(entries, rank)
    )
