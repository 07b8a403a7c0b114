# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p demo``: the experiment that explains the series."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.cli.build import (
    add_source_arguments,
    choose_source,
    choose_variants,
)
from vfio_p2p.cli.device import driver_of, load_for
from vfio_p2p.cli.session import add_run_arguments, check_ready, judge_trees
from vfio_p2p.errors import UsageError
from vfio_p2p.machine.files import write_whole
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report import demo, machine, text
from vfio_p2p.report.demo import Arm
from vfio_p2p.report.model import Report
from vfio_p2p.report.picture import Panel, draw
from vfio_p2p.scenario.model import Peers

SCENARIO = "two-devices-with-traffic"

_KEPT = "patched"
# Prepare and main of one device, then of the next; two devices may migrate.
_BROKEN = "patched+one-pass"
_PICTURE = "demo.svg"


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``demo``."""
    parser = commands.add_parser(
        "demo",
        help="what the series is for, in ten lines and one picture",
        description="Migrate devices that send to one another, with the "
        "series and with the series but for its barrier across devices, and "
        "show what is lost.",
        epilog=f"The picture is DIR/{_PICTURE}. Exit code 0: with the "
        "barrier nothing was lost, and without it something was, which the "
        "rules caught.",
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--scenario",
        default=SCENARIO,
        metavar="S",
        help="a scenario whose devices have peers (default: %(default)s)",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    scenario = load_for(driver_of(args), args.scenario, args.profile)
    if all(device.peers is Peers.NONE for device in scenario.devices):
        raise UsageError(
            f"{scenario.name}: its devices do not send to one another",
            f"give a scenario with peers, such as {SCENARIO}",
        )
    check_ready(args)
    base, source = choose_source(args)
    variants = choose_variants(base, source, [_KEPT, _BROKEN])
    picture = args.out / _PICTURE
    # If we do not get to the end, no older picture is to look like ours.
    picture.unlink(missing_ok=True)
    report = judge_trees(
        base, source, [(tree, scenario) for tree in variants], args
    )
    found = [row.assessment for row in report.rows]
    if any(x.verdict is Verdict.ERROR or x.blackout_ns is None for x in found):
        # There is nothing to be drawn, nor to be compared.
        return _without_picture(report, args)
    arms = _arms(report)
    verdict = demo.verdict(*arms)
    write_whole(picture, draw([_panel(arm) for arm in arms]))
    if args.json:
        document = machine.as_json(report)
        document |= {"verdict": str(verdict), "picture": str(picture)}
        print(json.dumps(document, indent=2))
    else:
        print(demo.render(*arms))
        print(f"\nverdict: {verdict}\npicture: {picture}")
    return verdict.exit_code


def _without_picture(report: Report, args: argparse.Namespace) -> int:
    found = [row.assessment.verdict for row in report.rows]
    verdict = Verdict.FAIL
    if Verdict.ERROR in found:
        verdict = Verdict.ERROR
    elif found[0] is Verdict.INCONCLUSIVE:
        verdict = Verdict.INCONCLUSIVE
    if args.json:
        document = machine.as_json(report) | {"verdict": str(verdict)}
        print(json.dumps(document, indent=2))
    else:
        print(text.render(report))
    return verdict.exit_code


def _arms(report: Report) -> list[Arm]:
    return [
        Arm(row.variant, row.assessment, open_bundle(Path(row.bundle)))
        for row in report.rows
    ]


def _panel(arm: Arm) -> Panel:
    what = "With the barrier across devices"
    if arm.variant == _BROKEN:
        what = "Without it"
    return Panel(f"{what} ({arm.variant})", arm.bundle)
