# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures that the reports for people show: phases and broken rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vfio_p2p.downtime import PhaseName
from vfio_p2p.downtime.compare import compare
from vfio_p2p.downtime.metrics import PHASE
from vfio_p2p.report.comparison import compared_sets, phases_of
from vfio_p2p.report.document import Document
from vfio_p2p.report.groups import RunGroup, by_scenario, middle
from vfio_p2p.report.run import BrokenRule, GuestAbsence, Run
from vfio_p2p.report.samples import sample_of
from vfio_p2p.report.sections import (
    ComparedFigure,
    ComparedRuns,
    ComparedSets,
)

TOTAL = "blackout"
# Other figures for the same migration; they begin and end elsewhere.
QMP = "QMP downtime"
RESUME = "STOP to RESUME"
GUEST = "guest-visible gap"
# The parts that make up the gap, together with the blackout.
GUEST_REST = "  rest of a period"
GUEST_STOP = "  stopping vCPU"
GUEST_AFTER = "  to first beat"

_OF_GUEST: Mapping[str, Callable[[GuestAbsence], int]] = {
    GUEST: lambda gap: gap.duration_ns,
    GUEST_REST: lambda gap: gap.rest_ns,
    GUEST_STOP: lambda gap: gap.pause_ns + gap.stop_request_ns,
    GUEST_AFTER: lambda gap: gap.after_ns,
}
_BESIDE = (QMP, RESUME, *_OF_GUEST)
_ORDER = {str(name): place for place, name in enumerate(PhaseName)}


@dataclass(frozen=True)
class PhaseRow:
    """One phase of several groups of runs.

    :param name: The phase, or `TOTAL`, or another figure.
    :param medians: The median of each group, nanoseconds; None where no
        run has the phase.
    :param figure: How the second group compares with the first; None
        unless they are compared.
    """

    name: str
    medians: tuple[float | None, ...]
    figure: ComparedFigure | None = None


@dataclass(frozen=True)
class PhaseTable:
    """The phases of one scenario.

    :param scenario: The name of the scenario.
    :param groups: The groups of its runs that have a blackout.
    :param rows: The phases, and `TOTAL` as the last.
    :param beside: Other figures that the runs have.
    :param comparison: How two groups compare; None of any other number of
        groups, or if no phases are known.
    """

    scenario: str
    groups: tuple[RunGroup, ...]
    rows: tuple[PhaseRow, ...]
    beside: tuple[PhaseRow, ...]
    comparison: ComparedSets | None

    @property
    def unseen(self) -> tuple[str, ...]:
        """The figures that the logs cannot tell, and why."""
        return tuple(
            dict.fromkeys(
                f"{x.what}: {x.why}"
                + (f" (its time is in {x.within})" if x.within else "")
                for group in self.groups
                for run in group.runs
                for x in run.not_observable
            )
        )


def tables(document: Document) -> tuple[PhaseTable, ...]:
    """The phases of each scenario that has a blackout.

    :param document: The document.
    """
    every = by_scenario(document)
    found = []
    for scenario in document.scenarios:
        having = tuple(
            x for x in every if x.scenario == scenario and x.blackouts
        )
        if having:
            found.append(_table(scenario, having))
    return tuple(found)


def _table(scenario: str, having: tuple[RunGroup, ...]) -> PhaseTable:
    sets = compared(*having) if len(having) == 2 else None
    if sets is not None:
        rows = [
            PhaseRow(x.name.removeprefix(PHASE), (x.a_ns, x.b_ns), x)
            for x in (*phases_of(sets), sets.rows[0])
        ]
    else:
        names = {
            part.name
            for group in having
            for run in group.runs
            for part in run.phases
        }
        known = sorted(names, key=lambda x: (_ORDER.get(x, len(_ORDER)), x))
        rows = [_row(name, having) for name in (*known, TOTAL)]
    beside = [_row(name, having) for name in _BESIDE]
    return PhaseTable(
        scenario,
        having,
        tuple(rows),
        tuple(row for row in beside if any(row.medians)),
        sets,
    )


def _row(name: str, having: Sequence[RunGroup]) -> PhaseRow:
    return PhaseRow(name, tuple(middle(durations(x, name)) for x in having))


