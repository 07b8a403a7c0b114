# SPDX-License-Identifier: GPL-2.0-or-later
"""Compare A with B: which one is slower, by how much, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from statistics import median

from vfio_p2p.downtime.effect import Effect
from vfio_p2p.downtime.metrics import (
    BLACKOUT,
    DEVICE,
    PHASE,
    blind,
    measured,
    metrics,
    renamed,
)
from vfio_p2p.downtime.model import Breakdown, PhaseName
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.side import Side

# Percent of A's blackout.  A difference below the first is negligible; a
# comparison that could not have shown the second one is unclear.
NEGLIGIBLE = 0.1
RELEVANT = 1.0


class Change(StrEnum):
    """How a figure changed from A to B."""

    IDENTICAL = "identical"
    SLOWER = "slower"
    FASTER = "faster"
    NONE = "no difference"
    UNCLEAR = "not enough runs to tell"


@dataclass(frozen=True, slots=True)
class RunSample:
    """One run of a comparison.

    :param seed: Its seed; None if the run was not sealed, but of real hosts.
    :param breakdown: Its blackout, taken apart.
    :param name: The name of its bundle, for messages.
    :param devices: If the run was not sealed, its devices on each side, in
        the order of their plugging.
    """

    seed: int | None
    breakdown: Breakdown
    name: str = ""
    devices: tuple[tuple[Side, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One figure of A next to that of B.

    :param name: Its name, as in `vfio_p2p.downtime.metrics`.
    :param a_ns: The median of A, in nanoseconds.
    :param b_ns: The median of B, in nanoseconds.
    :param effect: The difference.  In all rows except the first, `p` is that
        of `stats.together`.
    :param change: What the difference amounts to.
    """

    name: str
    a_ns: float
    b_ns: float
    effect: Effect
    change: Change

    @property
    def changed(self) -> bool:
        """Whether a difference was shown that is not negligible."""
        return self.change in (Change.SLOWER, Change.FASTER)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A compared with B.

    :param seeds: The seeds of the pairs, in order; empty without pairs.
    :param count_a: The number of runs of A.
    :param count_b: The number of runs of B.
    :param rows: The blackout, its phases in order, then the devices; empty
        if there is nothing to compare.
    :param outliers_ns: The outlying blackouts of A and of B, in nanoseconds;
        they are not excluded.
    :param notes: What else a reader has to know.
    """

    seeds: tuple[int, ...]
    count_a: int
    count_b: int
    rows: tuple[MetricRow, ...]
    outliers_ns: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> MetricRow | None:
        """The row of the whole blackout."""
        return self.rows[0] if self.rows else None

    @property
    def where(self) -> tuple[MetricRow, ...]:
        """The phases and devices that changed, the largest change first."""
        return tuple(
            sorted(
                (row for row in self.rows[1:] if row.changed),
                key=lambda row: -abs(row.effect.difference_ns),
            )
        )

    @property
    def change(self) -> Change:
        """How the blackout changed."""
        return self.whole.change if self.whole else Change.UNCLEAR

    def percent(self, value_ns: float) -> float:
        """Convert a time into percent of A's blackout.

        :param value_ns: The time in nanoseconds.
        """
        return 100 * value_ns / self.rows[0].a_ns

    def gate(self, low: float, high: float) -> Verdict:
        """Judge whether the blackout's change lies between two bounds.

        :param low: The lower bound, in percent.
        :param high: The upper bound, in percent.
        :return: PASS or FAIL if the whole confidence interval lies inside
            or outside of the bounds.  If it is too wide for that, FAIL if
            the change that the phases show exceeds the upper bound, else
            INCONCLUSIVE.
        """
        whole = self.whole
        if whole is None:
            return Verdict.INCONCLUSIVE
        effect = whole.effect
        if effect.smallest_ns is None and not effect.same:
            return Verdict.INCONCLUSIVE
        found = self.percent(effect.low_ns), self.percent(effect.high_ns)
        if low <= found[0] and found[1] <= high:
            return Verdict.PASS
        if found[1] < low or found[0] > high:
            return Verdict.FAIL
        # One phase can show a change that the scatter of others hides.
        shown_ns = sum(
            row.effect.low_ns
            for row in self.where
            if row.name.startswith(PHASE)
        )
        if self.percent(shown_ns) > high:
            return Verdict.FAIL
        return Verdict.INCONCLUSIVE


def compare(
    first: Sequence[RunSample],
    second: Sequence[RunSample],
    *,
    pairs: bool | None = None,
    relevant: float = RELEVANT,
) -> Comparison:
    """Compare two groups of runs.

    :param first: The runs of A.
    :param second: The runs of B.
    :param pairs: Whether runs of the same seed form pairs.  By default they
        do if all runs have a seed, and no group has a seed twice.
    :param relevant: The difference, in percent of A's blackout, that the
        comparison must be able to show.
    """
    notes = [
        f"{x.name or f'seed {x.seed}'}: no blackout: "
        f"{x.breakdown.blackout.note}"
        for x in (*first, *second)
        if x.breakdown.blackout.duration_ns is None
    ]
    first = [x for x in first if x.breakdown.phases]
    second = [x for x in second if x.breakdown.phases]
    sealed = all(x.seed is not None for x in (*first, *second))
    if not sealed:
        pairs = False
        notes += _of_real_hosts(first, second)
        if len({x.devices for x in (*first, *second)}) > 1:
            first, second = _by_place(first), _by_place(second)
            notes.append(
                "the devices have other names in some runs: they are called "
                "by their places in the order of plugging"
            )
    if pairs is None:
        pairs = all(
            count == 1
            for group in (first, second)
            for count in Counter(x.seed for x in group).values()
        )
    seeds: tuple[int, ...] = ()
    if pairs:
        a, b = (
            {x.seed: x for x in group if x.seed is not None}
            for group in (first, second)
        )
        seeds = tuple(sorted(a.keys() & b.keys()))
        if alone := sorted(a.keys() ^ b.keys()):
            notes.append(f"these seeds have only one run of two: {alone}")
        first = [a[seed] for seed in seeds]
        second = [b[seed] for seed in seeds]
    if not first or not second:
        return Comparison(
            seeds, len(first), len(second), (), notes=tuple(notes)
        )
    merged = blind(x.breakdown for x in (*first, *second))
    notes += [
        f"{name}: not told in every run; it is part of the next phase"
        for name in PhaseName
        if name in merged
    ]
    values = [
        [metrics(x.breakdown, merged) for x in group]
        for group in (first, second)
    ]
    if not sealed:
        notes += _drop_unmeasured(values, (first, second))
    rows = _rows(values[0], values[1], bool(pairs))
    whole_ns = rows[0].a_ns
    outliers: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    if not pairs:
        outliers = (_apart(values[0]), _apart(values[1]))
    return Comparison(
        seeds,
        len(first),
        len(second),
        tuple(_judged(row, whole_ns, relevant) for row in rows),
        outliers,
        tuple(notes),
    )


def _of_real_hosts(
    first: Sequence[RunSample], second: Sequence[RunSample]
) -> Iterator[str]:
    """Yield what a comparison of real hosts' runs relies on."""
    yield (
        "these runs were not sealed: a blackout is only as exact as the "
        "clocks of its two hosts agree"
    )
    turns = [
        letter
        for _, letter in sorted(
            (x.breakdown.blackout.start_ns or 0, letter)
            for group, letter in ((first, "A"), (second, "B"))
            for x in group
        )
    ]
    taken = sum(x != y for x, y in pairwise(turns))
    # A random order hardly ever alternates as rarely as this.
    if 4 * taken < 2 * min(len(first), len(second)) - 1:
        yield (
            "A and B were not run alternately, A B A B: whatever else "
            "changed between them is part of the difference"
        )


