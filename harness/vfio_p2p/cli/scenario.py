# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p scenario``: list and show what can be run."""

from __future__ import annotations

import argparse
import json

from vfio_p2p.plans.scenarios import as_json, list_scenarios, show

FORMAT = 1


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``scenario``."""
    parser = commands.add_parser(
        "scenario",
        help="the scenarios: list, show",
        description="The scenarios that come with the program, and those in "
        "files of your own.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser(
        "list",
        help="list the scenarios that come with the program",
        description="List the scenarios that come with the program, each "
        "with its summary.",
    )
    listing.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    listing.set_defaults(run=_list)
    showing = actions.add_parser(
        "show",
        help="print a scenario as a file that can be edited and run",
        description="Print a scenario as TOML.  Save it to a file, edit it, "
        "and give 'vfio-p2p run' the file's path.",
    )
    showing.add_argument(
        "name",
        metavar="NAME",
        help="the name of a scenario, the path of a file, or PATH:CASE",
    )
    showing.add_argument(
        "--json",
        action="store_true",
        help="print the scenario as one JSON document, with all defaults",
    )
    showing.set_defaults(run=_show)


def _list(args: argparse.Namespace) -> int:
    listed = list_scenarios()
    if args.json:
        document = {
            "format": FORMAT,
            "scenarios": [
                {
                    "name": x.name,
                    "summary": x.summary,
                    "file": str(x.file),
                    "case": x.case or None,
                }
                for x in listed
            ],
        }
        print(json.dumps(document, indent=2))
        return 0
    width = max(len(x.name) for x in listed)
    for each in listed:
        print(f"{each.name:{width}}  {each.summary}")
    return 0


def _show(args: argparse.Namespace) -> int:
    text = as_json(args.name) if args.json else show(args.name)
    print(text.rstrip("\n"))
    return 0
