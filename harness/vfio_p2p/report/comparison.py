# SPDX-License-Identifier: GPL-2.0-or-later
"""A against B, as a section of a document and as text of 79 columns."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap

from msgspec.structs import replace

from vfio_p2p.downtime.compare import Change, Comparison, MetricRow
from vfio_p2p.downtime.effect import LEVEL
from vfio_p2p.downtime.metrics import BLACKOUT, DEVICE, PHASE
from vfio_p2p.report.groups import ranges
from vfio_p2p.report.sections import (
    ComparedFigure,
    ComparedRuns,
    ComparedSets,
)
from vfio_p2p.trace import printable

# The names of all phases fit; those of devices may be longer.
_NAME = 18


def compared_sets(
    a: ComparedRuns, b: ComparedRuns, found: Comparison
) -> ComparedSets:
    """Make the section that says how two sets of runs compare.

    :param a: What A is; its runs and outliers are filled in here.
    :param b: What B is, likewise.
    :param found: The comparison.
    """
    return ComparedSets(
        a=replace(a, runs=found.count_a, outliers_ns=found.outliers_ns[0]),
        b=replace(b, runs=found.count_b, outliers_ns=found.outliers_ns[1]),
        seeds=found.seeds,
        confidence=1 - LEVEL,
        change=found.change,
        rows=tuple(
            _figure(row, found.percent(row.effect.difference_ns))
            for row in found.rows
        ),
        where=tuple(row.name for row in found.where),
        notes=found.notes,
    )


def _figure(row: MetricRow, percent: float) -> ComparedFigure:
    effect = row.effect
    smallest_ns = effect.smallest_ns
    # Some of the statistics are numpy's numbers.
    return ComparedFigure(
        name=row.name,
        change=row.change,
        a_ns=float(row.a_ns),
        b_ns=float(row.b_ns),
        difference_ns=float(effect.difference_ns),
        percent=float(percent),
        interval_ns=(float(effect.low_ns), float(effect.high_ns)),
        p=float(effect.p),
        smallest_ns=None if smallest_ns is None else float(smallest_ns),
    )


def comparison_lines(found: ComparedSets) -> list[str]:
    """Show a comparison as text.

    :param found: The comparison.
    """
    sides = (found.a, found.b)
    lines = [
        f"{letter}: {printable(x.name)}, {printable(x.scenario)}, "
        f"{printable(x.qemu)}"
        for letter, x in zip("AB", sides, strict=True)
    ]
    told = dict.fromkeys(x.latencies for x in sides)
    lines += [f"latencies: {printable(x)}" for x in told if x]
    lines.append(_runs(found))
    if found.rows:
        lines += ["", *_table(found), "", *_legend(found)]
    for letter, side in zip("AB", sides, strict=True):
        if side.outliers_ns:
            shown = ", ".join(f"{x / 1e6:.3f}" for x in side.outliers_ns)
            lines.append(f"apart, but counted, in {letter}: {shown} ms")
    lines += [
        line
        for note in found.notes
        for line in wrap(f"note: {printable(note)}", subsequent_indent="  ")
    ]
    return [*lines, "", *answer(found)]


def answer(found: ComparedSets) -> list[str]:
    """Say what became of the blackout, and which parts of it changed.

    :param found: The comparison.
    """
    if not found.rows:
        return ["blackout: there is none to compare"]
    if all(x.change is Change.IDENTICAL for x in found.rows):
        return ["blackout: identical, and so is every part of it"]
    lines = [f"{BLACKOUT}: {_words(found.rows[0])}"]
    for row in found.changed:
        kind, _, name = row.name.partition(".")
        lines.append(f"  {kind} {printable(name)}: {_words(row)}")
    return lines


def phases_of(found: ComparedSets) -> list[ComparedFigure]:
    """The rows that are phases, in order.

    :param found: The comparison.
    """
    return [row for row in found.rows[1:] if row.name.startswith(PHASE)]


def risk(found: ComparedSets) -> str:
    """The level of confidence of the intervals, e.g. ``99 %``.

    :param found: The comparison.
    """
    return f"{100 * found.confidence:.0f} %"


def _words(row: ComparedFigure) -> str:
    if not row.changed:
        return str(row.change)
    return (
        f"{row.change} by {abs(row.difference_ns) / 1e6:.3f} ms "
        f"({row.percent:+.2f} %), p = {row.p:.4f}"
    )


def _runs(found: ComparedSets) -> str:
    if found.seeds:
        plural = "" if len(found.seeds) == 1 else "s"
        return (
            f"{len(found.seeds)} pair{plural}, of seed{plural} "
            f"{ranges(found.seeds)}"
        )
    return f"{found.a.runs} runs of A and {found.b.runs} of B, not paired"


def _legend(found: ComparedSets) -> list[str]:
    return [
        "A, B: medians. B-A: median difference, in ms and in percent of A's "
        "blackout,",
        f"with its {risk(found)} interval (bootstrap). p: of the blackout "
        "alone, of the parts",
        "together. tells: the smallest difference that these runs could "
        "have shown.",
    ]


def _table(found: ComparedSets) -> Iterable[str]:
    heads = (
        "A ms", "B ms", "B-A ms", "%", f"{risk(found)} interval", "p",
        "tells",
    )  # fmt: skip
    widths = (8, 8, 8, 8, 17, 6, 6)
    yield " " * _NAME + "".join(map(str.rjust, heads, widths))
    devices = [x for x in found.changed if x.name.startswith(DEVICE)]
    for row in (*found.rows[:1], *phases_of(found), *devices):
        name = printable(row.name.removeprefix(PHASE).removeprefix(DEVICE))
        if len(name) > _NAME:
            yield name
            name = ""
        yield (
            f"{name:{_NAME}}"
            + _fit(row.a_ns / 1e6, 8)
            + _fit(row.b_ns / 1e6, 8)
            + _fit(row.difference_ns / 1e6, 8, "+")
            + _fit(row.percent, 8, "+")
            + _fit(row.interval_ns[0] / 1e6, 8, "+")
            + _fit(row.interval_ns[1] / 1e6, 9, "+")
            + f"{row.p:6.3f}"
            + _smallest(row)
        )


def _smallest(row: ComparedFigure) -> str:
    if row.smallest_ns is None:
        return f"{'-':>6}"
    return _fit(row.smallest_ns / 1e6, 6)


def _fit(value: float, width: int, sign: str = "-") -> str:
    """Format a number with as many decimals as there is room for."""
    for decimals in (3, 2, 1):
        text = f"{value:{sign}.{decimals}f}"
        if len(text) < width:
            break
    return f"{text:>{width}}"
