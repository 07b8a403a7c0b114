# SPDX-License-Identifier: GPL-2.0-or-later
"""Follow-ups: each must fix a defect that shows without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.report.document import Document
from vfio_p2p.report.run import Run
from vfio_p2p.report.sections import FollowupTrial
from vfio_p2p.series import Followup
from vfio_p2p.verdict.assess import Assessment

_INVERSE = {Verdict.PASS: Verdict.FAIL, Verdict.FAIL: Verdict.PASS}


@dataclass(frozen=True)
class FollowupRuns:
    """One follow-up in one scenario, and the results of its runs.

    :param followup: The follow-up.
    :param scenario: The name of the scenario.
    :param control: The tree without the follow-up, by what is expected of
        that tree.
    :param without: The same run, by what is expected with the follow-up;
        None for a scenario that shows no defect.
    :param mended: The tree with the follow-up; None if it did not build.
    :param not_built: Why it did not build.
    """

    followup: Followup
    scenario: str
    control: Assessment | Run
    without: Assessment | Run | None
    mended: Assessment | Run | None
    not_built: str = ""


@dataclass(frozen=True)
class NotJudged:
    """One follow-up in one scenario, which the place cannot judge.

    :param followup: The follow-up.
    :param scenario: The name of the scenario.
    :param why: The reason, a clause.
    """

    followup: Followup
    scenario: str
    why: str


def trial(found: FollowupRuns | NotJudged) -> FollowupTrial:
    """Judge a follow-up in a scenario.

    It passes if the defect shows without it, and everything is well with
    it.

    :param found: The follow-up.
    """
    if isinstance(found, NotJudged):
        return FollowupTrial(
            followup=found.followup.name,
            scenario=found.scenario,
            fixes=found.scenario in found.followup.fixes,
            verdict=Verdict.SKIP,
            detail=found.why,
        )
    verdicts = [found.control.verdict]
    if found.without is not None:
        # A scenario that shows no defect has none to be fixed.
        verdicts.append(
            _INVERSE.get(found.without.verdict, found.without.verdict)
        )
    verdicts.append(
        Verdict.FAIL if found.mended is None else found.mended.verdict
    )
    return FollowupTrial(
        followup=found.followup.name,
        scenario=found.scenario,
        fixes=found.without is not None,
        verdict=worst(verdicts),
        detail=_detail(found),
        without=_without(found),
        mended=str(found.mended.verdict) if found.mended else "did not build",
    )


def document(
    found: Sequence[FollowupRuns | NotJudged],
    *,
    qemu: str,
    base: str,
    origin: str = "",
    runs: Sequence[Run] = (),
) -> Document:
    """Make the report of 'validate --followups'.

    What could not be judged does not count, unless that is everything.

    :param found: The follow-ups, once for each of their scenarios.
    :param qemu: The version string of the QEMU under test.
    :param base: The name of the base.
    :param origin: Where its source is from.
    :param runs: The runs that were made.
    """
    trials = [trial(one) for one in found]
    judged = [
        x
        for one, x in zip(found, trials, strict=True)
        if not isinstance(one, NotJudged)
    ]
    return Document.of(
        runs,
        qemu=qemu,
        base=base,
        origin=origin,
        verdict=worst(one.verdict for one in judged or trials),
        followups=trials,
    )


def _without(found: FollowupRuns) -> str:
    if found.without and found.without.verdict is not Verdict.FAIL:
        return str(found.without.verdict)
    if found.control.verdict is not Verdict.PASS:
        return str(found.control.verdict)
    return "the defect" if found.without else "no defect"


def _detail(found: FollowupRuns) -> str:
    """Why the trial does not pass; empty if it does."""
    if found.mended is None:
        return f"did not build: {found.not_built}"
    if found.control.verdict is not Verdict.PASS:
        return f"without it: {_why(found.control)}"
    if found.without and found.without.verdict is Verdict.PASS:
        return "the defect does not show without it"
    if found.without and found.without.verdict is not Verdict.FAIL:
        return f"without it: {_why(found.without)}"
    if found.mended.verdict is not Verdict.PASS:
        return f"with it: {_why(found.mended)}"
    return ""


def _why(run: Assessment | Run) -> str:
    for finding in run.findings:
        return f"{finding.rule}: {finding.message}"
    return next(iter(run.notes), str(run.verdict))
