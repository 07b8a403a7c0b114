# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge every tree, scenario, mutant and rule."""

from __future__ import annotations

from dataclasses import dataclass

from vfio_p2p.plans.judging import everything as judging
from vfio_p2p.plans.matrix import Cell
from vfio_p2p.plans.modes import ModeRequest, check_fixed
from vfio_p2p.plans.mutants import build_mutants, mutant_cells, mutant_runs
from vfio_p2p.plans.runs import (
    forget_reports,
    job_of,
    write_reports,
)
from vfio_p2p.plans.setting import Origin
from vfio_p2p.plans.sources import TREE, Chosen, build_all, choose
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.report.document import Document
from vfio_p2p.report.sections import JudgedTree
from vfio_p2p.scenario.load import load, names
from vfio_p2p.series import load_bases, load_mutants, parse_variant

_STOCK = "stock"


@dataclass(frozen=True)
class _Tree:
    """A tree that every scenario is run on.

    :param chosen: Its source and base.
    :param variant: The name of the variant.
    """

    chosen: Chosen
    variant: str

    @property
    def name(self) -> str:
        """A name that no other tree has."""
        return f"{self.chosen.base.name} {self.variant}"

    @property
    def prefix(self) -> str:
        """The beginning of the names of the tree's bundles."""
        return f"{self.chosen.base.name}-"


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
    workshop.check(setting)
    trees = _trees(request.origin, reporter, workshop)
    forget_reports(setting.out)
    scenarios = {name: load(name) for name in names()}
    first = trees[0]
    ours = [
        mutant
        for mutant in load_mutants()
        if mutant.base == first.chosen.base.name and first.variant == TREE
    ]
    builds = {}
    for tree in trees:
        variant = parse_variant(tree.chosen.base, tree.variant)
        (builds[tree.name],) = build_all(
            tree.chosen.source, [variant], reporter, workshop
        )
    built = build_mutants(first.chosen, ours, reporter, workshop)
    plain = {
        (tree.name, name): Cell(
            job_of(builds[tree.name], scenario, setting.seed, workshop),
            tree.prefix,
        )
        for tree in trees
        for name, scenario in scenarios.items()
    }
    tried = mutant_cells(
        ours, built, scenarios, setting.seed, workshop, first.prefix
    )
    results = workshop.run(
        [*plain.values(), *tried.values()], setting, reporter
    )
    found = dict(zip([*plain, *tried], results, strict=True))
    document = judging.document(
        [
            (
                JudgedTree(
                    name=tree.name,
                    qemu=builds[tree.name].version,
                    base=tree.chosen.base.name,
                    origin=tree.chosen.source.origin,
                ),
                [found[tree.name, name].run for name in scenarios],
            )
            for tree in trees
        ],
        mutant_runs(ours, built, {key: found[key] for key in tried}),
    )
    write_reports(setting.out, document)
    return document


def _trees(
    origin: Origin, reporter: Reporter, workshop: Workshop
) -> list[_Tree]:
    """Find the chosen source, and each QEMU with upstream's series."""
    chosen = choose(origin, reporter, workshop)
    trees = [_Tree(chosen, TREE if chosen.base.patches else _STOCK)]
    for other in load_bases():
        if other.patches or other.name == chosen.base.name:
            continue
        source = workshop.find_source(
            None,
            other.qemu,
            reporter.task("source"),
            refresh=origin.refresh,
        )
        trees.append(_Tree(Chosen(other, source), _STOCK))
    return trees
