# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p watch``: see a migration of QEMUs that run already."""

from __future__ import annotations

import argparse
import sys

from vfio_p2p.cli import attaching, options
from vfio_p2p.cli.context import Context
from vfio_p2p.cli.host_where import where
from vfio_p2p.plans.attach import AttachRequest, list_qemus, record
from vfio_p2p.plans.host.where import Where


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``watch``."""
    parser = commands.add_parser(
        "watch",
        help=summary,
        description="As 'vfio-p2p record', and show what happens: run "
        "states, the status of the migration, the state of each device, and "
        "what is left to send. On a terminal the display is live.",
    )
    attaching.add_targets(parser)
    attaching.add_recording(parser)
    parser.add_argument(
        "--list",
        action="store_true",
        help="list the QEMUs of the source's host, and end",
    )
    parser.set_defaults(request=request, run=run)


def request(args: argparse.Namespace) -> AttachRequest | Where:
    """Read the arguments; a host alone is one whose QEMUs are listed."""
    if args.list:
        return where(args)
    return attaching.request(args)


def run(wanted: AttachRequest | Where, context: Context) -> int:
    """Watch, and print what became of each migration."""
    if isinstance(wanted, Where):
        found = list_qemus(wanted)
        context.show("\n".join(attaching.table(found)) or "no QEMU runs here")
        return 0 if found else 4
    if not sys.stdout.isatty():
        lines = attaching.ViewedLines(context.show)
        return record(wanted, lines).verdict.exit_code
    from vfio_p2p.cli.live_watch import live

    with live() as listener:
        return record(wanted, listener).verdict.exit_code
