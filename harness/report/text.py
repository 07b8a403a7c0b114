# SPDX-License-Identifier: GPL-2.0-or-later
"""The report for a terminal; only long names and log lines exceed it."""

from __future__ import annotations

import io
from collections import Counter

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.report.model import Report, Row
from harness.trace import printable
from harness.verdict import Verdict

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
    """The whole report; ends with a line that counts verdicts."""
    parts = [_table(report)]
    parts += [_details(row) for row in report.rows]
    parts.append(_latencies(report))
    parts.append(_closing(report))
    return "\n".join(part for part in parts if part)


def _table(report: Report) -> str:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("variant", "scenario", "verdict", "outcome"):
        table.add_column(name, no_wrap=True)
    for name in ("blackout", "QMP downtime"):
        table.add_column(name, no_wrap=True, justify="right")
    for row in report.rows:
        found = row.assessment
        downtime = found.qmp_downtime_ms
        cells = (
            row.variant,
            row.scenario,
            str(found.verdict),
            found.summary,
            _blackout(row),
            "-" if downtime is None else f"{downtime} ms",
        )
        # Not as plain strings: those are markup to rich.
        table.add_row(*(Text(printable(cell)) for cell in cells))
    # Wider than a terminal rather than cut: a mutant's name is long.
    console = Console(
        file=io.StringIO(), width=_WIDEST, color_system=None
    )
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    base = f", base {report.base}" if report.base else ""
    title = printable(f"{report.qemu}{base}")
    return "\n".join([title, *lines[1:-1]])


def _blackout(row: Row) -> str:
    if row.assessment.blackout_ns is None:
        return "-"
    return f"{row.assessment.blackout_ns / 1e6:.3f} ms"


def _details(row: Row) -> str:
    found = row.assessment
    if found.verdict is Verdict.PASS and not found.known:
        return ""
    lines = ["", f"{row.variant}, {row.scenario}: {found.verdict}"]
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
