# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge the base and every patch by the rules that hold at that point."""

from __future__ import annotations

from vfio_p2p.errors import UsageError
from vfio_p2p.plans.judging.patches import SCENARIOS, PatchRuns, judged
from vfio_p2p.plans.modes import ModeRequest, check_fixed
from vfio_p2p.plans.runs import (
    forget_reports,
    judge_trees,
    write_reports,
)
from vfio_p2p.plans.sources import choose, choose_variants
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.report.document import Document
from vfio_p2p.scenario.load import load
from vfio_p2p.variant import parse_tree


def validate_patches(
    request: ModeRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> Document:
    """Judge the base and every patch of the series.

    The bundles, ``report.json`` and ``junit.xml`` are left in the folder of
    the setting.

    :raise UsageError: When the base has no patches of ours.
    :raise InputError: When an option or the source is wrong.
    :raise BuildError: When a tree does not build.
    """
    setting = request.setting
    check_fixed("--per-patch", setting)
    workshop.check(setting)
    chosen = choose(request.origin, reporter, workshop)
    patches = chosen.base.patches
    if not patches:
        raise UsageError(
            f"{chosen.base.name} has no patches of ours to judge",
            "Leave out --per-patch to judge this QEMU as it is.",
        )
    names = ["base", *(f"patch-{n + 1}" for n in range(len(patches)))]
    variants = choose_variants(chosen, names, workshop)
    forget_reports(setting.out)
    made = judge_trees(
        chosen,
        [(tree, load(name)) for tree in variants for name in SCENARIOS],
        setting,
        reporter,
        workshop,
    )
    runs = tuple(result.run for result in made.results)
    document = Document.of(
        runs,
        qemu=made.version,
        base=chosen.base.name,
        origin=chosen.source.origin,
        patches=[
            judged(
                PatchRuns(
                    number=number,
                    subject=patches[number - 1].subject if number else "",
                    runs={
                        run.scenario: run
                        for run in runs
                        if parse_tree(run.variant).patches == number
                    },
                )
            )
            for number in range(len(patches) + 1)
        ],
    )
    write_reports(setting.out, document)
    return document
