# SPDX-License-Identifier: GPL-2.0-or-later
"""Build, run, judge: what the commands that judge trees have in common."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vfio_p2p.bundle.write import claimed
from vfio_p2p.cli.build import build_all
from vfio_p2p.cli.common import add_seed_arguments, positive, seeds_of
from vfio_p2p.cli.device import (
    add_device_argument,
    add_profile_argument,
    check_qemu,
    driver_of,
)
from vfio_p2p.cli.progress import display
from vfio_p2p.cli.record import (
    add_history_argument,
    check_history,
    recording,
)
from vfio_p2p.machine.files import write_whole
from vfio_p2p.places import CachedPlace, open_place
from vfio_p2p.places.sealed.outer import find_outer
from vfio_p2p.plans.matrix import Cell, Run, run_matrix
from vfio_p2p.qemu import Source
from vfio_p2p.qemu.program import KnownPrograms, Program
from vfio_p2p.report.model import Report, Row
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.profile import latencies
from vfio_p2p.series import Base, Variant

OUT = Path("out")
JSON = "report.json"
JUNIT = "junit.xml"


@dataclass(frozen=True)
class Wanted:
    """One run to make of a tree that is yet to be built.

    :param variant: The tree.
    :param scenario: What is to happen.
    :param seed: Fixes the rest.
    :param suffix: As of `vfio_p2p.plans.matrix.Cell`.
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
    add_history_argument(parser)


def check_ready(args: argparse.Namespace) -> None:
    """See that what is run can be run, and kept, before anything is built.

    :param args: With the options of `add_run_arguments`.
    :raise InputError: When it cannot.
    """
    seeds_of(args)
    find_outer()
    check_history(args.history)


def forget_reports(folder: Path) -> None:
    """If we do not get to the end, no older report is to look like ours.

    :param folder: Where `write_reports` writes to.
    """
    for name in (JSON, JUNIT):
        (folder / name).unlink(missing_ok=True)


def write_reports(folder: Path, document: dict[str, Any], junit: str) -> str:
    """Write a report for programs, and the same as JUnit's.

    :param folder: Where to.
    :param document: The report.
    :param junit: The same.
    :return: The report as JSON.
    """
    text = json.dumps(document, indent=2)
    write_whole(folder / JSON, f"{text}\n".encode())
    write_whole(folder / JUNIT, junit.encode())
    return text


def judge_trees(
    base: Base,
    source: Source,
    cells: Sequence[tuple[Variant, Scenario]],
    args: argparse.Namespace,
) -> Report:
    """Build every tree, run every cell with every seed, and judge them.

    :param base: Base of the variants.
    :param source: What the variants are made of.
    :param cells: Which variant runs which scenario.
    :param args: With the options of `add_run_arguments`.
    :return: One row for each cell and seed, in the same order.
    """
    wanted = [
        Wanted(tree, scenario, seed)
        for tree, scenario in cells
        for seed in seeds_of(args)
    ]
    runs, version = run_trees(source, wanted, args)
    return Report(
        qemu=version,
        base=base.name,
        origin=source.origin,
        rows=tuple(map(row_of, runs)),
    )


def run_trees(
    source: Source,
    cells: Sequence[Wanted],
    args: argparse.Namespace,
) -> tuple[list[Run], str]:
    """Build every tree and run every cell, once `check_ready` is content.

    :param source: What the variants are made of.
    :param cells: What to run.
    :param args: With the options of `add_run_arguments`.
    :return: One run for each cell, in the same order, and the version that
        QEMU says it is.
    """
    check_qemu(driver_of(args), source.version)
    variants = {cell.variant.name: cell.variant for cell in cells}
    with display() as shown:
        builds = {
            build.variant: build
            for build in build_all(source, list(variants.values()), shown)
        }
    runs = run_cells(
        [
            Cell(
                Program.of(builds[cell.variant.name]),
                cell.scenario,
                cell.seed,
                suffix=cell.suffix,
            )
            for cell in cells
        ],
        args,
    )
    return runs, next(iter(builds.values())).version


def run_cells(cells: Sequence[Cell], args: argparse.Namespace) -> list[Run]:
    """Run what is built.

    :param cells: What to run.
    :param args: With the options of `add_run_arguments`.
    :return: One run for each cell, in the same order.
    """
    place = CachedPlace(
        open_place(
            "sealed",
            driver=driver_of(args),
            programs=KnownPrograms(cell.program for cell in cells),
        ),
        rerun=args.rerun,
    )
    with display() as shown:
        line = shown.line("runs")
        waiting = partial(line, 0, 0, "waiting for another vfio-p2p")
        with (
            recording(args.history) as record,
            claimed(args.out, waiting),
        ):
            image_line = shown.line("testbed")
            place.prepare(image_line)
            image_line.end("ready")
            runs = asyncio.run(
                run_matrix(
                    place,
                    cells,
                    args.out,
                    args.jobs,
                    line,
                    record=record,
                )
            )
        line.end("done")
    return runs


def row_of(run: Run) -> Row:
    """A run as the reports show it."""
    return Row(
        variant=run.cell.program.what.variant,
        scenario=run.cell.scenario.name,
        seed=run.cell.seed,
        assessment=run.assessment,
        bundle=str(run.bundle or ""),
        digest=run.digest,
        latencies=latencies(run.cell.scenario),
    )
