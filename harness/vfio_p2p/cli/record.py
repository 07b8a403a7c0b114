# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p record``: keep the migrations of QEMUs that run already."""

from __future__ import annotations

from vfio_p2p.cli import attaching, options
from vfio_p2p.cli.attaching import Lines
from vfio_p2p.cli.context import Context
from vfio_p2p.plans.attach import AttachRequest, record


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``record``."""
    parser = commands.add_parser(
        "record",
        help=summary,
        description="Attach to one or two QEMUs that somebody else started, "
        "wait for migrations, and leave a bundle of each. Trace events are "
        "switched on, and put back at the end; nothing else is changed. A "
        "monitor that another client holds is not touched.",
    )
    attaching.add_targets(parser)
    attaching.add_recording(parser)
    parser.set_defaults(request=attaching.request, run=run)


def run(wanted: AttachRequest, context: Context) -> int:
    """Record, and print a line for each migration."""
    return record(wanted, Lines(context.show)).verdict.exit_code
