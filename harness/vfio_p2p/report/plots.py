# SPDX-License-Identifier: GPL-2.0-or-later
"""From values to places in a plot.

All plots of this package share `Scale`.  The rest is what the HTML draws:
bars, dots and levels, whose places across are percent of the width.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from vfio_p2p.history.trend import Point, Shift, Trend
from vfio_p2p.report.document import Document
from vfio_p2p.report.figures import TOTAL, PhaseRow, PhaseTable, ms
from vfio_p2p.report.groups import RunGroup, quartiles
from vfio_p2p.report.history import (
    amount,
    chance,
    difference,
    revision,
)
from vfio_p2p.report.run import Run
from vfio_p2p.report.scale import Scale

MOST_TREES = 6
TREND_HEIGHT = 150

_TREND_MARGIN = 12
# A trend of more points would be a band.
_MOST_POINTS = 400
# The places of dots that would hide one another otherwise.
_PILE = (0, 1, -1, 2, -2, 3, -3)
_PILE_WIDTH = 0.8


@dataclass(frozen=True)
class Bar:
    """A bar of a waterfall.

    :param left: Where it begins, in percent of the width.
    :param width: How wide it is, in percent.
    :param text: What it shows.
    """

    left: float
    width: float
    text: str


@dataclass(frozen=True)
class Dot:
    """One value.

    :param x: Its place across, in percent.
    :param y: Its place down, in pixels.
    :param text: What it shows.
    :param run: The number of its run in the document, if it is one run.
    """

    x: float
    y: float
    text: str
    run: int | None = None


@dataclass(frozen=True)
class Waterfall:
    """The phases of one scenario, each with a bar for each tree.

    :param table: The phases.
    :param middles: The run of each tree that the bars show.
    :param rows: Each phase with its bars, which are None where the run does
        not have the phase.
    :param left_out: The number of trees for which there is no room.
    """

    table: PhaseTable
    middles: tuple[Run | None, ...]
    rows: tuple[tuple[PhaseRow, tuple[Bar | None, ...]], ...]
    left_out: int


@dataclass(frozen=True)
class StripRow:
    """The blackouts of one tree, over its seeds.

    :param group: The runs.
    :param dots: The blackouts.
    :param quartiles: First quartile, median and third quartile, in percent.
    :param median_ns: The median.
    """

    group: RunGroup
    dots: tuple[Dot, ...]
    quartiles: tuple[float, float, float]
    median_ns: float


@dataclass(frozen=True)
class Strip:
    """The blackouts of one scenario.

    :param scenario: The name of the scenario.
    :param rows: One for each tree.
    :param low_ns: The shortest blackout.
    :param high_ns: The longest.
    """

    scenario: str
    rows: tuple[StripRow, ...]
    low_ns: int
    high_ns: int


@dataclass(frozen=True)
class TrendLevel:
    """The median between two changes of a trend.

    :param start: Where it begins, in percent.
    :param end: Where it ends.
    :param y: Its place down, in pixels.
    """

    start: float
    end: float
    y: float


@dataclass(frozen=True)
class TrendChange:
    """A change point of a trend.

    :param x: Its place across, in percent.
    :param revision: The revision that came with it.
    :param before: The level before, with its unit.
    :param after: The level after.
    :param difference: How far the level moved, and in percent.
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
class TrendChart:
    """A metric over revisions.

    :param title: The metric, and the runs that it is of.
    :param dots: The values.
    :param levels: The medians between changes.
    :param changes: The changes.
    :param low: The lowest value, with its unit.
    :param high: The highest value.
    :param ends: The first and the last revision.
    :param left_out: The number of points before the first that is drawn.
    """

    title: str
    dots: tuple[Dot, ...]
    levels: tuple[TrendLevel, ...]
    changes: tuple[TrendChange, ...]
    low: str
    high: str
    ends: tuple[str, str]
    left_out: int


def waterfall(table: PhaseTable) -> Waterfall:
    """Draw the middle run of each tree as bars.

    :param table: The phases.
    """
    shown = table.groups[:MOST_TREES]
    middles = tuple(group.middle for group in shown)
    longest_ns = max(
        (run.blackout_ns or 0 for run in middles if run), default=0
    )
    scale = Scale(0, longest_ns, 0, 100)
    return Waterfall(
        table,
        middles,
        tuple(
            (
                row,
                tuple(
                    _bar(run, row.name, scale) if run and longest_ns else None
                    for run in middles
                ),
            )
            for row in table.rows
        ),
        len(table.groups) - len(shown),
    )


