# SPDX-License-Identifier: GPL-2.0-or-later
"""Keep results, and follow a metric over revisions."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.downtime.logs import read_host_run
from vfio_p2p.errors import UsageError
from vfio_p2p.history.changes import LEVEL, MIN_SEGMENT
from vfio_p2p.history.database import Entry, default_path, open_history
from vfio_p2p.history.entry import entry_of_logs
from vfio_p2p.history.trend import Trend, trends
from vfio_p2p.names import suggest
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.record import entry, project_revision
from vfio_p2p.report.collect import expanded, has_only_logs
from vfio_p2p.report.runs import run_of_logs
from vfio_p2p.series.git import in_order
from vfio_p2p.verdict.assess import assess
from vfio_p2p.verdict.reading import read_run

METRIC = "blackout"


@dataclass(frozen=True)
class RecordRequest:
    """A request to keep the results of runs.

    :param bundles: Bundles (folders or zip files), logs, folders with the
        logs of a run, and folders of any of these.
    :param revision: The commit of their QEMU trees; None takes the one that
        the build store has noted.
    :param database: The file of the history; None is the usual one.
    """

    bundles: tuple[Path, ...]
    revision: str | None = None
    database: Path | None = None


@dataclass(frozen=True)
class Recorded:
    """The number of bundles that were kept, and of those that were not.

    :param database: The file of the history.
    :param new: How many were added.
    :param known: How many the history had already.
    :param left_out: How many did not pass, and were not added.
    """

    database: Path
    new: int
    known: int
    left_out: int


def record_bundles(request: RecordRequest) -> Recorded:
    """Add the bundles that pass to the history.

    :raise BundleError: When one is damaged or newer than this program.
    :raise InputError: When a folder has no runs.
    :raise TraceError: When a log is missing, or is none.
    :raise HistoryError: When the history cannot be written to.
    """
    project = project_revision()
    now_s = int(time.time())
    paths = [x for path in request.bundles for x in expanded(path)]
    logs = [path for path in paths if has_only_logs(path)]
    entries = [
        entry(run.bundle, request.revision, project, now_s, run)
        for run in map(
            read_run,
            map(open_bundle, (x for x in paths if x not in logs)),
        )
        # For the reason, see `vfio_p2p.plans.record.recording`.
        if assess(run.bundle, run=run).verdict is Verdict.PASS
    ]
    for path in logs:
        host = read_host_run(path)
        run = run_of_logs(path, host)
        if run.verdict is Verdict.PASS and run.blackout_ns is not None:
            entries.append(
                entry_of_logs(
                    path,
                    host,
                    names=(run.variant, run.scenario, run.qemu),
                    qemu_revision=request.revision or "",
                    project_revision=project,
                    recorded_s=now_s,
                )
            )
    path = request.database or default_path()
    with open_history(path, write=True) as history:
        new = history.add(entries)
    return Recorded(
        database=path,
        new=new,
        known=len(entries) - new,
        left_out=len(paths) - len(entries),
    )


@dataclass(frozen=True)
class SelectRequest:
    """A selection of results from the history.

    :param database: The file of the history; None is the usual one.
    :param scenario: Only results of this scenario, if given.
    :param variant: Only results of this tree, if given.
    :param at: Only results of this place, if given; ``sealed`` is the
        testbed.
    """

    database: Path | None = None
    scenario: str | None = None
    variant: str | None = None
    at: str | None = None


@contextmanager
def select(
    request: SelectRequest, metric: str | None = None, *, needed: bool = False
) -> Iterator[Iterator[Entry]]:
    """Read results from the history, one after another.

    :param request: See `SelectRequest`.
    :param metric: The only metric that is read; by default all are.
    :param needed: Whether it is an error if no result has that metric.
    :raise HistoryError: When the history cannot be read.
    :raise UsageError: When no result has a metric that is needed.
    """
    with open_history(request.database or default_path()) as history:
        if metric and needed:
            check_metric(history.metrics(), metric)
        yield history.entries(
            scenario=request.scenario,
            variant=request.variant,
            place=request.at,
            metric=metric,
        )


@dataclass(frozen=True)
class TrendRequest:
    """A request for the trend of one metric.

    :param which: The results.
    :param metric: The name of the metric.
    :param level: How often noise alone may be taken for a change, 0 to 1.
    :param min_segment: The smallest number of points of a level.
    :param source: A git repository that has the commits, for their order;
        None orders them by their times.
    """

    which: SelectRequest
    metric: str = METRIC
    level: float = LEVEL
    min_segment: int = MIN_SEGMENT
    source: Path | None = None


def find_trends(request: TrendRequest) -> list[Trend]:
    """Find the revisions that changed a metric.

    :raise HistoryError: When the history cannot be read.
    :raise UsageError: When no result has the metric.
    :raise SourceError: When git cannot order the commits.
    """
    with select(request.which, request.metric, needed=True) as found:
        order = in_order(request.source) if request.source else []
        entries = list(found)
    return trends(
        entries,
        request.metric,
        level=request.level,
        min_segment=request.min_segment,
        order=order,
    )


def check_metric(known: Collection[str], metric: str) -> None:
    """See that a metric that a user asks for exists.

    :param known: The names of all metrics; if there are none, there are no
        results, and nothing is known.
    :param metric: Its name.
    :raise UsageError: When none of them is it.
    """
    if metric in known or not known:
        return
    raise UsageError(
        f"no result has a metric {metric!r}",
        suggest(metric, known, "vfio-p2p history export --json"),
    )
