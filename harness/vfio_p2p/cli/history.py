# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p history``: keep results, and show them over revisions."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.errors import UsageError
from vfio_p2p.history.alerts import AlertState
from vfio_p2p.history.changes import LEVEL, LONGEST, MIN_SEGMENT
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.alerts import (
    AlertsRequest,
    AlertStateRequest,
    change_alert,
    find_alerts,
)
from vfio_p2p.plans.export import EXPORTS, HistoryExportRequest, exported
from vfio_p2p.plans.history import (
    METRIC,
    RecordRequest,
    SelectRequest,
    TrendRequest,
    find_trends,
    record_bundles,
    select,
)
from vfio_p2p.plans.record import NO_PASS
from vfio_p2p.report import history as report


@dataclass(frozen=True)
class _AlertsRequest:
    what: AlertsRequest
    closed: bool


@dataclass(frozen=True)
class _ListRequest:
    which: SelectRequest
    metric: str | None


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``history``."""
    parser = commands.add_parser(
        "history",
        help=summary,
        description="Keep results together with their inputs, and see how "
        "a metric changed from one revision to the next.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_record(actions)
    _add_list(actions)
    _add_plot(actions)
    _add_alerts(actions)
    _add_alert(actions)
    _add_export(actions)


def _add_record(actions: options.Commands) -> None:
    record = actions.add_parser("record", help="keep runs that pass")
    record.add_argument(
        "bundles",
        nargs="+",
        type=Path,
        metavar="BUNDLE",
        help="a run: a bundle (a folder or a zip file), a folder with the "
        "logs of both sides, or a log that has both; or a folder of runs, "
        "such as what 'validate' or a shard of it has left",
    )
    record.add_argument(
        "--revision",
        metavar="COMMIT",
        help="the commit of their QEMU trees (default: the one that the "
        "build store has noted, for builds of a git checkout)",
    )
    options.add_database(record)
    record.set_defaults(
        request=lambda x: RecordRequest(tuple(x.bundles), x.revision, x.db),
        run=_record,
    )


def _add_list(actions: options.Commands) -> None:
    listed = actions.add_parser("list", help="list results")
    listed.add_argument(
        "--metric",
        metavar="METRIC",
        help=f"the metric to show (default: {METRIC})",
    )
    _add_selection(listed)
    listed.set_defaults(
        request=lambda x: _ListRequest(_selection(x), x.metric), run=_list
    )


def _add_plot(actions: options.Commands) -> None:
    plot = actions.add_parser(
        "plot",
        help="plot a metric over revisions, with its change points",
        description="Plot a metric over revisions, and find the revisions "
        "that changed it (E-divisive, with a permutation test; more than "
        f"{LONGEST} points are first divided by the rank statistics of "
        "seeded intervals). Sealed runs with several seeds count as one "
        "point, their median.",
    )
    plot.add_argument("metric", metavar="METRIC", help="e.g. blackout")
    _add_search(plot)
    _add_selection(plot)
    plot.set_defaults(request=_plot_request, run=_plot)


def _add_search(action: argparse.ArgumentParser) -> None:
    """Add the options of a search for changes."""
    action.add_argument(
        "--level",
        type=_level,
        default=LEVEL,
        metavar="P",
        help="how often noise alone may be taken for a change "
        "(default: %(default)s)",
    )
    action.add_argument(
        "--min-segment",
        type=_segment,
        default=MIN_SEGMENT,
        metavar="N",
        help="the smallest number of points of a level "
        "(default: %(default)s)",
    )
    action.add_argument(
        "--source",
        type=Path,
        metavar="QEMU_GIT",
        help="a git repository that has the commits, for their order "
        "(default: by their times)",
    )


def _add_alerts(actions: options.Commands) -> None:
    alerts = actions.add_parser(
        "alerts",
        help="raise what changed, each change once",
        description="Look at all metrics for changes of QEMU that moved "
        "them, as 'plot' does for one. A change is raised once, as an alert, "
        "which keeps its state. The exit code is 1 if an alert was raised, "
        "and 0 if there is nothing new.",
    )
    _add_search(alerts)
    alerts.add_argument(
        "--all",
        action="store_true",
        help="also list alerts that are closed: expected, fixed or invalid",
    )
    _add_selection(alerts)
    options.add_json(alerts)
    alerts.set_defaults(request=_alerts_request, run=_alerts)


def _alerts_request(args: argparse.Namespace) -> _AlertsRequest:
    return _AlertsRequest(
        AlertsRequest(
            which=_selection(args),
            level=args.level,
            min_segment=args.min_segment,
            source=args.source,
        ),
        args.all,
    )


def _alerts(wanted: _AlertsRequest, context: Context) -> int:
    found = find_alerts(wanted.what)
    shown = [x for x in found.every if wanted.closed or x.state.is_open]
    if context.json:
        context.show(report.alerts_as_json(shown))
    else:
        context.show_lines(report.alerts(shown))
        context.show(
            f"{len(found.raised)} new, {len(shown)} shown, "
            f"{len(found.every)} in all"
        )
    return Verdict.FAIL.exit_code if found.raised else 0


def _add_alert(actions: options.Commands) -> None:
    alert = actions.add_parser(
        "alert", help="show an alert, or say what became of it"
    )
    alert.add_argument(
        "number",
        type=_number,
        metavar="NUMBER",
        help="its number, as 'alerts' shows it",
    )
    alert.add_argument(
        "--state",
        choices=[str(state) for state in AlertState],
        help="confirmed: it was seen elsewhere, too; expected: it was meant; "
        "fixed: a later change has undone it; invalid: it says nothing about "
        "QEMU; new: none of these",
    )
    alert.add_argument(
        "--note", metavar="TEXT", help="what there is to say about that"
    )
    options.add_database(alert)
    options.add_json(alert)
    alert.set_defaults(
        request=lambda x: AlertStateRequest(
            x.number,
            AlertState(x.state) if x.state else None,
            x.note,
            x.db,
        ),
        run=_alert,
    )


def _alert(wanted: AlertStateRequest, context: Context) -> int:
    found = [change_alert(wanted)]
    if context.json:
        context.show(report.alerts_as_json(found))
    else:
        context.show_lines(report.alerts(found))
    return 0


def _plot_request(args: argparse.Namespace) -> TrendRequest:
    return TrendRequest(
        which=_selection(args),
        metric=args.metric,
        level=args.level,
        min_segment=args.min_segment,
        source=args.source,
    )


def _add_selection(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--scenario", metavar="S", help="only results of this scenario"
    )
    action.add_argument(
        "--variant", metavar="V", help="only results of this tree"
    )
    action.add_argument(
        "--at",
        metavar="PLACE",
        help="only results of this place: a place of hosts.toml, or sealed, "
        "the testbed",
    )
    options.add_database(action)


def _selection(args: argparse.Namespace) -> SelectRequest:
    return SelectRequest(args.db, args.scenario, args.variant, args.at)


def _add_export(actions: options.Commands) -> None:
    export = actions.add_parser(
        "export",
        help="print all of it, or write it for another tool",
        description="Print the results as JSON; or one series as a table for "
        "Apache Otava; or write those of commits as a folder of results for "
        "airspeed velocity (asv).",
    )
    form = export.add_mutually_exclusive_group(required=True)
    form.add_argument(
        "--json",
        action="store_true",
        help="as one JSON document; the same as --format json",
    )
    form.add_argument(
        "--format",
        choices=EXPORTS,
        help="json: all of it; otava: one series as CSV; asv: files in --out",
    )
    export.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="with --format asv: the folder of results, as results_dir of "
        "asv.conf.json names it",
    )
    _add_selection(export)
    export.set_defaults(request=_export_request, run=_export)


def _export_request(args: argparse.Namespace) -> HistoryExportRequest:
    form = args.format or "json"
    if (args.out is not None) != (form == "asv"):
        raise UsageError(
            f"--format {form} "
            + ("needs --out" if form == "asv" else "is printed"),
            "Give --out DIR with --format asv, and only there.",
        )
    return HistoryExportRequest(_selection(args), form, args.out)


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 1 << 63:
        return int(text)
    raise argparse.ArgumentTypeError(f"not the number of an alert: {text}")


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


def _record(wanted: RecordRequest, context: Context) -> int:
    found = record_bundles(wanted)
    context.show(
        f"{found.database}: {found.new} recorded"
        + (f", {found.known} there already" if found.known else "")
        + (f", without {found.left_out} that {NO_PASS}"
           if found.left_out else "")
    )  # fmt: skip
    return 0 if found.new or found.known else Verdict.SKIP.exit_code


def _list(wanted: _ListRequest, context: Context) -> int:
    metric = wanted.metric or METRIC
    with select(
        wanted.which, metric, needed=bool(wanted.metric)
    ) as entries:
        context.show_lines(report.listing(entries, metric))
    return 0


def _plot(wanted: TrendRequest, context: Context) -> int:
    found = find_trends(wanted)
    context.show("\n\n".join(map(report.plot, found)) or "no results")
    return 0 if found else Verdict.SKIP.exit_code


def _export(wanted: HistoryExportRequest, context: Context) -> int:
    with exported(wanted) as lines:
        context.show_lines(lines)
    return 0