def _bar(run: Run, name: str, scale: Scale) -> Bar | None:
    start_ns, length_ns = 0, run.blackout_ns
    if name != TOTAL:
        part = next((x for x in run.phases if x.name == name), None)
        if part is None:
            return None
        start_ns, length_ns = part.start_ns, part.duration_ns
    if length_ns is None:
        return None
    left = scale.at(start_ns)
    return Bar(
        round(left, 3),
        round(scale.at(start_ns + length_ns) - left, 3),
        f"{name}: {ms(length_ns)} ms, from {ms(start_ns)} ms on",
    )


def strips(
    document: Document, tables: Sequence[PhaseTable]
) -> tuple[Strip, ...]:
    """Draw the blackouts of scenarios that have trees with several runs.

    :param document: The document.
    :param tables: Its scenarios.
    """
    numbers = {id(run): n for n, run in enumerate(document.runs)}
    return tuple(
        _strip(table, numbers)
        for table in tables
        if any(len(group.blackouts) > 1 for group in table.groups)
    )


def _strip(table: PhaseTable, numbers: dict[int, int]) -> Strip:
    values = [x for group in table.groups for x in group.blackouts]
    scale = Scale(min(values), max(values), 4, 96)
    rows = []
    for group in table.groups:
        low, middle, high = quartiles(group.blackouts)
        rows.append(
            StripRow(
                group,
                _piled(group.runs, numbers, scale),
                (
                    round(scale.at(low), 3),
                    round(scale.at(middle), 3),
                    round(scale.at(high), 3),
                ),
                middle,
            )
        )
    return Strip(table.scenario, tuple(rows), min(values), max(values))


def _piled(
    runs: Sequence[Run], numbers: dict[int, int], scale: Scale
) -> tuple[Dot, ...]:
    """A dot for each run, side by side where one would hide another."""
    taken: dict[int, int] = {}
    dots = []
    for run in runs:
        if run.blackout_ns is None:
            continue
        x = round(scale.at(run.blackout_ns), 3)
        column = round(x / _PILE_WIDTH)
        count = taken.get(column, 0)
        taken[column] = count + 1
        dots.append(
            Dot(
                x,
                29 + 6 * _PILE[count % len(_PILE)],
                f"{run.name}: {ms(run.blackout_ns)} ms",
                numbers[id(run)],
            )
        )
    return tuple(dots)


def trend_chart(trend: Trend) -> TrendChart:
    """Draw a trend.

    :param trend: The trend, of at least one point.
    """
    first = max(0, len(trend.points) - _MOST_POINTS)
    points = trend.points[first:]
    values = [point.value for point in points]
    low, high = min(values), max(values)
    bounds = [x.change.index - first for x in trend.shifts]
    bounds = [0, *(x for x in bounds if x > 0), len(points)]
    # A point is in the middle of its column.
    across = Scale(-0.5, len(points) - 0.5, 2, 98)
    down = Scale(low, high, TREND_HEIGHT - _TREND_MARGIN, _TREND_MARGIN)
    return TrendChart(
        title=f"{trend.metric}: {trend.scenario}, {trend.variant}, "
        f"{trend.host}",
        dots=tuple(
            Dot(
                round(across.at(number), 3),
                round(down.at(point.value), 1),
                _told(point, trend.unit),
            )
            for number, point in enumerate(points)
        ),
        levels=tuple(
            TrendLevel(
                round(across.at(start - 0.5), 3),
                round(across.at(end - 0.5), 3),
                round(down.at(median(values[start:end])), 1),
            )
            for start, end in pairwise(bounds)
        ),
        changes=tuple(
            _change(
                shift,
                round(across.at(shift.change.index - first - 0.5), 3),
                trend.unit,
            )
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


def _change(shift: Shift, x: float, unit: str) -> TrendChange:
    change = shift.change
    return TrendChange(
        x=x,
        revision=revision(shift.point.entry),
        before=amount(change.before, unit),
        after=amount(change.after, unit),
        difference=difference(change.difference, change.percent, unit),
        p_value=chance(change.p_value),
        causes=tuple(
            f"{name}: {before[:12] or 'unknown'} to {now[:12] or 'unknown'}"
            for name, before, now in shift.causes
        ),
    )