def compared(first: RunGroup, second: RunGroup) -> ComparedSets | None:
    """Compare the blackouts of two groups of runs, phase by phase.

    :param first: The runs of A.
    :param second: The runs of B.
    :return: None if there is nothing to compare.
    """
    samples = [
        [
            sample
            for run in group.runs
            if (sample := sample_of(run)) is not None
        ]
        for group in (first, second)
    ]
    found = compare(*samples)
    if not found.rows:
        return None
    a, b = (
        ComparedRuns(
            name=group.tree,
            qemu=group.runs[0].qemu,
            scenario=group.scenario,
            latencies=group.runs[0].latencies,
        )
        for group in (first, second)
    )
    return compared_sets(a, b, found)


def durations(group: RunGroup, phase: str) -> list[int]:
    """One figure of every run that has it, nanoseconds.

    :param group: The runs.
    :param phase: The name of a phase, `TOTAL`, or that of another figure.
    """
    return [
        duration_ns
        for run in group.runs
        if (duration_ns := _duration_ns(run, phase)) is not None
    ]


def _duration_ns(run: Run, phase: str) -> int | None:
    if phase == TOTAL:
        return run.blackout_ns
    if phase == RESUME:
        return run.stop_to_resume_ns
    if phase == QMP:
        known = run.qmp_downtime_ms
        return None if known is None else known * 10**6
    if phase in _OF_GUEST:
        return _OF_GUEST[phase](run.guest_gap) if run.guest_gap else None
    return next(
        (x.duration_ns for x in run.phases if x.name == phase), None
    )


@dataclass(frozen=True)
class Breach:
    """A rule that was broken in the same way by one run or more.

    :param finding: The finding, as in the first of the runs.
    :param runs: The numbers of the runs in the document, from 0.
    :param known: Whether their scenario expects it.
    """

    finding: BrokenRule
    runs: tuple[int, ...]
    known: bool = False


def breaches(document: Document) -> tuple[Breach, ...]:
    """All broken rules, those that say the same only once.

    :param document: The document.
    :return: The breaches; those that a scenario expects come last.
    """
    found = _alike((run.tree, run.findings) for run in document.runs)
    known = _alike((run.tree, run.known) for run in document.runs)
    return tuple(
        Breach(finding, tuple(numbers), expected)
        for expected, every in ((False, found), (True, known))
        for finding, numbers in every
    )


def _alike(
    runs: Iterable[tuple[str, Sequence[BrokenRule]]],
) -> Iterable[tuple[BrokenRule, Iterable[int]]]:
    """Findings by what they say, with the numbers of the runs."""
    found: dict[tuple[str, ...], tuple[BrokenRule, dict[int, None]]] = {}
    for number, (tree, findings) in enumerate(runs):
        for finding in findings:
            key = (tree, finding.rule, finding.side, finding.message)
            found.setdefault(key, (finding, {}))[1][number] = None
    return found.values()


def bound_text(runs: Iterable[Run]) -> str:
    """How far the blackouts of runs may be off, e.g. `` ±2.4 ms``.

    :param runs: The runs, of which the largest bound counts.
    :return: Empty if each of them was measured with one clock.
    """
    bounds = [
        x.blackout_bound_ns for x in runs if x.blackout_bound_ns is not None
    ]
    if not bounds:
        return ""
    return f" \N{PLUS-MINUS SIGN}{max(bounds) / 1e6:.3f} ms"


def gap_bound_text(runs: Iterable[Run]) -> str:
    """How far guest-visible gaps may be off; see `bound_text`."""
    bounds = [
        x.guest_gap.bound_ns
        for x in runs
        if x.guest_gap is not None and x.guest_gap.bound_ns is not None
    ]
    if not bounds:
        return ""
    return f" \N{PLUS-MINUS SIGN}{max(bounds) / 1e6:.3f} ms"


def ms(time_ns: float) -> str:
    """Format a time in milliseconds.

    It has three decimals, as QEMU's logs do, or six if it was measured to
    the nanosecond.

    :param time_ns: The time, in nanoseconds.
    """
    exact = isinstance(time_ns, int) and time_ns % 1000
    return f"{time_ns / 1e6:.{6 if exact else 3}f}"
