# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything there is in one report: trees, mutants and rules."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from junitparser import Failure, TestCase, TestSuite
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfio_p2p.oracle import RULES
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.report import machine, mutants, text
from vfio_p2p.report.model import Report
from vfio_p2p.report.mutants import Fate, MutantReport
from vfio_p2p.report.rules import unproven
from vfio_p2p.trace import printable

FORMAT = 1

_WIDTH = 120


@dataclass(frozen=True)
class EverythingReport:
    """One validation of everything.

    :param trees: The runs of each tree, by its name; with all scenarios.
    :param mutants: The mutants, without any control: the trees are that.
        None where a base has none.
    """

    trees: dict[str, Report]
    mutants: MutantReport | None

    @property
    def unproven(self) -> tuple[str, ...]:
        """The rules that no mutant broke, nor any scenario made to."""
        if self.mutants is None:
            return ()
        tried = [r for x in self.mutants.trials for r in x.runs.values()]
        rows = [row for tree in self.trees.values() for row in tree.rows]
        return unproven([*tried, *(row.assessment for row in rows)])

    @property
    def verdict(self) -> Verdict:
        """The worst of all; that a rule is unproven is a failure."""
        found = [tree.verdict for tree in self.trees.values()]
        # Without any it is open whether the rules can be broken.
        found.append(
            self.mutants.verdict if self.mutants else Verdict.INCONCLUSIVE
        )
        # Of what was not run nobody knows what it would have broken.
        if self.unproven and Verdict.ERROR not in found:
            found.append(Verdict.FAIL)
        return worst(found)


def render(report: EverythingReport) -> str:
    """The report for a terminal: counts, and what does not pass in full."""
    return "\n".join(
        [
            *_versions(report),
            *_counts(report),
            *_not_passed(report),
            *_known(report),
            *_mutants(report),
            "",
            _rules(report),
            f"verdict: {report.verdict}",
        ]
    )


def _versions(report: EverythingReport) -> Iterator[str]:
    for name, tree in report.trees.items():
        yield printable(f"{name}: {tree.qemu}")


def _counts(report: EverythingReport) -> list[str]:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tree", no_wrap=True)
    for name in ("runs", *Verdict):
        table.add_column(str(name), no_wrap=True, justify="right")
    for name, tree in report.trees.items():
        found = Counter(row.assessment.verdict for row in tree.rows)
        cells = [str(found[x] or "-") for x in Verdict]
        table.add_row(Text(printable(name)), str(len(tree.rows)), *cells)
    console = Console(file=io.StringIO(), width=_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return lines[:-1]


def _not_passed(report: EverythingReport) -> Iterator[str]:
    for tree in report.trees.values():
        rows = tuple(
            row
            for row in tree.rows
            if row.assessment.verdict is not Verdict.PASS
        )
        if rows:
            shown = replace(tree, rows=rows)
            yield ""
            yield text.table(shown)
            yield from map(text.details, shown.groups)


def _known(report: EverythingReport) -> Iterator[str]:
    """What is broken as expected, one line for each scenario and rule."""
    shown: dict[tuple[str, str], list[str]] = {}
    for name, tree in report.trees.items():
        for row in tree.rows:
            for rule in dict.fromkeys(x.rule for x in row.assessment.known):
                shown.setdefault((row.scenario, rule), []).append(name)
    if shown:
        yield ""
        yield "defects that their scenarios expect:"
    for (scenario, rule), names in shown.items():
        yield printable(f"  {scenario}: {rule} ({', '.join(names)})")


def _mutants(report: EverythingReport) -> Iterator[str]:
    if report.mutants is None:
        return
    trials = report.mutants.trials
    yield ""
    yield f"mutants: {mutants.counts(trials)}"
    rest = [trial for trial in trials if trial.fate is not Fate.KILLED]
    if rest:
        yield from mutants.table(rest)


def _rules(report: EverythingReport) -> str:
    if report.mutants is None:
        return "rules: not proven, without mutants of this base"
    if not report.unproven:
        return f"rules: {len(RULES)}, each broken by something"
    names = ", ".join(report.unproven)
    return f"rules: unproven, as nothing breaks them: {names}"


def as_json(report: EverythingReport) -> dict[str, Any]:
    """Plain values, for `json.dumps`.

    ::

        {"format": 1, "kind": "vfio-p2p full report", "verdict": "pass",
         "unproven": [], "trees": {"v10.0 patched": {...}, ...},
         "mutants": {...}}

    Each tree is as in `vfio_p2p.report.machine.as_json`, the mutants as in
    `vfio_p2p.report.mutants.as_json`, or null.
    """
    found = report.mutants
    return {
        "format": FORMAT,
        "kind": "vfio-p2p full report",
        "verdict": str(report.verdict),
        "unproven": list(report.unproven),
        "trees": {
            name: machine.as_json(tree)
            for name, tree in report.trees.items()
        },
        "mutants": None if found is None else mutants.as_json(found),
    }


def as_junit(report: EverythingReport) -> str:
    """A JUnit document: a suite for each tree, the mutants and the rules."""
    suites = [
        machine.suite_of(tree, f"vfio-p2p {printable(name)}")
        for name, tree in report.trees.items()
    ]
    if report.mutants is not None:
        suites += [mutants.suite_of(report.mutants), _rule_suite(report)]
    return machine.junit(suites)


def _rule_suite(report: EverythingReport) -> TestSuite:
    suite = TestSuite("vfio-p2p rules")
    for rule in RULES:
        case = TestCase(rule.name, "vfio-p2p.rule")
        if rule.name in report.unproven:
            case.result = [Failure("unproven: nothing breaks it")]
        suite.add_testcase(case)
    suite.update_statistics()
    return suite