def _by_place(group: Sequence[RunSample]) -> list[RunSample]:
    """Name the devices of each run by their places."""
    found = []
    for run in group:
        names: dict[tuple[Side, str], str] = {}
        for side in Side:
            own = [x for x in run.devices if x[0] is side]
            names |= {x: f"{side}-{n}" for n, x in enumerate(own, 1)}
        found.append(replace(run, breakdown=renamed(run.breakdown, names)))
    return found


_Values = list[dict[str, int]]


def _drop_unmeasured(
    values: Sequence[_Values], groups: Sequence[Sequence[RunSample]]
) -> Iterator[str]:
    """Drop the devices' figures that some run has not measured.

    :param values: The figures of A's and of B's runs.
    :param groups: These runs.
    :return: What was dropped.
    """
    runs = [
        (found, measured(run.breakdown))
        for group, row in zip(groups, values, strict=True)
        for run, found in zip(group, row, strict=True)
    ]
    known = {x for found, _ in runs for x in found if x.startswith(DEVICE)}
    dropped = []
    for name in sorted(known):
        if any(name not in found and name not in seen for found, seen in runs):
            dropped.append(name.removeprefix(DEVICE))
            for found, _ in runs:
                found.pop(name, None)
    if dropped:
        yield (
            "left out, as not every run has measured it: "
            f"{', '.join(dropped)}"
        )


# Most commands compare nothing, and numpy takes long to be imported.
def _apart(values: _Values) -> tuple[int, ...]:
    from vfio_p2p.downtime import stats

    return tuple(stats.outliers([x[BLACKOUT] for x in values]))


def _rows(first: _Values, second: _Values, pairs: bool) -> list[MetricRow]:
    """Make a row for each figure that is part of the blackout."""
    from vfio_p2p.downtime import stats

    phases = [f"{PHASE}{name}" for name in PhaseName]
    known = {name for x in (*first, *second) for name in x}
    devices = sorted(x for x in known if x.startswith(DEVICE))
    names = [BLACKOUT, *(x for x in phases if x in known), *devices]
    # A request that a device did not make took it no time.  Of runs that
    # were not sealed, only what each of them has measured is left here.
    columns = [
        ([x.get(name, 0) for x in first], [x.get(name, 0) for x in second])
        for name in names
    ]
    rows = []
    for name, (a, b) in zip(names, columns, strict=True):
        effect = (
            stats.paired([y - x for x, y in zip(a, b, strict=True)])
            if pairs
            else stats.unpaired(a, b)
        )
        middle = float(median(a)), float(median(b))
        rows.append(MetricRow(name, *middle, effect, Change.UNCLEAR))
    parts = columns[1:]
    chances = (
        stats.together(
            [[y - x for x, y in zip(a, b, strict=True)] for a, b in parts]
        )
        if pairs
        else stats.together([a + b for a, b in parts], len(first))
    )
    return rows[:1] + [
        replace(row, effect=replace(row.effect, p=p))
        for row, p in zip(rows[1:], chances, strict=True)
    ]


def _judged(row: MetricRow, whole_ns: float, relevant: float) -> MetricRow:
    effect = row.effect
    if effect.same:
        change = Change.IDENTICAL
    elif effect.shown:
        change = Change.SLOWER if effect.difference_ns > 0 else Change.FASTER
        if abs(effect.difference_ns) < NEGLIGIBLE / 100 * whole_ns:
            change = Change.NONE
    elif (
        effect.smallest_ns is None
        or effect.smallest_ns > relevant / 100 * whole_ns
    ):
        change = Change.UNCLEAR
    else:
        change = Change.NONE
    return replace(row, change=change)
