# SPDX-License-Identifier: GPL-2.0-or-later
"""Report on existing runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.errors import UsageError
from vfio_p2p.history.database import Entry, open_history
from vfio_p2p.history.trend import Trend, trends
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.history import METRIC, check_metric
from vfio_p2p.plans.judgements import runs_in
from vfio_p2p.report import html
from vfio_p2p.report.collect import collect
from vfio_p2p.report.document import Document
from vfio_p2p.report.formats import render

HTML = "html"


@dataclass(frozen=True)
class ReportRequest:
    """A request for a report on existing runs.

    :param inputs: Bundles, folders of bundles or logs, and reports in JSON.
    :param format: A key of `vfio_p2p.report.formats.FORMATS`.
    :param history: A history whose results of the same scenarios and trees
        are shown, too; only in HTML.
    :param metrics: The metrics of the history that are shown.
    """

    inputs: tuple[Path, ...]
    format: str = "text"
    history: Path | None = None
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reported:
    """A report that is ready to be shown.

    :param verdict: The verdict over all its runs.
    :param rendered: The text of the report.
    """

    verdict: Verdict
    rendered: str


def report(request: ReportRequest) -> Reported:
    """Read runs, and render a report on them.

    :raise InputError: When there is nothing to report on, or a file is
        damaged or newer than this program.
    :raise UsageError: When an option does not fit the format.
    """
    entries = _entries(request)
    document = collect(request.inputs, runs_in)
    if entries is None:
        rendered = render(request.format, document)
    else:
        past = _past(document, entries, request.metrics)
        rendered = html.render(document, past)
    return Reported(document.verdict, rendered)


def _entries(request: ReportRequest) -> list[Entry] | None:
    if request.history is None:
        if request.metrics:
            raise UsageError(
                "--metric has no effect without --history",
                "Give --history FILE, too.",
            )
        return None
    if request.format != HTML:
        raise UsageError(
            f"--format {request.format} does not show a history",
            "Give --format html, or see 'vfio-p2p history plot'.",
        )
    with open_history(request.history) as history:
        return list(history.entries())


def _past(
    document: Document, entries: Sequence[Entry], metrics: Sequence[str]
) -> list[Trend]:
    """Find the trends of the scenarios and trees of a report."""
    shown = {(run.scenario, run.variant) for run in document.runs}
    chosen = [x for x in entries if (x.scenario, x.variant) in shown]
    known = {x.name for entry in chosen for x in entry.metrics}
    for metric in metrics:
        check_metric(known, metric)
    return [
        trend
        for metric in dict.fromkeys(metrics or [METRIC])
        for trend in trends(chosen, metric)
    ]
