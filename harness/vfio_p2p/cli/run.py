# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p run``: make one run and keep its bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.plans.single import RunRequest, run_one
from vfio_p2p.report.document import to_json
from vfio_p2p.report.formats import render


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``run``."""
    parser = commands.add_parser(
        "run",
        help=summary,
        description="Run one scenario with one QEMU, or from one QEMU to "
        "another one. In the sealed testbed the same inputs leave the same "
        "bundle, to the byte.",
        epilog="'vfio-p2p scenario list' lists the scenarios that come with "
        "the tool.",
    )
    parser.add_argument(
        "scenario", metavar="SCENARIO", help="a scenario's name or file"
    )
    options.add_origin(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--variant",
        default="patched",
        metavar="V",
        help="the tree to build and run (default: %(default)s)",
    )
    options.add_qemu(what, several=False)
    parser.add_argument(
        "--to",
        metavar="V|BASE:V|PATH|debian:VERSION",
        help="the QEMU of the destination, if it is another one: a variant of "
        "the same source, one of the source that Debian has for another "
        "base, as in v10.2:stock, or a QEMU as it is",
    )
    parser.add_argument(
        "--to-source",
        type=Path,
        metavar="DIR|TARBALL",
        help="with --to: the source of the destination's QEMU, if it is "
        "another one",
    )
    options.add_machine(parser)
    options.add_run(parser)
    options.add_p2p_gate(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="BUNDLE",
        help="where to leave the bundle: a folder, or a file named *.zip "
        "(default: out/VARIANT-SCENARIO-sSEED, or with --to "
        "out/VARIANT-to-VARIANT-SCENARIO-sSEED)",
    )
    options.add_json(parser)
    parser.set_defaults(request=request, run=run)


def request(args: argparse.Namespace) -> RunRequest:
    """Read the arguments."""
    return RunRequest(
        scenario=args.scenario,
        origin=options.origin(args),
        setting=options.setting(args),
        variant=args.qemu[-1] if args.qemu else args.variant,
        to=args.to,
        to_source=args.to_source,
        machine=args.machine,
        bundle=args.out,
        most_p2p_ms=args.fail_above_p2p,
    )


def run(wanted: RunRequest, context: Context) -> int:
    """Make the run, and print what it found."""
    with context.reporter() as reporter:
        document = run_one(wanted, reporter, context.workshop)
    if context.json:
        context.show(to_json(document).rstrip())
    else:
        context.show(render("table", document).rstrip())
        (made,) = document.runs
        context.show(f"bundle: {made.bundle}\ndigest: {made.digest}")
    return document.verdict.exit_code
