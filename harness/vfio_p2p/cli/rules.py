# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p rules``: the rules that every run is judged by."""

from __future__ import annotations

import argparse
import json

from vfio_p2p.oracle import RULES
from vfio_p2p.report import rules


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``rules``."""
    parser = commands.add_parser(
        "rules",
        help="what is promised, and how it is seen to hold",
        description="List the rules that every run is judged by: what for, "
        "whose promise it is, and for which QEMU versions and devices it "
        "holds. 'validate --mutants' says which of them nothing breaks.",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.json:
        print(json.dumps(rules.as_json(RULES), indent=2))
    else:
        print(rules.render(RULES))
    return 0
