# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees of several QEMU releases, for the modes that judge them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from vfio_p2p.plans.installed import UnderTest, choose_subject
from vfio_p2p.plans.matrix import Cell, CellResult
from vfio_p2p.plans.runs import Wanted, jobs_of
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.workshop import Workshop
from vfio_p2p.progress import Reporter
from vfio_p2p.report.run import Run
from vfio_p2p.report.sections import JudgedTree
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import load_bases


@dataclass(frozen=True)
class WholeTree:
    """A tree that every scenario is run on.

    :param variant: The name of its variant.
    :param base: The name of its base.
    :param subject: Its QEMU.
    """

    variant: str
    base: str
    subject: UnderTest

    @property
    def name(self) -> str:
        """A name that no other tree has."""
        return f"{self.base} {self.variant}"

    @property
    def prefix(self) -> str:
        """The beginning of the names of the tree's bundles."""
        return f"{self.base}-"


def choose_tree(
    origin: Origin, setting: Setting, reporter: Reporter, workshop: Workshop
) -> WholeTree:
    """Find the tree with the whole series, ours or else upstream's.

    :param origin: Names its source.
    :param setting: Where it runs.
    :param reporter: Told of the download of the source, if there is one.
    :param workshop: Finds it.
    :raise InputError: When an option or the source is wrong.
    """
    subject = choose_subject(origin, (), setting, reporter, workshop)
    name, variant = list(subject.named.items())[-1]
    whole = replace(subject, variants=(variant,))
    return WholeTree(name, subject.base, whole)


def upstream_trees(
    known: Iterable[str],
    origin: Origin,
    setting: Setting,
    reporter: Reporter,
    workshop: Workshop,
) -> list[WholeTree]:
    """Find the QEMU of each base that is judged as it is.

    :param known: The names of bases that are not wanted.
    :param origin: Says whether newer sources are looked for.
    :param setting: Where they run.
    :param reporter: Told of downloads.
    :param workshop: Finds them.
    """
    without = set(known)
    return [
        choose_tree(
            Origin(base=base.name, refresh=origin.refresh),
            setting,
            reporter,
            workshop,
        )
        for base in load_bases()
        if base.as_it_is and base.name not in without
    ]


def tree_cells(
    trees: Iterable[WholeTree],
    scenarios: Mapping[str, Scenario],
    seed: int,
    reporter: Reporter,
    workshop: Workshop,
) -> dict[tuple[str, str], Cell]:
    """Build all trees, and list their runs by tree and scenario.

    :param trees: The trees.
    :param scenarios: The scenarios by name.
    :param seed: The seed of the runs.
    :param reporter: Told how far each build is.
    :param workshop: Builds them.
    :raise BuildError: When a tree does not build.
    """
    cells = {}
    for tree in trees:
        subject = tree.subject
        (variant,) = subject.variants
        jobs = jobs_of(
            subject.chosen,
            subject.as_they_are,
            [Wanted(variant, x, seed) for x in scenarios.values()],
            reporter,
            workshop,
        )
        for name, job in zip(scenarios, jobs, strict=True):
            cells[tree.name, name] = Cell(job, tree.prefix)
    return cells


def judged_trees(
    trees: Iterable[WholeTree], results: Mapping[tuple[str, str], CellResult]
) -> list[tuple[JudgedTree, list[Run]]]:
    """Collect the runs of each tree, for a report.

    :param trees: The trees.
    :param results: The results of `tree_cells`, by the same keys; others
        are left out.
    """
    found = []
    for tree in trees:
        of_tree = [x for key, x in results.items() if key[0] == tree.name]
        judged = JudgedTree(
            name=tree.name,
            qemu=of_tree[0].cell.job.source.version,
            base=tree.base,
            origin=tree.subject.origin,
        )
        found.append((judged, [x.run for x in of_tree]))
    return found
