# SPDX-License-Identifier: GPL-2.0-or-later
"""The history as the HTML draws it: values become places."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from vfio_p2p.history.trend import Point, Shift, Trend
from vfio_p2p.report.history import amount, difference, revision

HEIGHT = 150
_MARGIN = 12
# More would be a band; a history of years is for 'vfio-p2p history plot'.
_MOST = 400


@dataclass(frozen=True)
class Dot:
    """One state of everything; `x` in percent, `y` in pixels."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Level:
    """The median between two changes; `x` in percent, `y` in pixels."""

    start: float
    end: float
    y: float


@dataclass(frozen=True)
class Step:
    """A change point; `x` in percent.

    :param revision: What came with it.
    :param before: Level before, with its unit.
    :param after: The new one.
    :param difference: How far it moved, and in percent.
    :param p_value: How often chance alone would show as much.
    :param causes: What differs from the point before.
    """

    x: float
    revision: str
    before: str
    after: str
    difference: str
    p_value: str
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Chart:
    """A metric over revisions.

    :param title: Of what.
    :param dots: The values.
    :param levels: What they come to between changes.
    :param steps: The changes.
    :param low: The lowest value, with its unit.
    :param high: The highest value.
    :param ends: First and last revision.
    :param left_out: Points before the first that is drawn.
    """

    title: str
    dots: tuple[Dot, ...]
    levels: tuple[Level, ...]
    steps: tuple[Step, ...]
    low: str
    high: str
    ends: tuple[str, str]
    left_out: int


def chart(trend: Trend) -> Chart:
    """Draw a trend.

    :param trend: At least one point.
    """
    first = max(0, len(trend.points) - _MOST)
    points = trend.points[first:]
    values = [point.value for point in points]
    low, high = min(values), max(values)
    bounds = [x.change.index - first for x in trend.shifts]
    bounds = [0, *(x for x in bounds if x > 0), len(points)]

    def across(index: float) -> float:
        return round(2 + 96 * (index + 0.5) / len(points), 3)

    def down(value: float) -> float:
        up = (value - low) / (high - low) if high > low else 0.5
        return round(HEIGHT - _MARGIN - up * (HEIGHT - 2 * _MARGIN), 1)

    return Chart(
        title=f"{trend.metric}: {trend.scenario}, {trend.variant}, "
        f"{trend.host}",
        dots=tuple(
            Dot(across(n), down(point.value), _told(point, trend.unit))
            for n, point in enumerate(points)
        ),
        levels=tuple(
            Level(
                across(start - 0.5),
                across(end - 0.5),
                down(median(values[start:end])),
            )
            for start, end in pairwise(bounds)
        ),
        steps=tuple(
            _step(shift, across(shift.change.index - first - 0.5), trend.unit)
            for shift in trend.shifts
            if shift.change.index > first
        ),
        low=amount(low, trend.unit),
        high=amount(high, trend.unit),
        ends=(revision(points[0].entry), revision(points[-1].entry)),
        left_out=first,
    )


def _told(point: Point, unit: str) -> str:
    date = time.strftime("%Y-%m-%d", time.gmtime(point.entry.recorded_s))
    runs = "" if point.count == 1 else f", median of {point.count} runs"
    return (
        f"{revision(point.entry)}: {amount(point.value, unit)}{runs}, "
        f"recorded {date}"
    )


def _step(shift: Shift, x: float, unit: str) -> Step:
    change = shift.change
    return Step(
        x=x,
        revision=revision(shift.point.entry),
        before=amount(change.before, unit),
        after=amount(change.after, unit),
        difference=difference(change.difference, change.percent, unit),
        p_value=f"{change.p_value:.3f}",
        causes=tuple(
            f"{name}: {before[:12] or 'unknown'} to {now[:12] or 'unknown'}"
            for name, before, now in shift.causes
        ),
    )
