# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p validate --all``: every tree, scenario, mutant and rule."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from harness.build import Build, Source, find_source
from harness.cli import mutants
from harness.cli.build import build_all, choose_source
from harness.cli.progress import display
from harness.cli.session import (
    JSON,
    JUNIT,
    check_ready,
    forget_reports,
    row_of,
    run_cells,
    write_reports,
)
from harness.matrix import Cell
from harness.report import full as report_full
from harness.report.full import FullReport
from harness.report.model import Report
from harness.report.mutants import MutantReport
from harness.scenario.load import load, names
from harness.series import (
    Base,
    load_bases,
    load_mutants,
    parse_variant,
)
from harness.testbed.load import Program

_STOCK = "stock"


@dataclass(frozen=True)
class _Tree:
    """One tree that every scenario is run on.

    :param base: Its base.
    :param source: What it is made of.
    :param variant: Name of the variant.
    """

    base: Base
    source: Source
    variant: str

    @property
    def name(self) -> str:
        """Tells it from all the others."""
        return f"{self.base.name} {self.variant}"

    @property
    def prefix(self) -> str:
        """Of its bundles' names."""
        return f"{self.base.name}-"


def run(args: argparse.Namespace) -> int:
    """Judge everything.

    :param args: Those of ``validate``.
    """
    check_ready(args)
    trees = _trees(args)
    forget_reports(args.out)
    report = _judge(trees, args)
    document = write_reports(
        args.out, report_full.as_json(report), report_full.as_junit(report)
    )
    if args.json:
        print(document)
    else:
        print(report_full.render(report))
        print(f"bundles, {JSON} and {JUNIT}: {args.out}")
    return report.verdict.exit_code


def _trees(args: argparse.Namespace) -> list[_Tree]:
    """The source that is meant, and each QEMU that has upstream's series."""
    base, source = choose_source(args)
    trees = [_Tree(base, source, mutants.TREE if base.patches else _STOCK)]
    with display() as shown:
        for other in load_bases():
            if other.patches or other.name == base.name:
                continue
            found = find_source(
                None, other.qemu, shown.line("source"), refresh=args.refresh
            )
            trees.append(_Tree(other, found, _STOCK))
    return trees


def _judge(trees: list[_Tree], args: argparse.Namespace) -> FullReport:
    scenarios = {name: load(name) for name in names()}
    first = trees[0]
    ours = [
        mutant
        for mutant in load_mutants()
        if mutant.base == first.base.name and first.variant == mutants.TREE
    ]
    builds: dict[str, Build] = {}
    with display() as shown:
        for tree in trees:
            variant = parse_variant(tree.base, tree.variant)
            (builds[tree.name],) = build_all(tree.source, [variant], shown)
        built, failed = mutants.build_mutants(
            first.base, first.source, ours, shown
        )
    plain = {
        (tree.name, name): Cell(
            Program.of(builds[tree.name]), scenario, args.seed, tree.prefix
        )
        for tree in trees
        for name, scenario in scenarios.items()
    }
    tried = mutants.cells(ours, built, scenarios, args.seed, first.prefix)
    runs = run_cells([*plain.values(), *tried.values()], args)
    found = dict(zip([*plain, *tried], runs, strict=True))
    return FullReport(
        trees={
            tree.name: Report(
                qemu=builds[tree.name].version,
                base=tree.base.name,
                origin=tree.source.origin,
                rows=tuple(row_of(found[tree.name, x]) for x in scenarios),
            )
            for tree in trees
        },
        mutants=MutantReport(
            qemu=builds[first.name].version,
            base=first.base.name,
            control={},
            trials=mutants.trials(
                ours, failed, {key: found[key] for key in tried}
            ),
        )
        if ours
        else None,
    )
