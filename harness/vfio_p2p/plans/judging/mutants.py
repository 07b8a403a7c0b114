# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants: the suite must catch each of them with its own rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vfio_p2p.oracle.rules import RULES
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.report.document import Document, unbroken
from vfio_p2p.report.run import Run
from vfio_p2p.report.sections import Fate, MutantTrial, counted
from vfio_p2p.series import Mutant
from vfio_p2p.verdict.assess import Assessment


@dataclass(frozen=True)
class MutantRuns:
    """One mutant and the results of its runs.

    :param mutant: The mutant.
    :param runs: Its runs or their assessments, by the scenarios' names.
    :param not_built: Why the mutant did not build; empty if it did.
    """

    mutant: Mutant
    runs: Mapping[str, Assessment | Run] = field(default_factory=dict)
    not_built: str = ""

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that caught the mutant, in any of its scenarios."""
        found = [f for run in self.runs.values() for f in run.findings]
        return tuple(sorted({finding.rule for finding in found}))


def fate(found: MutantRuns) -> Fate:
    """Decide the fate of a mutant.

    It is the worst of the fates in all its scenarios, since the rule has to
    catch the mutant in each of them.

    :param found: The mutant.
    """
    if found.mutant.waits_for:
        return Fate.WAITS
    if found.not_built:
        return Fate.NOT_BUILT
    fates = [_fate_in(found, name) for name in found.mutant.scenarios]
    worst_fate = max(fates, key=list(Fate).index, default=Fate.SURVIVED)
    if found.mutant.equivalent:
        return _of_equivalent(found, worst_fate)
    return worst_fate


def trial(found: MutantRuns) -> MutantTrial:
    """Judge a mutant.

    :param found: The mutant.
    """
    became = fate(found)
    return MutantTrial(
        name=found.mutant.name,
        trips=found.mutant.trips,
        scenarios=tuple(found.mutant.scenarios),
        fate=became,
        rules=found.rules,
        detail=_detail(found, became),
    )


def verdict(
    trials: Sequence[MutantTrial],
    controls: Sequence[Verdict],
    unproven: Sequence[str],
) -> Verdict:
    """Judge the suite.

    It passes if every mutant is killed by its rule, is equivalent or waits
    for something, and at least one is killed.  Where the tree without a
    mutant does not pass, a mutant that is killed proves nothing.  A rule that
    nothing breaks may be one that nothing can break.

    :param trials: The mutants.
    :param controls: The verdicts on the tree without any mutant.
    :param unproven: The rules that nothing broke.
    """
    found = counted(one.fate for one in trials)
    if unproven:
        found.append(Verdict.INCONCLUSIVE)
    return worst([*found, *controls])


def broken_by(found: Sequence[MutantRuns]) -> set[str]:
    """The rules that mutants broke, or made a scenario break as expected.

    :param found: The mutants.
    """
    return {
        finding.rule
        for one in found
        for run in one.runs.values()
        for finding in (*run.findings, *run.known)
    }


def document(
    control: Sequence[Run],
    mutants: Sequence[MutantRuns],
    *,
    qemu: str,
    base: str,
    origin: str = "",
    whole: bool,
) -> Document:
    """Make the report of 'validate --mutants'.

    :param control: The runs of the tree without any mutant.
    :param mutants: The mutants.
    :param qemu: The version string of the QEMU under test.
    :param base: The name of the base.
    :param origin: Where its source is from.
    :param whole: Whether all mutants were tried.  Otherwise, a rule
        that was not broken is not reported.
    """
    trials = [trial(one) for one in mutants]
    unproven = []
    if whole:
        shown = {x.name for x in RULES if x.can_be_shown_by(qemu)}
        unproven = [
            x for x in unbroken(control, broken_by(mutants)) if x in shown
        ]
    judged = {name for one in mutants for name in one.mutant.scenarios}
    # Other scenarios only show that a rule can be broken.  If one is in doubt
    # for another reason, the rule is proven all the same, or is unproven.
    controls = {
        run.scenario: run.verdict
        for run in control
        if run.scenario in judged or run.verdict is not Verdict.INCONCLUSIVE
    }
    return Document.of(
        control,
        qemu=qemu,
        base=base,
        origin=origin,
        verdict=verdict(trials, list(controls.values()), unproven),
        unproven=unproven,
        control=controls,
        mutants=trials,
    )


def _of_equivalent(found: MutantRuns, became: Fate) -> Fate:
    """Return the fate of a mutant that nothing should be able to catch."""
    if any(run.findings for run in found.runs.values()):
        return Fate.BY_ANOTHER
    if became is not Fate.SURVIVED:
        return became
    # A run that is missing or unclear tells nothing of the mutant.
    sure = found.runs.keys() >= set(found.mutant.scenarios) and all(
        x.verdict is Verdict.PASS for x in found.runs.values()
    )
    return Fate.EQUIVALENT if sure else Fate.NOT_JUDGED


def _fate_in(found: MutantRuns, scenario: str) -> Fate:
    run = found.runs.get(scenario)
    if run is None:
        return Fate.NOT_JUDGED
    rules = {finding.rule for finding in run.findings}
    if found.mutant.trips in rules:
        return Fate.KILLED
    if rules:
        return Fate.BY_ANOTHER
    # A place that cannot play the scenario has not let the mutant live.
    if run.verdict in (Verdict.ERROR, Verdict.SKIP):
        return Fate.NOT_JUDGED
    return Fate.SURVIVED


def _detail(found: MutantRuns, became: Fate) -> str:
    match became:
        case Fate.WAITS:
            return f"for {found.mutant.waits_for}"
        case Fate.NOT_BUILT:
            return found.not_built
        case Fate.EQUIVALENT:
            return found.mutant.equivalent
        case Fate.BY_ANOTHER if found.mutant.equivalent:
            rules = ", ".join(found.rules)
            return f"by {rules}, though it is said to be equivalent"
        case Fate.BY_ANOTHER:
            return f"by {', '.join(found.rules)}"
        case Fate.NOT_JUDGED:
            notes = [n for run in found.runs.values() for n in run.notes]
            return notes[0] if notes else "no run"
    return ""
