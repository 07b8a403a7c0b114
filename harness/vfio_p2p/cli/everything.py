# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p validate --all``: every tree, scenario, mutant and rule."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from vfio_p2p.cli import mutants
from vfio_p2p.cli.build import build_all, choose_source
from vfio_p2p.cli.progress import display
from vfio_p2p.cli.session import (
    JSON,
    JUNIT,
    check_ready,
    forget_reports,
    row_of,
    run_cells,
    write_reports,
)
from vfio_p2p.plans.matrix import Cell
from vfio_p2p.qemu import Build, Source, find_source
from vfio_p2p.qemu.program import Program
from vfio_p2p.report import everything as report_everything
from vfio_p2p.report.everything import EverythingReport
from vfio_p2p.report.model import Report
from vfio_p2p.report.mutants import MutantReport
from vfio_p2p.scenario.load import load, names
from vfio_p2p.series import (
    Base,
    load_bases,
    load_mutants,
    parse_variant,
)

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
        args.out,
        report_everything.as_json(report),
        report_everything.as_junit(report),
    )
    if args.json:
        print(document)
    else:
        print(report_everything.render(report))
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


def _judge(trees: list[_Tree], args: argparse.Namespace) -> EverythingReport:
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
    return EverythingReport(
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
