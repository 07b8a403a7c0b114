# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p report``: report on existing runs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.machine.files import write_whole
from vfio_p2p.plans.history import METRIC
from vfio_p2p.plans.report import ReportRequest, report
from vfio_p2p.report.formats import FORMATS


@dataclass(frozen=True)
class _Request:
    what: ReportRequest
    out: Path | None


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``report``."""
    parser = commands.add_parser(
        "report",
        help=summary,
        description="Report on bundles, logs and older reports. Two inputs "
        "are compared, the first as A and the second as B; with any other "
        "number of inputs, the trees of their runs are compared.",
        epilog="text: 79 columns, to be pasted below a Tested-by tag. html: "
        "one file that opens offline. json: the format that 'validate' "
        "writes, too. perfetto: opens in ui.perfetto.dev. bencher, "
        "github-action, lava, kcidb and prometheus: what these services take; "
        "the figures of the first two are those of runs that passed.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="BUNDLE|FOLDER|REPORT.json",
        help="a bundle (a folder or a zip file), a folder of bundles, a "
        "log or a folder with the logs of real hosts, or a report in JSON",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to write it (default: standard output)",
    )
    parser.add_argument(
        "--history",
        type=Path,
        metavar="FILE",
        help="with --format html: also show earlier results of the same "
        "scenarios and trees, from this history",
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="METRIC",
        help="the metric of the history to show, e.g. phase.stop-arcs; may "
        f"be repeated (default: {METRIC})",
    )
    parser.set_defaults(request=request, run=run)


def request(args: argparse.Namespace) -> _Request:
    """Read the arguments."""
    what = ReportRequest(
        inputs=tuple(args.inputs),
        format=args.format,
        history=args.history,
        metrics=tuple(args.metric),
    )
    return _Request(what, args.out)


def run(wanted: _Request, context: Context) -> int:
    """Make the report, and print or write it."""
    found = report(wanted.what)
    if wanted.out is None:
        context.show(found.rendered.removesuffix("\n"))
    else:
        write_whole(wanted.out, found.rendered.encode())
    return found.verdict.exit_code
