# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p b4-check``: an external check for b4, a patch on stdin.

b4 review runs such a check for each patch of a series, gives it the mail on
stdin and reads a JSON array of ``{tool, status, summary, url, details}``;
status is ``pass``, ``warn`` or ``fail``.  The exit code matters to b4 only if
there is no JSON: then it shows what stderr says.  See "CI check integration"
in b4's manual.  In a checkout of QEMU::

    git config b4.review-perpatch-check-cmd "vfio-p2p b4-check"
"""

from __future__ import annotations

import argparse
import sys

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.errors import UsageError
from vfio_p2p.plans.b4 import PatchRequest, check_patch
from vfio_p2p.series.patch import MAX_PATCH_BYTES

TOOL = "vfio-p2p"


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``b4-check``."""
    parser = commands.add_parser(
        "b4-check",
        help=summary,
        description="Judge one patch of the series, given on stdin as a "
        "mail: it takes the place of our patch with the same title, on top "
        "of those that come before it. The titles of all versions of the "
        "series are known. Prints the JSON that b4 expects from an external "
        "check. The exit code is 1 if a check failed, and 2 without any JSON "
        "if nothing could be judged, as when the input is empty, has two "
        "patches, or is larger than 4 MiB.",
    )
    options.add_origin(parser)
    options.add_setting(parser)
    parser.set_defaults(request=request, run=run)


def request(args: argparse.Namespace) -> PatchRequest:
    """Read the arguments, and the patch.

    :raise UsageError: When there is no standard input.
    """
    if sys.stdin is None:
        raise UsageError(
            "standard input is closed", "Give the patch on standard input."
        )
    return PatchRequest(
        # One byte more than is allowed tells that there is more.
        patch=sys.stdin.buffer.read(MAX_PATCH_BYTES + 1),
        origin=options.origin(args),
        setting=options.setting(args),
    )


def run(wanted: PatchRequest, context: Context) -> int:
    """Judge the patch, and print what b4 reads."""
    with context.reporter() as reporter:
        checks = check_patch(wanted, reporter, context.workshop)
    context.show_json(
        [
            {
                "tool": TOOL,
                "status": check.status,
                "summary": check.summary,
                "url": "",
                "details": check.details,
            }
            for check in checks
        ]
    )
    return int(any(check.status == "fail" for check in checks))
