# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p run``: one scenario, one sealed run, one bundle."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from vfio_p2p.bundle.write import check_replaceable, claimed, pack
from vfio_p2p.cli.build import (
    add_source_arguments,
    build_all,
    choose_source,
    choose_variants,
)
from vfio_p2p.cli.common import add_seed_arguments
from vfio_p2p.cli.device import (
    add_device_argument,
    add_profile_argument,
    check_qemu,
    driver_of,
    load_for,
)
from vfio_p2p.cli.progress import display
from vfio_p2p.cli.record import add_history_argument, recording
from vfio_p2p.machine.files import remove_tree
from vfio_p2p.places import CachedPlace, Job, open_place
from vfio_p2p.qemu.program import KnownPrograms, Program
from vfio_p2p.report import machine, text
from vfio_p2p.report.model import Report, Row
from vfio_p2p.scenario.load import names
from vfio_p2p.scenario.profile import latencies
from vfio_p2p.verdict.assess import assess


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``run``."""
    parser = commands.add_parser(
        "run",
        help="run one scenario, sealed, and keep its bundle",
        description="Run one scenario with one QEMU in the sealed testbed. "
        "The same inputs leave the same bundle, to the byte.",
        epilog=f"Scenarios that come with the tool: {', '.join(names())}.",
    )
    parser.add_argument(
        "scenario", metavar="SCENARIO", help="a scenario's name or file"
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--variant",
        default="patched",
        metavar="V",
        help="the tree to build and run (default: %(default)s)",
    )
    add_device_argument(parser)
    add_profile_argument(parser)
    add_seed_arguments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="BUNDLE",
        help="where to leave the bundle: a folder, or a file named *.zip "
        "(default: out/VARIANT-SCENARIO-sSEED)",
    )
    add_history_argument(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    driver = driver_of(args)
    scenario = load_for(driver, args.scenario, args.profile)
    programs = KnownPrograms()
    place = CachedPlace(
        open_place("sealed", driver=driver, programs=programs),
        rerun=args.rerun,
    )
    place.check()
    base, source = choose_source(args)
    check_qemu(driver, source.version)
    (variant,) = choose_variants(base, source, [args.variant])
    out = args.out or Path(
        "out", f"{variant.name}-{scenario.name}-s{args.seed}"
    )
    check_replaceable(out)
    zipped = out.suffix == ".zip"
    folder = out.with_name(f".{out.name}.folder") if zipped else out
    with recording(args.history) as record:
        with display() as shown:
            (made,) = build_all(source, [variant], shown)
            line = shown.line("testbed")
            place.prepare(line)
            line.end("ready")
        with claimed(out.parent):
            try:
                what = programs.add(Program.of(made))
                bundle = asyncio.run(
                    place.run(Job.of(what, scenario, args.seed), folder)
                )
                if zipped:
                    pack(bundle, out)
            finally:
                if zipped:
                    remove_tree(folder)
        assessment = assess(bundle)
        record(bundle, assessment.verdict)
    report = Report(
        qemu=made.version,
        base=base.name,
        origin=source.origin,
        rows=(
            Row(
                variant=variant.name,
                scenario=scenario.name,
                seed=args.seed,
                assessment=assessment,
                bundle=str(out),
                digest=bundle.digest,
                latencies=latencies(bundle.scenario),
            ),
        ),
    )
    if args.json:
        print(json.dumps(machine.as_json(report), indent=2))
    else:
        print(text.render(report))
        print(f"bundle: {out}\ndigest: {bundle.digest}")
    return report.verdict.exit_code
