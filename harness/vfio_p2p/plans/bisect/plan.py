# SPDX-License-Identifier: GPL-2.0-or-later
"""Bisect a QEMU repository, and keep the measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.choice import SEALED, PlaceChoice
from vfio_p2p.errors import UsageError
from vfio_p2p.history.database import Entry, default_path, open_history
from vfio_p2p.places import open_place
from vfio_p2p.plans.bisect.search import (
    Above,
    Bisection,
    MeasuredCommit,
    Steps,
    search,
)
from vfio_p2p.plans.bisect.step import Probe
from vfio_p2p.plans.history import METRIC
from vfio_p2p.plans.record import project_revision
from vfio_p2p.plans.setting import SEED
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.qemu.program import KnownPrograms
from vfio_p2p.scenario.load import load

SCENARIO = "two-devices"


@dataclass(frozen=True)
class BisectRequest:
    """The repository, the two commits, and the metric of a search.

    :param source: A git repository of QEMU.
    :param good: A commit from before the change.
    :param bad: A descendant of it, with the change.
    :param metric: The metric that changed.
    :param scenario: The name or file of the scenario that is run.
    :param seed: The seed of the runs.
    :param at: The name of the place of the runs.
    :param above: The threshold over the good commit; None takes the midpoint
        between good and bad.
    :param record: Whether the measurements are kept in the history.
    :param database: The file of the history; None is the usual one.
    """

    source: Path
    good: str
    bad: str
    metric: str = METRIC
    scenario: str = SCENARIO
    seed: int = SEED
    at: str = SEALED
    above: Above | None = None
    record: bool = False
    database: Path | None = None


def _ignore(sample: MeasuredCommit) -> None:
    pass


def bisect(
    request: BisectRequest,
    reporter: Reporter = SILENT,
    tell: Callable[[MeasuredCommit], None] = _ignore,
    steps: Steps = Steps(),
) -> Bisection:
    """Find the commit that changed a metric.

    :param tell: Told of each commit that was tested.
    :param steps: How commits are measured.
    :raise UsageError: When the commits do not differ, or are not related, or
        the place is not exact.
    :raise SourceError: When the source is not a git repository of QEMU.
    :raise HistoryError: When the history cannot be written to.
    :raise BuildError: When one of the two commits does not build.
    """
    scenario = load(request.scenario)
    check_place(request.at)
    path = None
    if request.record:
        path = request.database or default_path()
        # Errors of the history are reported now, not after half an hour.
        keep(path, [])

    def told(sample: MeasuredCommit) -> None:
        tell(sample)
        if path and sample.entry:
            keep(path, [sample.entry])

    task = reporter.task("bisect")
    found = search(
        request.source,
        request.good,
        request.bad,
        Probe(
            request.metric,
            request.seed,
            project_revision(),
            at=request.at,
        ),
        scenario,
        task,
        told,
        request.above,
        steps,
    )
    task.end("done")
    return found


def check_place(name: str) -> None:
    """See that exact runs can be made, before anything is built.

    :param name: The name of the place.
    :raise UsageError: When there is no such place, or it is not exact.
    """
    place = open_place(PlaceChoice(name), KnownPrograms())
    if not place.exact:
        raise UsageError(
            f"figures of the place {name!r} are measured, not exact",
            f"Bisect at the place {SEALED!r}.",
        )
    place.check()


def keep(path: Path, entries: list[Entry]) -> None:
    """Put measurements into a history.

    :param path: The file of the history.
    :param entries: The measurements.
    :raise HistoryError: When the history cannot be written to.
    """
    with open_history(path, write=True) as history:
        history.add(entries)
