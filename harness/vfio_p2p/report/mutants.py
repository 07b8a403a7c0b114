# SPDX-License-Identifier: GPL-2.0-or-later
"""The suite judged by mutants: what became of each, and was it as said?"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from junitparser import Error, Failure, Skipped, TestCase, TestSuite
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.report.machine import FORMAT, junit
from vfio_p2p.report.rules import unproven
from vfio_p2p.series import Mutant
from vfio_p2p.trace import printable
from vfio_p2p.verdict.assess import Assessment

_WIDEST = 200


class Fate(StrEnum):
    """What became of a mutant, the better first."""

    KILLED = "killed"
    WAITS = "waits"
    NOT_JUDGED = "not judged"
    BY_ANOTHER = "killed by another rule"
    NOT_BUILT = "did not build"
    SURVIVED = "survived"


_VERDICTS = {
    Fate.KILLED: Verdict.PASS,
    Fate.WAITS: Verdict.SKIP,
    Fate.NOT_JUDGED: Verdict.ERROR,
    # The rule that was said to see it does not.
    Fate.BY_ANOTHER: Verdict.FAIL,
    # A mutant that does not build proves nothing.
    Fate.NOT_BUILT: Verdict.FAIL,
    Fate.SURVIVED: Verdict.FAIL,
}


@dataclass(frozen=True)
class Trial:
    """One mutant, and what came of it.

    :param mutant: The mutant.
    :param runs: What came of its scenarios, by name.
    :param not_built: Why it did not build; else empty.
    """

    mutant: Mutant
    runs: Mapping[str, Assessment] = field(default_factory=dict)
    not_built: str = ""

    @property
    def fate(self) -> Fate:
        """The worst of its scenarios': it has to be seen in each."""
        if self.mutant.waits_for:
            return Fate.WAITS
        if self.not_built:
            return Fate.NOT_BUILT
        found = [self._fate_in(name) for name in self.mutant.scenarios]
        return max(found, key=list(Fate).index, default=Fate.SURVIVED)

    def _fate_in(self, scenario: str) -> Fate:
        run = self.runs.get(scenario)
        if run is None:
            return Fate.NOT_JUDGED
        rules = {finding.rule for finding in run.findings}
        if self.mutant.trips in rules:
            return Fate.KILLED
        if rules:
            return Fate.BY_ANOTHER
        if run.verdict is Verdict.ERROR:
            return Fate.NOT_JUDGED
        return Fate.SURVIVED

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that saw it, in any of its scenarios."""
        found = [f for run in self.runs.values() for f in run.findings]
        return tuple(sorted({finding.rule for finding in found}))

    @property
    def detail(self) -> str:
        """What there is to say beyond the fate; may be empty."""
        match self.fate:
            case Fate.WAITS:
                return f"for {self.mutant.waits_for}"
            case Fate.NOT_BUILT:
                return self.not_built
            case Fate.BY_ANOTHER:
                return f"by {', '.join(self.rules)}"
            case Fate.NOT_JUDGED:
                notes = [n for run in self.runs.values() for n in run.notes]
                return notes[0] if notes else "no run"
        return ""


@dataclass(frozen=True)
class MutantReport:
    """One validation of the suite.

    :param qemu: Version string of the QEMU under test.
    :param base: Name of the base.
    :param control: What came of the tree without any mutant, by scenario.
    :param trials: The mutants.
    :param whole: Whether all was tried that there is; only then does it
        mean anything that a rule was not broken.
    """

    qemu: str
    base: str
    control: Mapping[str, Assessment]
    trials: Sequence[Trial]
    whole: bool = False

    @property
    def unproven(self) -> tuple[str, ...]:
        """The rules that no mutant broke, nor any scenario made to."""
        if not self.whole:
            return ()
        tried = [run for trial in self.trials for run in trial.runs.values()]
        return unproven([*tried, *self.control.values()])

    @property
    def verdict(self) -> Verdict:
        """PASS if each is killed by its rule, or waits, and no other is.

        Where the tree without a mutant does not pass either, a mutant that
        is killed proves nothing; and a rule that nothing breaks may be one
        that nothing can.
        """
        found = [_VERDICTS[trial.fate] for trial in self.trials]
        if self.unproven:
            found.append(Verdict.INCONCLUSIVE)
        # Those that wait do not make the others' verdict less sure.
        if Verdict.PASS in found:
            found = [v for v in found if v is not Verdict.SKIP]
        return worst(
            [*found, *(run.verdict for run in self.control.values())]
        )


def render(report: MutantReport) -> str:
    """The table, and what the tree without a mutant does."""
    return "\n".join(
        [
            printable(f"{report.qemu}, base {report.base}"),
            *table(report.trials),
            "",
            *_bad_controls(report),
            *_unproven(report),
            f"verdict: {report.verdict} ({counts(report.trials)})",
        ]
    )


def counts(trials: Sequence[Trial]) -> str:
    """How many met which fate, in words."""
    fates = [trial.fate for trial in trials]
    return ", ".join(
        f"{fates.count(fate)} {fate}" for fate in Fate if fate in fates
    )


def table(trials: Sequence[Trial]) -> list[str]:
    """A table of mutants, line by line."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("mutant", "must trip", "in", "fate", ""):
        table.add_column(name, no_wrap=True)
    for trial in trials:
        cells = (
            trial.mutant.name,
            trial.mutant.trips,
            ", ".join(trial.mutant.scenarios),
            str(trial.fate),
            trial.detail,
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console = Console(file=io.StringIO(), width=_WIDEST, color_system=None)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return lines[1:-1]


def _bad_controls(report: MutantReport) -> list[str]:
    return [
        printable(
            f"without a mutant, {name}: {run.verdict}, so that nothing "
            f"is proved there"
        )
        for name, run in report.control.items()
        if run.verdict is not Verdict.PASS
    ]


def _unproven(report: MutantReport) -> list[str]:
    names = ", ".join(report.unproven)
    return [f"unproven, as nothing breaks them: {names}"] if names else []


def as_json(report: MutantReport) -> dict[str, Any]:
    """Plain values, for `json.dumps`.

    ::

        {"format": 1, "kind": "vfio-p2p mutants", "verdict": "pass",
         "qemu": "...", "base": "v10.0", "control": {"two-devices": "pass"},
         "unproven": ["conservation", ...],
         "mutants": [{"name", "trips", "scenarios", "fate", "rules",
                      "detail"}, ...]}
    """
    return {
        "format": FORMAT,
        "kind": "vfio-p2p mutants",
        "verdict": str(report.verdict),
        "qemu": report.qemu,
        "base": report.base,
        "control": {
            name: str(run.verdict) for name, run in report.control.items()
        },
        "unproven": list(report.unproven),
        "mutants": [
            {
                "name": trial.mutant.name,
                "trips": trial.mutant.trips,
                "scenarios": list(trial.mutant.scenarios),
                "fate": str(trial.fate),
                "rules": list(trial.rules),
                "detail": trial.detail,
            }
            for trial in report.trials
        ],
    }


def as_junit(report: MutantReport) -> str:
    """A JUnit document: one case for each mutant and each control."""
    return junit([suite_of(report)])


def suite_of(report: MutantReport) -> TestSuite:
    """The suite in it."""
    suite = TestSuite("vfio-p2p validate --mutants")
    for name, run in report.control.items():
        suite.add_testcase(_case(name, "control", run.verdict, run.summary))
    for name in report.unproven:
        suite.add_testcase(
            _case(name, "rule", Verdict.INCONCLUSIVE, "nothing breaks it")
        )
    for trial in report.trials:
        why = f"{trial.fate} {trial.detail}".strip()
        suite.add_testcase(
            _case(trial.mutant.name, "mutant", _VERDICTS[trial.fate], why)
        )
    suite.update_statistics()
    return suite


def _case(name: str, kind: str, verdict: Verdict, why: str) -> TestCase:
    case = TestCase(name, f"vfio-p2p.{kind}")
    match verdict:
        case Verdict.FAIL:
            case.result = [Failure(printable(why))]
        case Verdict.SKIP:
            case.result = [Skipped(printable(why))]
        case Verdict.ERROR | Verdict.INCONCLUSIVE:
            case.result = [Error(printable(why), str(verdict))]
    return case
