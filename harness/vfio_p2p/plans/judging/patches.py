# SPDX-License-Identifier: GPL-2.0-or-later
"""The series patch by patch: the rules that hold after each patch.

The rules that hold change on the way: up to patch 5 a second device is
refused, from patch 1 on STOP_COPY is left in the cleanup, from patch 5 on a
device passes the P2P states, and with patch 6 several devices migrate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.report.run import Run
from vfio_p2p.report.sections import JudgedPatch
from vfio_p2p.variant import SERIES_LENGTH

ONE = "one-device"
TWO = "two-devices"
SCENARIOS = (ONE, TWO)


@dataclass(frozen=True)
class PatchColumn:
    """One column of the table.

    :param title: The title.
    :param rules: The oracle's rules that the column stands for; empty if it
        shows the outcome of a scenario.
    :param scenario: The scenario whose outcome it shows; empty for rules.
    :param holds: Maps a number of patches to the word for what holds with
        them; "-" if nothing holds yet.
    """

    title: str
    rules: frozenset[str]
    scenario: str
    holds: Callable[[int], str]


COLUMNS = (
    PatchColumn("1 device", frozenset(), ONE, lambda n: "migrates"),
    PatchColumn(
        "2 devices",
        frozenset(),
        TWO,
        lambda n: "migrate" if n >= SERIES_LENGTH else "refused",
    ),
    PatchColumn(
        "STOP",
        frozenset({"stop-copy"}),
        "",
        lambda n: "late" if n >= 1 else "early",
    ),
    PatchColumn(
        "P2P",
        frozenset({"p2p", "count", "prepare-target"}),
        "",
        lambda n: "yes" if n >= 5 else "no",
    ),
    PatchColumn(
        "order",
        frozenset({"barrier", "order"}),
        "",
        lambda n: "kept" if n >= SERIES_LENGTH else "-",
    ),
    PatchColumn(
        "arcs",
        frozenset(
            {
                "agreement",
                "arcs",
                "cancelled",
                "checksum",
                "conservation",
                "destination",
                "dma-memory",
                "handlers",
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
                "switchover-ack",
            }
        ),
        "",
        lambda n: "legal",
    ),
)


@dataclass(frozen=True)
class PatchRuns:
    """One tree of the series and the results of its runs.

    :param number: How many patches the tree has.
    :param subject: The subject of the last patch; empty for the base.
    :param runs: The runs, by the scenarios' names.
    """

    number: int
    subject: str
    runs: Mapping[str, Run]

    @property
    def verdict(self) -> Verdict:
        """The verdict over its runs, all of which must have been made."""
        found = [run.verdict for run in self.runs.values()]
        if set(self.runs) != set(SCENARIOS):
            found.append(Verdict.INCONCLUSIVE)
        return worst(found)


def judged(found: PatchRuns) -> JudgedPatch:
    """Judge a tree by the rules that hold there.

    :param found: The tree.
    """
    return JudgedPatch(
        patch=found.number,
        subject=found.subject,
        verdict=found.verdict,
        columns={x.title: _cell(found, x) for x in COLUMNS},
    )


def _cell(found: PatchRuns, column: PatchColumn) -> str:
    if column.scenario:
        run = found.runs.get(column.scenario)
        if run is None:
            return "not run"
        if any(x.rule == "outcome" for x in run.findings):
            return "BROKEN"
        if run.verdict in (Verdict.PASS, Verdict.FAIL):
            return column.holds(found.number)
        return str(run.verdict)
    broken = {x.rule for run in found.runs.values() for x in run.findings}
    if broken & column.rules:
        return "BROKEN"
    # Only runs that were judged tell anything of a rule.
    if found.verdict in (Verdict.PASS, Verdict.FAIL):
        return column.holds(found.number)
    return "?"
