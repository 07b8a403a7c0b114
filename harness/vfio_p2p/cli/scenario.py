# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p scenario``: list and show what can be run."""

from __future__ import annotations

import argparse

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.plans.scenarios import as_json, list_scenarios, show

FORMAT = 1


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``scenario``."""
    parser = commands.add_parser(
        "scenario",
        help=summary,
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
    options.add_json(listing)
    listing.set_defaults(request=options.no_request, run=_list)
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
    showing.set_defaults(request=_name, run=_show)


def _name(args: argparse.Namespace) -> str:
    name: str = args.name
    return name


def _list(wanted: None, context: Context) -> int:
    listed = list_scenarios()
    if context.json:
        context.show_json(
            {
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
        )
        return 0
    width = max(len(x.name) for x in listed)
    for each in listed:
        context.show(f"{each.name:{width}}  {each.summary}")
    return 0


def _show(wanted: str, context: Context) -> int:
    text = as_json(wanted) if context.json else show(wanted)
    context.show(text.rstrip("\n"))
    return 0
