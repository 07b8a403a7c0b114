# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p migrate``: migrate a QEMU that runs already, and record it."""

from __future__ import annotations

import argparse
from dataclasses import replace

from vfio_p2p.attach.drive import Drive
from vfio_p2p.cli import attaching, options
from vfio_p2p.cli.attaching import ViewedLines
from vfio_p2p.cli.context import Context
from vfio_p2p.plans.attach import AttachRequest, record
from vfio_p2p.scenario.course import Migration

_SWITCH = {"on": True, "true": True, "off": False, "false": False}


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``migrate``."""
    parser = commands.add_parser(
        "migrate",
        help=summary,
        description="Attach to a QEMU that somebody else started, migrate "
        "it, and leave a bundle. If the command is interrupted, it cancels "
        "the migration.",
    )
    attaching.add_targets(parser)
    parser.add_argument(
        "--uri",
        default="",
        help="where to migrate to, as QMP's 'migrate' has it (default: "
        "where the destination listens, if that is a unix socket)",
    )
    parser.add_argument(
        "--capability",
        action="append",
        default=[],
        type=_capability,
        metavar="NAME[=on|off]",
        help="a capability to set on both sides, e.g. return-path; may be "
        "repeated",
    )
    parser.add_argument(
        "--parameter",
        action="append",
        default=[],
        type=_parameter,
        metavar="NAME=VALUE",
        help="a parameter to set on both sides, e.g. downtime-limit=100; "
        "may be repeated",
    )
    attaching.add_out(parser)
    parser.set_defaults(request=request, run=run)


def request(args: argparse.Namespace) -> AttachRequest:
    """Read the arguments."""
    return replace(
        attaching.one_recording(args),
        drive=Drive(
            uri=args.uri,
            migration=Migration(
                capabilities=dict(args.capability),
                parameters=dict(args.parameter),
            ),
        ),
    )


def run(wanted: AttachRequest, context: Context) -> int:
    """Migrate, and print what happens."""
    return record(wanted, ViewedLines(context.show)).verdict.exit_code


def _capability(text: str) -> tuple[str, bool]:
    name, equals, value = text.partition("=")
    if not name or (equals and value not in _SWITCH):
        raise argparse.ArgumentTypeError(f"not NAME[=on|off]: {text}")
    return name, _SWITCH[value] if equals else True


def _parameter(text: str) -> tuple[str, int | str | bool]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"not NAME=VALUE: {text}")
    if value in _SWITCH:
        return name, _SWITCH[value]
    digits = value.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 19:
        return name, int(value)
    return name, value
