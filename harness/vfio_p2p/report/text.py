# SPDX-License-Identifier: GPL-2.0-or-later
"""The report for a terminal; only long names and log lines exceed it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.model import Group, Report, Row, ranges
from vfio_p2p.trace import printable

_WIDEST = 200

# In the order of the closing line.
_WORDS = {
    Verdict.PASS: "passed",
    Verdict.FAIL: "failed",
    Verdict.INCONCLUSIVE: "inconclusive",
    Verdict.SKIP: "skipped",
    Verdict.ERROR: "in error",
}


def render(report: Report) -> str:
    """The whole report; ends with a line that counts verdicts.

    Runs that differ only in their seed share a line.
    """
    groups = report.groups
    parts = [table(report), _traffic(groups), *map(details, groups)]
    parts.append(_latencies(report))
    parts.append(_closing(report))
    return "\n".join(part for part in parts if part)


def table(report: Report) -> str:
    """One line for each group of runs, under what QEMU they are of."""
    base = f", base {report.base}" if report.base else ""
    title = printable(f"{report.qemu}{base}")
    return f"{title}\n{_table(report.groups)}"


def _table(groups: Sequence[Group]) -> str:
    names = ["variant", "scenario", "verdict", "outcome"]
    if any(len(group.rows) > 1 for group in groups):
        return _lines(
            names,
            ["blackout, median (range)"],
            [
                [
                    group.variant,
                    group.scenario,
                    f"{group.verdict} {_passed(group)}",
                    ", ".join(
                        dict.fromkeys(
                            row.assessment.summary for row in group.rows
                        )
                    ),
                    _spread(group.blackouts),
                ]
                for group in groups
            ],
        )
    return _lines(
        names,
        ["blackout", "QMP downtime"],
        [_cells(row) for group in groups for row in group.rows],
    )


def _cells(row: Row) -> list[str]:
    found = row.assessment
    downtime = found.qmp_downtime_ms
    blackout = found.blackout_ns
    return [
        row.variant,
        row.scenario,
        str(found.verdict),
        found.summary,
        "-" if blackout is None else f"{blackout / 1e6:.3f} ms",
        "-" if downtime is None else f"{downtime} ms",
    ]


def _spread(blackouts: Sequence[int]) -> str:
    if not blackouts:
        return "-"
    middle, low, high = (
        f"{time_ns / 1e6:.3f}"
        for time_ns in (median(blackouts), min(blackouts), max(blackouts))
    )
    return f"{middle} ms ({low}..{high})"


def _traffic(groups: Sequence[Group]) -> str:
    """What devices sent to one another, if any did."""
    rows = [
        [group.variant, group.scenario]
        + [
            str(count)
            for count in (
                traffic.sent,
                traffic.delivered,
                traffic.lost,
                traffic.doubled,
            )
        ]
        for group in groups
        if (traffic := group.traffic) is not None
    ]
    if not rows:
        return ""
    names = ["between devices", "scenario"]
    numbers = ["sent", "delivered", "lost", "doubled"]
    return f"\n{_lines(names, numbers, rows)}"


def _lines(
    names: Sequence[str],
    numbers: Sequence[str],
    rows: Iterable[Sequence[str]],
) -> str:
    """A table; `numbers` are the columns on the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, no_wrap=True, justify="right")
    for row in rows:
        # Not as plain strings: those are markup to rich.
        table.add_row(*(Text(printable(cell)) for cell in row))
    # Wider than a terminal rather than cut: a mutant's name is long.
    console = Console(
        file=io.StringIO(), width=_WIDEST, color_system=None
    )
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join(lines[1:-1])


def _passed(group: Group) -> str:
    """So many of so many."""
    passed = sum(
        row.assessment.verdict is Verdict.PASS for row in group.rows
    )
    return f"{passed}/{len(group.rows)}"


def details(group: Group) -> str:
    """What there is to say of runs that pass not just like that.

    That is of one of them, the first that is as bad as any.
    """
    row, *others = group.worst
    found = row.assessment
    if found.verdict is Verdict.PASS and not found.known:
        return ""
    name = f"{row.variant}, {row.scenario}"
    if len(group.rows) > 1:
        name += f", seed {row.seed}"
    lines = ["", f"{name}: {found.verdict}"]
    if others and found.verdict is not Verdict.PASS:
        seeds = ranges([x.seed for x in others])
        lines.append(f"  and so with seed {seeds}")
    for finding in found.known:
        lines.append(f"  known: {finding.rule} ({finding.side})")
        lines.append(f"    {printable(finding.message)}")
    for finding in found.findings:
        lines.append(f"  broken: {finding.rule} ({finding.side})")
        lines.append(f"    {printable(finding.message)}")
        lines.append(f"    why it matters: {finding.reason}")
        lines += [f"    {line}" for line in finding.lines()]
    lines += [f"  {printable(note)}" for note in found.notes]
    if row.bundle:
        lines.append(f"  bundle: {printable(row.bundle)}")
    return "\n".join(lines)


def _latencies(report: Report) -> str:
    """What of the figures is a model's."""
    found: dict[str, list[str]] = {}
    for row in report.rows:
        names = found.setdefault(row.latencies, [])
        if row.scenario not in names:
            names.append(row.scenario)
    return "\n".join(
        printable(f"latencies of {', '.join(names)}: {text}")
        for text, names in found.items()
        if text
    )


def _closing(report: Report) -> str:
    found = Counter(row.assessment.verdict for row in report.rows)
    counts = [
        f"{found[verdict]} {word}"
        for verdict, word in _WORDS.items()
        if found[verdict] or verdict in (Verdict.PASS, Verdict.FAIL)
    ]
    return f"\nverdict: {report.verdict} ({', '.join(counts)})"
