# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p history``: results that are kept, over revisions."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path

from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.cli.record import NO_PASS, entry, project_revision
from vfio_p2p.errors import UsageError
from vfio_p2p.history.changes import LEVEL, MIN_SEGMENT
from vfio_p2p.history.database import (
    Entry,
    History,
    default_path,
    open_history,
)
from vfio_p2p.history.trend import trends
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report import history as report
from vfio_p2p.series.git import in_order
from vfio_p2p.verdict.assess import assess

METRIC = "blackout"

_OF_DEVICES = ("device.", "outside.")
_SOME = 16


def add_database_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where the history is."""
    parser.add_argument(
        "--db",
        type=Path,
        metavar="FILE",
        help="the history's file (default: "
        "$XDG_STATE_HOME/vfio-p2p/history.sqlite3)",
    )


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command ``history``."""
    parser = commands.add_parser(
        "history",
        help="results that are kept, over revisions",
        description="Keep results with what they were made from, and see "
        "what a metric did from one revision to the next.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    record = actions.add_parser("record", help="keep what passed")
    record.add_argument(
        "bundles", nargs="+", type=Path, metavar="BUNDLE",
        help="what a run left: a folder or a zip file",
    )
    record.add_argument(
        "--revision",
        metavar="COMMIT",
        help="the commit of their QEMU trees (default: that which the "
        "build store has noted, for builds of a git checkout)",
    )
    record.set_defaults(run=_record)
    listed = actions.add_parser("list", help="list results")
    listed.add_argument(
        "--metric", metavar="METRIC",
        help=f"what to show of them (default: {METRIC})",
    )
    listed.set_defaults(run=_list)
    plot = actions.add_parser(
        "plot",
        help="plot a metric over revisions, with its change points",
        description="Plot a metric over revisions, and find the revisions "
        "that changed it (E-divisive, with a permutation test). Sealed "
        "runs of several seeds count as one point, their median.",
    )
    plot.add_argument("metric", metavar="METRIC", help="e.g. blackout")
    plot.add_argument(
        "--level", type=_level, default=LEVEL, metavar="P",
        help="how often noise alone may be taken for a change "
        "(default: %(default)s)",
    )
    plot.add_argument(
        "--min-segment", type=_segment, default=MIN_SEGMENT, metavar="N",
        help="fewest points of a level (default: %(default)s)",
    )
    plot.add_argument(
        "--source", type=Path, metavar="QEMU_GIT",
        help="a git repository that has the commits, for their order "
        "(default: by their times)",
    )
    plot.set_defaults(run=_plot)
    export = actions.add_parser("export", help="print all of it")
    export.add_argument(
        "--json", action="store_true", required=True,
        help="as one JSON document",
    )
    export.set_defaults(run=_export)
    for action in (listed, plot):
        action.add_argument(
            "--scenario", metavar="S", help="only of this scenario"
        )
        action.add_argument(
            "--variant", metavar="V", help="only of this tree"
        )
    for action in (record, listed, plot, export):
        add_database_argument(action)


def check_metric(entries: Iterable[Entry], metric: str) -> None:
    """See that a metric that a user asks for is one.

    :param entries: The results; without any metric there is no telling.
    :raise UsageError: When none of them has it.
    """
    known = {x.name for entry in entries for x in entry.metrics}
    if metric in known or not known:
        return
    # Those of single devices are many.
    first = sorted(known, key=lambda x: (x.startswith(_OF_DEVICES), x))
    raise UsageError(
        f"no result has a metric {metric!r}",
        f"some that they have: {', '.join(first[:_SOME])}; "
        "'vfio-p2p history export --json' has them all",
    )


def _level(text: str) -> float:
    try:
        level = float(text)
    except ValueError:
        level = 0
    if 0 < level < 1:
        return level
    raise argparse.ArgumentTypeError(f"not between 0 and 1: {text}")


def _segment(text: str) -> int:
    if text.isascii() and text.isdigit() and 2 <= int(text) <= 1000:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a number from 2 to 1000: {text}")


def _record(args: argparse.Namespace) -> int:
    project = project_revision()
    now_s = int(time.time())
    entries = []
    for bundle in map(open_bundle, args.bundles):
        # As of `vfio_p2p.cli.record.recording`.
        if assess(bundle).verdict is Verdict.PASS:
            entries.append(entry(bundle, args.revision, project, now_s))
    path = args.db or default_path()
    with open_history(path, write=True) as history:
        new = history.add(entries)
    known = len(entries) - new
    left_out = len(args.bundles) - len(entries)
    print(
        f"{path}: {new} recorded"
        + (f", {known} there already" if known else "")
        + (f", without {left_out} that {NO_PASS}" if left_out else "")
    )
    return 0 if entries else Verdict.SKIP.exit_code


def _list(args: argparse.Namespace) -> int:
    with open_history(args.db or default_path()) as history:
        entries = _chosen(history, args)
    if args.metric:
        check_metric(entries, args.metric)
    print(report.listing(entries, args.metric or METRIC))
    return 0


def _plot(args: argparse.Namespace) -> int:
    with open_history(args.db or default_path()) as history:
        entries = _chosen(history, args)
    check_metric(entries, args.metric)
    order = in_order(args.source) if args.source else []
    found = trends(
        entries,
        args.metric,
        level=args.level,
        min_segment=args.min_segment,
        order=order,
    )
    print("\n\n".join(map(report.plot, found)) or "no results")
    return 0 if found else Verdict.SKIP.exit_code


def _export(args: argparse.Namespace) -> int:
    with open_history(args.db or default_path()) as history:
        print(json.dumps(report.as_json(history.entries()), indent=2))
    return 0


def _chosen(history: History, args: argparse.Namespace) -> list[Entry]:
    return [
        entry
        for entry in history.entries()
        if args.scenario in (None, entry.scenario)
        and args.variant in (None, entry.variant)
    ]
