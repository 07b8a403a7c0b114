# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p report``: show what runs found, in the format that is asked."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from vfio_p2p.cli.history import METRIC, check_metric
from vfio_p2p.errors import UsageError
from vfio_p2p.history.database import Entry, open_history
from vfio_p2p.history.trend import Trend, trends
from vfio_p2p.machine.files import write_whole
from vfio_p2p.report import html, machine, mail, perfetto
from vfio_p2p.report.collect import collect
from vfio_p2p.report.document import Document, to_json

_FORMATS: dict[str, Callable[[Document], str]] = {
    "text": mail.render,
    "html": html.render,
    "junit": lambda document: machine.as_junit(document.as_rows()),
    "json": lambda document: to_json(document).decode(),
    "perfetto": perfetto.render,
}


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``report``."""
    parser = commands.add_parser(
        "report",
        help="show what runs found: text, HTML, JUnit, JSON, Perfetto",
        description="Report on bundles and older reports. Two inputs are "
        "compared, the first being A and the second B; of any other number, "
        "the trees of their runs are.",
        epilog="text: 79 columns, to be pasted under a Tested-by. html: one "
        "file that opens offline. json: docs/report.schema.json. perfetto: "
        "opens in ui.perfetto.dev.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="BUNDLE|FOLDER|REPORT.json",
        help="a bundle (a folder or a zip file), a folder of bundles, or a "
        "report in JSON",
    )
    parser.add_argument(
        "--format",
        choices=_FORMATS,
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
        help="with --format html: also show what went before of the same "
        "scenarios and trees, from this history",
    )
    parser.add_argument(
        "--metric",
        action="append",
        metavar="METRIC",
        help="what to show of it, e.g. phase.stop-arcs; may be repeated "
        f"(default: {METRIC})",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    entries = _entries(args)
    document = collect(args.inputs)
    if entries is None:
        rendered = _FORMATS[args.format](document)
    else:
        past = _past(document, entries, args.metric)
        rendered = html.render(document, past)
    if args.out is None:
        print(rendered, end="")
    else:
        write_whole(args.out, rendered.encode())
    return document.verdict.exit_code


def _entries(args: argparse.Namespace) -> list[Entry] | None:
    if args.history is None:
        if args.metric:
            raise UsageError(
                "--metric is for --history", "say --history FILE too"
            )
        return None
    if args.format != "html":
        raise UsageError(
            f"--format {args.format} has no history",
            "say --format html, or see 'vfio-p2p history plot'",
        )
    with open_history(args.history) as history:
        return history.entries()


def _past(
    document: Document,
    entries: Sequence[Entry],
    metrics: Sequence[str] | None,
) -> list[Trend]:
    """What is known of the scenarios and trees of a report."""
    shown = {(run.scenario, run.variant) for run in document.runs}
    chosen = [x for x in entries if (x.scenario, x.variant) in shown]
    for metric in metrics or ():
        check_metric(chosen, metric)
    return [
        trend
        for metric in dict.fromkeys(metrics or [METRIC])
        for trend in trends(chosen, metric)
    ]
