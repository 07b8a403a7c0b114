# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge every tree, scenario, mutant and rule."""

from __future__ import annotations

from vfio_p2p.plans.judging import everything as judging
from vfio_p2p.plans.lacking import check_abilities
from vfio_p2p.plans.modes import ModeRequest, check_fixed
from vfio_p2p.plans.mutants import build_mutants, mutant_cells, mutant_runs
from vfio_p2p.plans.runs import forget_reports, write_reports
from vfio_p2p.plans.sources import TREE, PatchedBuilds
from vfio_p2p.plans.trees import (
    choose_tree,
    judged_trees,
    tree_cells,
    upstream_trees,
)
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.report.document import Document
from vfio_p2p.scenario.load import load, names
from vfio_p2p.series import load_mutants


def validate_everything(
    request: ModeRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> Document:
    """Run each scenario on the patched tree and on each QEMU that has
    upstream's series, judge each mutant, and see that each rule is broken by
    something.

    If interrupted, the same call resumes where it stopped.  The bundles,
    ``report.json`` and ``junit.xml`` are left in the folder of the setting.

    :raise InputError: When an option or the source is wrong.
    :raise BuildError: When a tree does not build.
    """
    setting = request.setting
    check_fixed("--all", setting)
    first = choose_tree(request.origin, setting, reporter, workshop)
    trees = [
        first,
        *upstream_trees(
            [first.base], request.origin, setting, reporter, workshop
        ),
    ]
    forget_reports(setting.out)
    scenarios = {name: load(name) for name in names()}
    plain = tree_cells(trees, scenarios, setting.seed, reporter, workshop)
    chosen = first.subject.chosen
    ours = [
        mutant
        for mutant in load_mutants()
        if mutant.base == first.base and first.variant == TREE
    ]
    built = PatchedBuilds({}, {})
    if chosen:
        built = build_mutants(chosen, ours, reporter, workshop)
    tried = mutant_cells(
        ours, built, scenarios, setting.seed, workshop, first.prefix
    )
    check_abilities([cell.job for cell in tried.values()], workshop)
    results = workshop.run(
        [*plain.values(), *tried.values()], setting, reporter
    )
    found = dict(zip([*plain, *tried], results, strict=True))
    document = judging.document(
        judged_trees(trees, found),
        mutant_runs(ours, built, {key: found[key] for key in tried}),
    )
    write_reports(setting.out, document)
    return document
