# SPDX-License-Identifier: GPL-2.0-or-later
"""Build, run, judge: what the commands that judge trees have in common."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.build import Source
from harness.bundle.write import claimed
from harness.cli.build import build_all
from harness.cli.common import add_seed_arguments, positive
from harness.cli.device import (
    add_device_argument,
    add_profile_argument,
    check_qemu,
    driver_of,
)
from harness.cli.progress import display
from harness.matrix import Cell, Run, run_matrix
from harness.report.model import Report, Row
from harness.scenario.model import Scenario
from harness.scenario.profile import latencies
from harness.series import Base, Variant
from harness.testbed.image import get_image
from harness.testbed.load import Program
from harness.testbed.outer import Outer, find_outer
from harness.testbed.sealed import Testbed

OUT = Path("out")


@dataclass(frozen=True)
class Wanted:
    """One run to make of a tree that is yet to be built.

    :param variant: The tree.
    :param scenario: What is to happen.
    :param seed: Fixes the rest.
    :param suffix: As of `harness.matrix.Cell`.
    """

    variant: Variant
    scenario: Scenario
    seed: int
    suffix: str = ""


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to run, as `judge_trees` reads them."""
    add_device_argument(parser)
    add_profile_argument(parser)
    add_seed_arguments(parser)
    parser.add_argument(
        "--jobs",
        type=positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="sealed runs at a time (default: one for each core)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=OUT,
        metavar="DIR",
        help="folder for bundles and reports (default: %(default)s)",
    )


def judge_trees(
    base: Base,
    source: Source,
    cells: Sequence[tuple[Variant, Scenario]],
    args: argparse.Namespace,
) -> Report:
    """Build every tree, run every cell, and judge what comes of it.

    :param base: Base of the variants.
    :param source: What the variants are made of.
    :param cells: Which variant runs which scenario.
    :param args: With the options of `add_run_arguments`.
    :return: One row for each cell, in the same order.
    """
    wanted = [Wanted(tree, scenario, args.seed) for tree, scenario in cells]
    runs, version = run_trees(source, wanted, args)
    return Report(
        qemu=version,
        base=base.name,
        origin=source.origin,
        rows=tuple(map(_row, runs)),
    )


def run_trees(
    source: Source,
    cells: Sequence[Wanted],
    args: argparse.Namespace,
) -> tuple[list[Run], str]:
    """Build every tree and run every cell.

    :param source: What the variants are made of.
    :param cells: What to run.
    :param args: With the options of `add_run_arguments`.
    :return: One run for each cell, in the same order, and the version that
        QEMU says it is.
    """
    outer = find_outer()
    check_qemu(driver_of(args), source.version)
    with display() as shown:
        line = shown.line("runs")
        waiting = partial(line, 0, 0, "waiting for another vfio-p2p")
        with claimed(args.out, waiting):
            return _run_trees(outer, source, cells, args)


def _run_trees(
    outer: Outer,
    source: Source,
    cells: Sequence[Wanted],
    args: argparse.Namespace,
) -> tuple[list[Run], str]:
    variants = {cell.variant.name: cell.variant for cell in cells}
    with display() as shown:
        builds = {
            build.variant: build
            for build in build_all(source, list(variants.values()), shown)
        }
        line = shown.line("testbed")
        testbed = Testbed(outer, get_image(line, driver_of(args)))
        line.end("ready")
        line = shown.line("runs")
        runs = asyncio.run(
            run_matrix(
                testbed,
                [
                    Cell(
                        Program.of(builds[cell.variant.name]),
                        cell.scenario,
                        cell.seed,
                        cell.suffix,
                    )
                    for cell in cells
                ],
                args.out,
                args.jobs,
                line,
                rerun=args.rerun,
            )
        )
        line.end("done")
    return runs, next(iter(builds.values())).version


def _row(run: Run) -> Row:
    return Row(
        variant=run.cell.program.variant,
        scenario=run.cell.scenario.name,
        seed=run.cell.seed,
        assessment=run.assessment,
        bundle=str(run.bundle or ""),
        digest=run.digest,
        latencies=latencies(run.cell.scenario),
    )
