# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p validate --followups``: does each mend what it says?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.cli.build import build_all, choose_source
from vfio_p2p.cli.progress import display
from vfio_p2p.cli.session import (
    check_ready,
    forget_reports,
    judge_trees,
    write_reports,
)
from vfio_p2p.errors import BuildError, PatchError, UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.qemu import Source
from vfio_p2p.report import followups as report_followups
from vfio_p2p.report.followups import FollowupReport, Trial
from vfio_p2p.report.model import Row
from vfio_p2p.scenario.load import load
from vfio_p2p.series import (
    Base,
    Followup,
    Variant,
    load_followups,
    parse_variant,
)
from vfio_p2p.verdict.assess import Assessment, assess

_TREE = "patched"


def run(args: argparse.Namespace) -> int:
    """Judge all follow-ups of a base.

    :param args: Those of ``validate``.
    """
    check_ready(args)
    base, source = choose_source(args)
    wanted = [x for x in load_followups() if x.base == base.name]
    if not wanted:
        raise UsageError(
            f"{base.name} has no follow-ups",
            "qemu-patches/series.toml lists those that there are",
        )
    forget_reports(args.out)
    report = _judge(base, source, wanted, args)
    document = write_reports(
        args.out,
        report_followups.as_json(report),
        report_followups.as_junit(report),
    )
    print(document if args.json else report_followups.render(report))
    return report.verdict.exit_code


def _judge(
    base: Base,
    source: Source,
    followups: Sequence[Followup],
    args: argparse.Namespace,
) -> FollowupReport:
    control = parse_variant(base, _TREE)
    trees: dict[str, Variant] = {}
    failed: dict[str, str] = {}
    scenarios = {
        name: load(name) for x in followups for name in (*x.fixes, *x.keeps)
    }
    with display() as shown:
        build_all(source, [control], shown)
        for x in followups:
            try:
                tree = parse_variant(base, f"{_TREE}+{x.name}")
                build_all(source, [tree], shown)
            except (BuildError, PatchError) as err:
                failed[x.name] = err.what
            else:
                trees[x.name] = tree
    judged = judge_trees(
        base,
        source,
        [(control, scenario) for scenario in scenarios.values()]
        + [
            (trees[x.name], scenarios[name])
            for x in followups
            if x.name in trees
            for name in (*x.fixes, *x.keeps)
        ],
        args,
    )
    rows = {(row.variant, row.scenario): row for row in judged.rows}
    trials = []
    for x in followups:
        for name in (*x.fixes, *x.keeps):
            row = rows[control.name, name]
            tree_with = trees.get(x.name)
            trials.append(
                Trial(
                    x,
                    name,
                    control=row.assessment,
                    without=_without(row, x) if name in x.fixes else None,
                    mended=rows[tree_with.name, name].assessment
                    if tree_with
                    else None,
                    not_built=failed.get(x.name, ""),
                )
            )
    return FollowupReport(judged.qemu, base.name, trials)


def _without(row: Row, followup: Followup) -> Assessment:
    """A run without the follow-up, by what is due with it."""
    # Of one that could not be judged there is a bundle, too.
    if not row.bundle or row.assessment.verdict is Verdict.ERROR:
        return row.assessment
    return assess(open_bundle(Path(row.bundle)), followup.name)
