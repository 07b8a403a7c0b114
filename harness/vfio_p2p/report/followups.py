# SPDX-License-Identifier: GPL-2.0-or-later
"""The follow-ups judged: is each defect there without, and not with it?"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.report.machine import FORMAT
from vfio_p2p.series import Followup
from vfio_p2p.trace import printable
from vfio_p2p.verdict.assess import Assessment

_WIDEST = 200


@dataclass(frozen=True)
class Trial:
    """One follow-up in one scenario, and what came of it.

    :param followup: The follow-up.
    :param scenario: The scenario's name.
    :param control: The tree without it, by what is due of that tree.
    :param without: The same run, by what is due with the follow-up; None
        for a scenario that it only has to keep.
    :param mended: The tree with it; None if it did not build.
    :param not_built: Why not.
    """

    followup: Followup
    scenario: str
    control: Assessment
    without: Assessment | None
    mended: Assessment | None
    not_built: str = ""

    @property
    def verdict(self) -> Verdict:
        """PASS if the defect is there without, and all is well with it."""
        found = [self.control.verdict]
        if self.without is not None:
            # What shows no defect has none that could be mended.
            found.append(
                _INVERSE.get(self.without.verdict, self.without.verdict)
            )
        found.append(
            Verdict.FAIL if self.mended is None else self.mended.verdict
        )
        return worst(found)

    @property
    def detail(self) -> str:
        """Why it is no pass; empty if it is one."""
        if self.mended is None:
            return f"did not build: {self.not_built}"
        if self.control.verdict is not Verdict.PASS:
            return f"without it: {_why(self.control)}"
        if self.without and self.without.verdict is Verdict.PASS:
            return "the defect is not there without it either"
        if self.without and self.without.verdict is not Verdict.FAIL:
            return f"without it: {_why(self.without)}"
        if self.mended.verdict is not Verdict.PASS:
            return f"with it: {_why(self.mended)}"
        return ""


_INVERSE = {Verdict.PASS: Verdict.FAIL, Verdict.FAIL: Verdict.PASS}


def _why(run: Assessment) -> str:
    for finding in run.findings:
        return f"{finding.rule}: {finding.message}"
    return next(iter(run.notes), str(run.verdict))


@dataclass(frozen=True)
class FollowupReport:
    """What came of follow-ups.

    :param qemu: Version string of the QEMU under test.
    :param base: Name of the base.
    :param trials: One for each scenario of each.
    """

    qemu: str
    base: str
    trials: Sequence[Trial]

    @property
    def verdict(self) -> Verdict:
        """The worst of the trials."""
        return worst([trial.verdict for trial in self.trials])


def render(report: FollowupReport) -> str:
    """The table, and why what does not pass does not."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("follow-up", "scenario", "without it", "with it", "verdict"):
        table.add_column(name, no_wrap=True)
    for trial in report.trials:
        table.add_row(*(Text(printable(x)) for x in _cells(trial)))
    console = Console(file=io.StringIO(), width=_WIDEST, color_system=None)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join(
        [
            printable(f"{report.qemu}, base {report.base}"),
            *lines[1:-1],
            "",
            *(
                printable(f"{x.followup.name}, {x.scenario}: {x.detail}")
                for x in report.trials
                if x.detail
            ),
            f"verdict: {report.verdict}",
        ]
    )


def _cells(trial: Trial) -> tuple[str, ...]:
    without = "the defect" if trial.without else "no defect"
    if trial.without and trial.without.verdict is not Verdict.FAIL:
        without = str(trial.without.verdict)
    elif trial.control.verdict is not Verdict.PASS:
        without = str(trial.control.verdict)
    return (
        trial.followup.name,
        trial.scenario,
        without,
        str(trial.mended.verdict) if trial.mended else "did not build",
        str(trial.verdict),
    )


def as_json(report: FollowupReport) -> dict[str, Any]:
    """Plain values, for `json.dumps`.

    ::

        {"format": 1, "kind": "vfio-p2p follow-ups", "verdict": "pass",
         "qemu": "...", "base": "v10.0",
         "trials": [{"followup", "scenario", "fixes", "verdict",
                     "detail"}, ...]}
    """
    return {
        "format": FORMAT,
        "kind": "vfio-p2p follow-ups",
        "verdict": str(report.verdict),
        "qemu": report.qemu,
        "base": report.base,
        "trials": [
            {
                "followup": trial.followup.name,
                "scenario": trial.scenario,
                "fixes": trial.without is not None,
                "verdict": str(trial.verdict),
                "detail": trial.detail,
            }
            for trial in report.trials
        ],
    }


def as_junit(report: FollowupReport) -> str:
    """A JUnit document: one case for each follow-up and scenario."""
    suite = TestSuite("vfio-p2p validate --followups")
    for trial in report.trials:
        case = TestCase(
            f"{trial.followup.name}, {trial.scenario}", "vfio-p2p.followup"
        )
        if trial.verdict is Verdict.FAIL:
            case.result = [Failure(printable(trial.detail))]
        elif trial.verdict is not Verdict.PASS:
            case.result = [
                Error(printable(trial.detail), str(trial.verdict))
            ]
        suite.add_testcase(case)
    suite.update_statistics()
    document = JUnitXml()
    document.add_testsuite(suite)
    text = document.tostring()
    return text.decode() if isinstance(text, bytes) else str(text)
