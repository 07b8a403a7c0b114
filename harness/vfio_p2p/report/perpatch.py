# SPDX-License-Identifier: GPL-2.0-or-later
"""The series judged patch by patch: patches down, rules across.

What holds changes on the way: up to patch 5 a second device is refused,
from patch 1 on STOP_COPY is left in the cleanup, from patch 5 on a device
passes the P2P states, and with patch 6 several devices migrate.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.trace import printable
from vfio_p2p.variant import SERIES_LENGTH
from vfio_p2p.verdict.assess import Assessment

ONE = "one-device"
TWO = "two-devices"
SCENARIOS = (ONE, TWO)

_SUBJECT_WIDTH = 31
_WIDEST = 200


@dataclass(frozen=True)
class Column:
    """One column of the table.

    :param title: Its head.
    :param rules: The oracle's rules that it stands for; empty for the
        outcome of `scenario`.
    :param scenario: Whose outcome it shows; empty for rules.
    :param holds: What holds at a patch, in a word; "-" is nothing yet.
    """

    title: str
    rules: frozenset[str]
    scenario: str
    holds: Callable[[int], str]


COLUMNS = (
    Column("1 device", frozenset(), ONE, lambda n: "migrates"),
    Column(
        "2 devices",
        frozenset(),
        TWO,
        lambda n: "migrate" if n >= SERIES_LENGTH else "refused",
    ),
    Column(
        "STOP",
        frozenset({"stop-copy"}),
        "",
        lambda n: "late" if n >= 1 else "early",
    ),
    Column(
        "P2P",
        frozenset({"p2p", "count", "prepare-target"}),
        "",
        lambda n: "yes" if n >= 5 else "no",
    ),
    Column(
        "order",
        frozenset({"barrier", "order"}),
        "",
        lambda n: "kept" if n >= SERIES_LENGTH else "-",
    ),
    Column(
        "arcs",
        frozenset(
            {
                "agreement",
                "arcs",
                "cancelled",
                "checksum",
                "conservation",
                "destination",
                "heartbeat",
                "left",
                "main-target",
                "named",
                "once",
                "reached",
                "recover",
                "run-state",
                "sequence",
                "stream-end",
                "swallowed",
            }
        ),
        "",
        lambda n: "legal",
    ),
)


@dataclass(frozen=True)
class Step:
    """One tree of the series.

    :param number: How many patches it has.
    :param subject: Subject of its last patch.
    :param runs: What came of each scenario, by its name.
    """

    number: int
    subject: str
    runs: Mapping[str, Assessment]

    @property
    def verdict(self) -> Verdict:
        """Verdict over its runs; all of them must have been made."""
        found = [run.verdict for run in self.runs.values()]
        if set(self.runs) != set(SCENARIOS):
            found.append(Verdict.INCONCLUSIVE)
        return worst(found)

    def cell(self, column: Column) -> str:
        """What the table shows in a column."""
        if column.scenario:
            run = self.runs.get(column.scenario)
            if run is None:
                return "not run"
            if any(x.rule == "outcome" for x in run.findings):
                return "BROKEN"
            if run.verdict in (Verdict.PASS, Verdict.FAIL):
                return column.holds(self.number)
            return str(run.verdict)
        broken = {
            finding.rule
            for run in self.runs.values()
            for finding in run.findings
        }
        if broken & column.rules:
            return "BROKEN"
        # Without a run that was judged nothing is known of a rule.
        if self.verdict in (Verdict.PASS, Verdict.FAIL):
            return column.holds(self.number)
        return "?"


def render(steps: Sequence[Step]) -> str:
    """The table, with a legend."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("patch", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column.title, no_wrap=True)
    for step in steps:
        name = f"{step.number} {step.subject}" if step.number else "base"
        table.add_row(
            _short(printable(name)),
            *(step.cell(column) for column in COLUMNS),
        )
    console = Console(
        file=io.StringIO(), width=_WIDEST, color_system=None, markup=False
    )
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join([*lines[1:-1], "", _LEGEND])


_LEGEND = """\
STOP: STOP_COPY is left early, before the stream is complete, or late, in
the cleanup. P2P: the P2P states are asked for. order: all prepares come
before all mains, both passes in their order. arcs: all of them are legal."""


def _short(text: str) -> str:
    if len(text) <= _SUBJECT_WIDTH:
        return text
    return text[: _SUBJECT_WIDTH - 1] + "…"


def as_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Plain values: one object for each tree."""
    return [
        {
            "patch": step.number,
            "subject": step.subject,
            "verdict": str(step.verdict),
            "columns": {
                column.title: step.cell(column) for column in COLUMNS
            },
        }
        for step in steps
    ]
