# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p report``: show what runs found, in the format that is asked."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from harness.host.files import write_whole
from harness.report import html, machine, mail, perfetto
from harness.report.collect import collect
from harness.report.document import Document, to_json

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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    document = collect(args.inputs)
    rendered = _FORMATS[args.format](document)
    if args.out is None:
        print(rendered, end="")
    else:
        write_whole(args.out, rendered.encode())
    return document.verdict.exit_code
