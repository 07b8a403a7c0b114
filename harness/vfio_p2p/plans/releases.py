# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge every release that Debian's archive has, as it was released."""

from __future__ import annotations

from vfio_p2p.errors import UsageError
from vfio_p2p.oracle.verdict import decided, worst
from vfio_p2p.plans.installed import choose_subject
from vfio_p2p.plans.modes import ModeRequest, check_fixed
from vfio_p2p.plans.runs import forget_reports, write_reports
from vfio_p2p.plans.setting import Origin
from vfio_p2p.plans.trees import (
    WholeTree,
    judged_trees,
    tree_cells,
    upstream_trees,
)
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.report.document import Document, common, with_tree
from vfio_p2p.scenario.load import load, names
from vfio_p2p.series import default_base, load_bases
from vfio_p2p.variant import DEBIAN, STOCK


def validate_releases(
    request: ModeRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> Document:
    """Run each scenario on each release as it is, without our series.

    These are the releases of the bases that have upstream's series, and the
    newest one in Debian, if it is newer.  If interrupted, the same call
    resumes where it stopped.

    :raise InputError: When an option is wrong.
    :raise BuildError: When a release does not build.
    """
    setting = request.setting
    check_fixed("--releases", setting)
    if request.origin.source or request.origin.base:
        raise UsageError(
            "--releases judges the releases that Debian has",
            "Leave out --source and --base.",
        )
    trees = _trees(request, reporter, workshop)
    forget_reports(setting.out)
    scenarios = {name: load(name) for name in names()}
    cells = tree_cells(trees, scenarios, setting.seed, reporter, workshop)
    results = workshop.run([*cells.values()], setting, reporter)
    judged = judged_trees(trees, dict(zip(cells, results, strict=True)))
    document = Document.of(
        [with_tree(run, tree.name) for tree, runs in judged for run in runs],
        qemu=common(tree.qemu for tree, _ in judged),
        base=common(tree.base for tree, _ in judged),
        origin=common(tree.origin for tree, _ in judged),
        verdict=worst(
            decided(run.verdict for run in runs) for _, runs in judged
        ),
        trees=[tree for tree, _ in judged],
    )
    write_reports(setting.out, document)
    return document


def _trees(
    request: ModeRequest, reporter: Reporter, workshop: Workshop
) -> list[WholeTree]:
    """Find all releases, the oldest first."""
    origin, setting = request.origin, request.setting
    ours = default_base()
    first = choose_subject(
        Origin(base=ours.name, refresh=origin.refresh),
        [STOCK],
        setting,
        reporter,
        workshop,
    )
    trees = [
        WholeTree(STOCK, ours.name, first),
        *upstream_trees([ours.name], origin, setting, reporter, workshop),
    ]
    newest = workshop.newest_release(reporter)
    if not any(base.covers(newest) for base in load_bases()):
        subject = choose_subject(
            Origin(), [f"{DEBIAN}{newest}"], setting, reporter, workshop
        )
        trees.append(WholeTree(STOCK, f"v{newest}", subject))
    return trees
