# SPDX-License-Identifier: GPL-2.0-or-later
"""A change of QEMU: what it breaks and repairs, scenario by scenario.

A is the tree without the change, and B the tree with it.  A scenario that
shows a known defect says which rules are broken, and passes as long as they
are.  So the two trees are compared by the rules that they break, expected or
not, and a defect that is gone is no failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vfio_p2p.downtime.compare import NEGLIGIBLE, Change
from vfio_p2p.downtime.metrics import DEVICE
from vfio_p2p.oracle.verdict import Verdict, decided, worst
from vfio_p2p.report.figures import compared
from vfio_p2p.report.groups import RunGroup
from vfio_p2p.report.run import Run
from vfio_p2p.report.sections import (
    ChangeFate,
    ChangeTrial,
    ComparedFigure,
    ComparedSets,
)
from vfio_p2p.scenario.model import Outcome

# The finding that a scenario's known defect is gone.
_GONE = "expected"
# The scenario of a defect also says which states the defect leads through.
_COURSE = frozenset({"sequence"})
_JUDGED = (Verdict.PASS, Verdict.FAIL)
_WELL = {str(x) for x in (Outcome.IDLE, Outcome.MIGRATED, Outcome.CANCELLED)}


@dataclass(frozen=True)
class ChangeRuns:
    """The runs of both trees in one scenario.

    :param scenario: The name of the scenario.
    :param a: The runs without the change, at least one.
    :param b: The runs with it, at least one.
    """

    scenario: str
    a: tuple[Run, ...]
    b: tuple[Run, ...]


def trial(found: ChangeRuns) -> ChangeTrial:
    """Judge a change in one scenario.

    :param found: The runs.
    """
    before, after = _broken(found.a), _broken(found.b)
    became = _fate(found, before, after)
    groups = [
        RunGroup(x[0].tree, found.scenario, x) for x in (found.a, found.b)
    ]
    sets = compared(*groups) if all(x.blackouts for x in groups) else None
    a, b = groups
    return ChangeTrial(
        scenario=found.scenario,
        fate=became,
        verdict=_verdict(found, became),
        a=_said(a),
        b=_said(b),
        breaks=tuple(sorted(after - before)),
        repairs=tuple(sorted(before - after)),
        a_ns=a.middle_ns,
        b_ns=b.middle_ns,
        moved=() if sets is None else moved(sets),
        detail=_detail(found, became),
    )


def verdict(trials: Sequence[ChangeTrial]) -> Verdict:
    """Judge the change.

    What a place cannot run does not count, unless that is everything.

    :param trials: All scenarios.
    """
    return decided(x.verdict for x in trials)


def moved(found: ComparedSets) -> tuple[ComparedFigure, ...]:
    """The blackout and its phases, as far as they changed.

    Differences of less than a thousandth of the blackout are left out:
    another binary takes other times, if only by its layout.

    :param found: The comparison of A with B in one scenario.
    """
    return tuple(
        row
        for row in found.rows
        if not row.name.startswith(DEVICE)
        and row.change not in (Change.IDENTICAL, Change.NONE)
        and abs(row.percent) >= NEGLIGIBLE
    )


def _broken(runs: Iterable[Run]) -> set[str]:
    """The rules that any of the runs broke, expected or not."""
    return {
        finding.rule
        for run in runs
        for finding in (*run.findings, *run.known)
        if finding.rule != _GONE
    }


def _fate(
    found: ChangeRuns, before: set[str], after: set[str]
) -> ChangeFate:
    verdicts = [{run.verdict for run in x} for x in (found.a, found.b)]
    if _lives_on(found, after):
        return ChangeFate.REPAIRED
    # What is seen to be broken is broken, whatever else is not known.
    if after - before and Verdict.FAIL in verdicts[1]:
        if before - after and after - before <= _COURSE:
            return ChangeFate.REPAIRED
        return ChangeFate.BROKEN
    if not (verdicts[0] | verdicts[1]) <= set(_JUDGED):
        return ChangeFate.NOT_JUDGED
    if before - after:
        return ChangeFate.REPAIRED
    if Verdict.FAIL in verdicts[0]:
        return ChangeFate.BROKEN_BEFORE
    if Verdict.FAIL in verdicts[1]:
        return ChangeFate.BROKEN
    return ChangeFate.KEPT


def _lives_on(found: ChangeRuns, after: set[str]) -> bool:
    """Whether QEMU dies without the change, and does not with it.

    A scenario may expect the crash of a known defect, and then another end is
    not what it expects.
    """
    return (
        all(run.summary == Outcome.CRASHED for run in found.a)
        and all(run.summary.partition(",")[0] in _WELL for run in found.b)
        and after <= {"outcome"}
    )


def _verdict(found: ChangeRuns, became: ChangeFate) -> Verdict:
    if became is not ChangeFate.NOT_JUDGED:
        failed = became is ChangeFate.BROKEN
        return Verdict.FAIL if failed else Verdict.PASS
    return worst(
        run.verdict
        for run in (*found.a, *found.b)
        if run.verdict not in _JUDGED
    )


def _said(group: RunGroup) -> str:
    """Say how the runs of one tree came out."""
    if len(group.runs) == 1:
        return f"{group.verdict}, {group.outcomes}"
    return f"{group.counts}, {group.outcomes}"


def _detail(found: ChangeRuns, became: ChangeFate) -> str:
    """Say why a scenario is not judged."""
    if became is ChangeFate.NOT_JUDGED:
        for letter, runs in (("A", found.a), ("B", found.b)):
            for run in runs:
                if run.verdict not in _JUDGED:
                    return f"{letter}: {next(iter(run.notes), run.summary)}"
    return ""
