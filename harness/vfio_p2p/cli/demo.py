# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p demo``: the experiment that explains the series."""

from __future__ import annotations

import argparse

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.plans.demo import PICTURE, SCENARIO, DemoRequest, demonstrate
from vfio_p2p.report.document import to_json
from vfio_p2p.report.formats import render


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``demo``."""
    parser = commands.add_parser(
        "demo",
        help=summary,
        description="Migrate devices that send to one another, with the "
        "series and with the series without its barrier across devices, and "
        "show which transactions are lost.",
        epilog=f"The picture is DIR/{PICTURE}. Exit code 0: nothing was lost "
        "with the barrier, and something was lost without it, which the "
        "rules caught.",
    )
    options.add_origin(parser)
    parser.add_argument(
        "--scenario",
        default=SCENARIO,
        metavar="S",
        help="a scenario whose devices have peers (default: %(default)s)",
    )
    options.add_setting(parser)
    options.add_json(parser)
    parser.set_defaults(request=request, run=run)


def request(args: argparse.Namespace) -> DemoRequest:
    """Read the arguments."""
    return DemoRequest(
        options.origin(args), options.setting(args), args.scenario
    )


def run(wanted: DemoRequest, context: Context) -> int:
    """Make the experiment, and print what was lost."""
    with context.reporter() as reporter:
        document = demonstrate(wanted, reporter, context.workshop)
    if context.json:
        context.show(to_json(document).rstrip())
    else:
        context.show(render("table", document).rstrip())
    return document.verdict.exit_code
