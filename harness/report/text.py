# SPDX-License-Identifier: GPL-2.0-or-later
"""The report on a terminal: at most 79 columns but for log lines."""

from __future__ import annotations

import io

from rich import box
from rich.console import Console
from rich.table import Table

from harness.report.model import Report, Row
from harness.trace import printable
from harness.verdict import Verdict

_WIDTH = 79


def render(report: Report) -> str:
    """The whole report; ends with a line that counts verdicts."""
    parts = [_table(report)]
    parts += [_details(row) for row in report.rows]
    parts.append(_closing(report))
    return "\n".join(part for part in parts if part)


def _table(report: Report) -> str:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("variant")
    table.add_column("scenario")
    table.add_column("verdict")
    table.add_column("blackout", justify="right")
    table.add_column("QMP downtime", justify="right")
    table.add_column("how it ended")
    for row in report.rows:
        found = row.assessment
        table.add_row(
            row.variant,
            row.scenario,
            str(found.verdict),
            _blackout(row),
            "-"
            if found.qmp_downtime_ms is None
            else f"{found.qmp_downtime_ms} ms",
            found.summary,
        )
    stream = io.StringIO()
    console = Console(file=stream, width=_WIDTH, color_system=None)
    console.print(printable(f"{report.qemu}, base {report.base}"),
                  markup=False, highlight=False)
    console.print(table)
    return stream.getvalue().rstrip()


def _blackout(row: Row) -> str:
    if row.assessment.blackout_ns is None:
        return "-"
    return f"{row.assessment.blackout_ns / 1e6:.3f} ms"


def _details(row: Row) -> str:
    found = row.assessment
    if found.verdict is Verdict.PASS:
        return ""
    lines = ["", f"{row.variant}, {row.scenario}: {found.verdict}"]
    for finding in found.findings:
        lines.append(f"  broken: {finding.rule} ({finding.side})")
        lines.append(f"    {printable(finding.message)}")
        lines.append(f"    why it matters: {finding.reason}")
        lines += [f"    {line}" for line in finding.lines()]
    lines += [f"  {printable(note)}" for note in found.notes]
    if row.bundle:
        lines.append(f"  bundle: {row.bundle}")
    return "\n".join(lines)


def _closing(report: Report) -> str:
    counts = [
        f"{sum(r.assessment.verdict is verdict for r in report.rows)} {word}"
        for verdict, word in (
            (Verdict.PASS, "passed"),
            (Verdict.FAIL, "failed"),
            (Verdict.INCONCLUSIVE, "inconclusive"),
            (Verdict.ERROR, "errors"),
        )
    ]
    return f"\nverdict: {report.verdict} ({', '.join(counts)})"
