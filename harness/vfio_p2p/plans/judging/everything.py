# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything at once: all trees, all scenarios, all mutants, all rules."""

from __future__ import annotations

from collections.abc import Sequence

from vfio_p2p.oracle.verdict import Verdict, decided, worst
from vfio_p2p.plans.judging import mutants as judging
from vfio_p2p.plans.judging.mutants import MutantRuns
from vfio_p2p.report.document import (
    Document,
    common,
    unbroken,
    with_tree,
)
from vfio_p2p.report.run import Run
from vfio_p2p.report.sections import JudgedTree


def document(
    trees: Sequence[tuple[JudgedTree, Sequence[Run]]],
    mutants: Sequence[MutantRuns],
) -> Document:
    """Make the report of 'validate --all'.

    Runs that the place cannot make do not count.  A rule that neither a
    mutant nor a scenario breaks is a failure.  Without any mutant it is open
    whether the rules can be broken at all, so that the verdict is at best
    inconclusive.

    :param trees: The trees, each with its runs of all scenarios.
    :param mutants: The mutants, of which these trees are the control; none
        if the base has none.
    """
    runs = [
        with_tree(run, tree.name) for tree, found in trees for run in found
    ]
    trials = [judging.trial(one) for one in mutants]
    verdicts = [
        decided(run.verdict for run in found) for _, found in trees
    ]
    unproven: list[str] = []
    if mutants:
        verdicts.append(judging.verdict(trials, (), ()))
        unproven = unbroken(runs, judging.broken_by(mutants))
    else:
        verdicts.append(Verdict.INCONCLUSIVE)
    # A run that was not made might have broken the rule.
    if unproven and Verdict.ERROR not in verdicts:
        verdicts.append(Verdict.FAIL)
    return Document.of(
        runs,
        qemu=common(tree.qemu for tree, _ in trees),
        base=common(tree.base for tree, _ in trees),
        origin=common(tree.origin for tree, _ in trees),
        verdict=worst(verdicts),
        unproven=unproven,
        trees=[tree for tree, _ in trees],
        mutants=trials,
    )
