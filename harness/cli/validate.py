# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p validate``: the main job."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

from harness.cli.build import (
    DEFAULT_VARIANTS,
    add_source_arguments,
    build_all,
    choose_source,
    choose_variants,
)
from harness.cli.common import add_seed_argument, positive, program_of
from harness.cli.progress import display
from harness.errors import UsageError
from harness.host.files import write_whole
from harness.matrix import Cell, Run, run_matrix
from harness.report import machine, text
from harness.report.model import Report, Row
from harness.scenario.load import load
from harness.scenario.model import Scenario
from harness.testbed.image import get_image
from harness.testbed.outer import find_outer
from harness.testbed.sealed import Testbed

SCENARIOS = ("one-device", "two-devices", "four-devices")
OUT = Path("out")

_JSON = "report.json"
_JUNIT = "junit.xml"


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``validate``."""
    parser = commands.add_parser(
        "validate",
        help="build, run the matrix, verdict, report",
        description="Build QEMU without and with the series, migrate one, "
        "two and four devices with each in the sealed testbed, and say "
        "whether the P2P order is kept and how long the blackout is.",
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--variant",
        action="append",
        metavar="V",
        help="stock, base, patch-1 to patch-6, patched, each with +MUTANT "
        "if wanted; may be repeated (default: base and patched)",
    )
    parser.add_argument(
        "--scenario",
        action="append",
        metavar="S",
        help="a scenario's name or file; may be repeated (default: "
        f"{', '.join(SCENARIOS)})",
    )
    add_seed_argument(parser)
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
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    # What can be wrong with the input is found before anything is built.
    scenarios = _scenarios(args.scenario or SCENARIOS)
    outer = find_outer()
    base, source = choose_source(args)
    variants = choose_variants(
        base, source, args.variant or DEFAULT_VARIANTS
    )
    for name in (_JSON, _JUNIT):
        # If we do not get to the end, no older report is to look like ours.
        (args.out / name).unlink(missing_ok=True)
    with display() as shown:
        builds = build_all(source, variants, shown)
        image_line = shown.line("testbed")
        testbed = Testbed(outer, get_image(image_line))
        image_line.end("ready")
        cells = [
            Cell(program_of(made), scenario, args.seed)
            for made in builds
            for scenario in scenarios
        ]
        line = shown.line("runs")
        runs = asyncio.run(
            run_matrix(testbed, cells, args.out, args.jobs, line)
        )
        line.end("done")
    report = Report(
        qemu=builds[0].version,
        base=base.name,
        origin=source.origin,
        rows=tuple(_row(one) for one in runs),
    )
    document = json.dumps(machine.as_json(report), indent=2)
    write_whole(args.out / _JSON, f"{document}\n".encode())
    write_whole(args.out / _JUNIT, machine.as_junit(report).encode())
    if args.json:
        print(document)
    else:
        print(text.render(report))
        print(f"bundles, {_JSON} and {_JUNIT}: {args.out}")
    return report.verdict.exit_code


def _scenarios(wanted: Sequence[str]) -> list[Scenario]:
    scenarios = [load(text) for text in dict.fromkeys(wanted)]
    names = [scenario.name for scenario in scenarios]
    for name in names:
        # Bundles are named after them.
        if names.count(name) > 1:
            raise UsageError(
                f"two scenarios are named {name!r}",
                "give each file a name of its own",
            )
    return scenarios


def _row(run: Run) -> Row:
    return Row(
        variant=run.cell.program.variant,
        scenario=run.cell.scenario.name,
        seed=run.cell.seed,
        assessment=run.assessment,
        bundle=str(run.bundle or ""),
        digest=run.digest,
    )
