# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p findings``: the defects that the suite found in QEMU."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import msgspec

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.defects.model import (
    Defect,
    Evidence,
    find_defect,
    load_defects,
)
from vfio_p2p.defects.texts import mail, section
from vfio_p2p.report.tables import table_lines
from vfio_p2p.series import load_followups


@dataclass(frozen=True)
class _Request:
    """What is to be printed.

    :param action: ``list``, ``show`` or ``mail``.
    :param number: The number of the finding; None for ``list``.
    """

    action: str
    number: int | None = None


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``findings``."""
    parser = commands.add_parser(
        "findings",
        help=summary,
        description="The defects that the suite found in QEMU's VFIO "
        "migration. Each is shown by a scenario, so that anybody can see it "
        "again, and has a mail that is ready to be sent.",
    )
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    for name, help_text in (
        ("list", "list them: severity, patch, and the releases that have it"),
        ("show", "print all that is known of one"),
        ("mail", "print a mail that reports one to QEMU's list"),
    ):
        action = actions.add_parser(name, help=help_text)
        if name != "list":
            action.add_argument(
                "number",
                metavar="N",
                type=options.positive,
                help="the number of the finding, as 'list' prints it",
            )
        if name != "mail":
            options.add_json(action)
        action.set_defaults(request=request, run=run)


def request(args: argparse.Namespace) -> _Request:
    """Read the arguments."""
    return _Request(args.action, getattr(args, "number", None))


def run(wanted: _Request, context: Context) -> int:
    """Print what is wanted."""
    if wanted.number is None:
        found = load_defects()
        if context.json:
            context.show_json(msgspec.to_builtins(found))
        else:
            context.show("\n".join(_table(found)))
        return 0
    defect = find_defect(wanted.number)
    if wanted.action == "mail":
        context.show(mail(defect, _patch(defect)).rstrip())
    elif context.json:
        context.show_json(msgspec.to_builtins(defect))
    else:
        context.show(section(defect))
    return 0


def _table(found: tuple[Defect, ...]) -> list[str]:
    return table_lines(
        ("#", "finding", "severity", "patch", "seen on QEMU"),
        [
            (
                str(x.number),
                x.short,
                str(x.severity),
                x.followup or "-",
                ", ".join(x.having(Evidence.SHOWN)),
            )
            for x in found
        ],
    )


def _patch(defect: Defect) -> bytes:
    """Read the patch that repairs a defect, if there is one."""
    for followup in load_followups():
        if followup.name == defect.followup:
            return followup.path.read_bytes()
    return b""
