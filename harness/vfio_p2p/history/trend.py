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

# What a change may come from, and what it is called.
_CAUSES = {
    "qemu_revision": "QEMU",
    "build": "build",
    "project_revision": "project",
    "testbed": "testbed",
}


@dataclass(frozen=True)
class Point:
    """One state of everything, over all seeds that it was run with.

    :param entry: The first of its results.
    :param value: Median of the metric.
    :param count: How many results that is of.
    """

    entry: Entry
    value: float
    count: int


@dataclass(frozen=True)
class Shift:
    """A change of level, with what brought it.

    :param change: The change; its index is that of `point`.
    :param last: The last point before.
    :param point: The first point of the new level.
    """

    change: ChangePoint
    last: Point
    point: Point

    @property
    def causes(self) -> tuple[tuple[str, str, str], ...]:
        """What differs between the two: its name, before, after.

        Where commits are known they stand for the builds.
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

    :param metric: Its name.
    :param unit: Its unit.
    :param scenario: Name of the scenario.
    :param variant: Name of the tree.
    :param host: Where it ran.
    :param points: In order of their commits.
    :param shifts: Where the level changed.
    """

    metric: str
    unit: str
    scenario: str
    variant: str
    host: str
    points: tuple[Point, ...]
    shifts: tuple[Shift, ...]


def trends(
    entries: Iterable[Entry],
    metric: str,
    *,
    level: float = LEVEL,
    min_segment: int = MIN_SEGMENT,
    order: Sequence[str] = (),
) -> list[Trend]:
    """Sort results by what can be compared, and look for changes.

    :param entries: In the order in which they were recorded.
    :param metric: Name of the metric.
    :param level: See `change_points`.
    :param min_segment: See `change_points`.
    :param order: Commits in their order, if it is known. Others come after
        them, by the times of their commits; what has no commit counts from
        when it was recorded.
    """
    rank = {commit: number for number, commit in enumerate(order)}
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        found = entry.metric(metric)
        if found is None:
            continue
        key = (
            entry.scenario,
            entry.variant,
            entry.host,
            found.unit,
            entry.scenario_digest,
        )
        groups.setdefault(key, []).append(entry)
    made = []
    for (scenario, variant, host, unit, _), group in sorted(groups.items()):
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


def _points(
    entries: Iterable[Entry], metric: str, rank: Mapping[str, int]
) -> tuple[Point, ...]:
    same: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        key = tuple(getattr(entry, name) for name in _CAUSES)
        same.setdefault(key, []).append(entry)
    ordered = sorted(
        same.values(),
        key=lambda x: (
            rank.get(x[0].qemu_revision, len(rank)),
            x[0].qemu_revision_s or x[0].recorded_s,
        ),
    )
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
        for group in ordered
    )
