# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p watch``: see a migration of QEMUs that run already."""

from __future__ import annotations

import argparse
import sys

from vfio_p2p.cli import attaching, options
from vfio_p2p.cli.context import Context
from vfio_p2p.cli.host_where import where
from vfio_p2p.plans.attach import (
    AttachRequest,
    XmlRequest,
    list_qemus,
    record,
    xml_for_destination,
)
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
    parser.add_argument(
        "--destination-xml",
        action="store_true",
        help="print the XML with which libvirt starts the source's domain on "
        "the destination with trace events on, for 'virsh migrate --xml', "
        "and end; the XML contains passwords, if the domain has some",
    )
    parser.set_defaults(request=request, run=run)


def request(
    args: argparse.Namespace,
) -> AttachRequest | XmlRequest | Where:
    """Read the arguments; a host alone is one whose QEMUs are listed."""
    if args.list:
        return where(args)
    if args.destination_xml:
        return XmlRequest(args.source, args.libvirt)
    return attaching.request(args)


def run(
    wanted: AttachRequest | XmlRequest | Where, context: Context
) -> int:
    """Watch, and print what became of each migration."""
    if isinstance(wanted, Where):
        found = list_qemus(wanted)
        context.show("\n".join(attaching.table(found)) or "no QEMU runs here")
        return 0 if found else 4
    if isinstance(wanted, XmlRequest):
        context.show(xml_for_destination(wanted))
        return 0
    if sys.stdout is None or not sys.stdout.isatty():
        lines = attaching.ViewedLines(context.show)
        return record(wanted, lines).verdict.exit_code
    from vfio_p2p.cli.live_watch import live

    with live() as listener:
        return record(wanted, listener).verdict.exit_code
