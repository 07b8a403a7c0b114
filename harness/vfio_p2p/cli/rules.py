# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p rules``: list the rules that every run is judged by."""

from __future__ import annotations

import argparse

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.oracle import RULES
from vfio_p2p.report import rules


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``rules``."""
    parser = commands.add_parser(
        "rules",
        help=summary,
        description="List the rules that every run is judged by: the purpose "
        "of each, whose promise it is, and for which QEMU versions and "
        "devices it holds. 'validate --mutants' reports rules that nothing "
        "breaks.",
    )
    options.add_json(parser)
    parser.set_defaults(request=request, run=run)


def request(args: argparse.Namespace) -> None:
    """Return nothing, since there are no arguments."""


def run(wanted: None, context: Context) -> int:
    """Print the rules."""
    if context.json:
        context.show_json(rules.as_json(RULES))
    else:
        context.show(rules.render(RULES))
    return 0
