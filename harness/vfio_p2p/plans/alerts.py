# SPDX-License-Identifier: GPL-2.0-or-later
"""Raise what changed in the history, and say what became of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.history.alert_table import (
    raise_alerts,
    read_alerts,
    set_state,
)
from vfio_p2p.history.alerts import (
    Alert,
    AlertState,
    find_changes,
    in_series,
)
from vfio_p2p.history.changes import LEVEL, MIN_SEGMENT
from vfio_p2p.history.database import (
    History,
    default_path,
    open_history,
)
from vfio_p2p.history.trend import ranked
from vfio_p2p.plans.history import SelectRequest
from vfio_p2p.series.git import in_order


@dataclass(frozen=True)
class AlertsRequest:
    """A request to look for changes.

    :param which: The results that are looked at.
    :param level: How often noise alone may be taken for a change, 0 to 1.
    :param min_segment: The smallest number of revisions of a level.
    :param source: A git repository that has the commits, for their order;
        None orders them by their times.
    """

    which: SelectRequest
    level: float = LEVEL
    min_segment: int = MIN_SEGMENT
    source: Path | None = None


@dataclass(frozen=True)
class FoundAlerts:
    """The alerts of a history.

    :param raised: Those that were raised just now.
    :param every: All of them.
    """

    raised: tuple[Alert, ...]
    every: tuple[Alert, ...]


@dataclass(frozen=True)
class AlertStateRequest:
    """A request to say what became of an alert, or only to see it.

    :param number: Its number.
    :param state: Its new state; None keeps the old one.
    :param note: Its new note; None keeps the old one.
    :param database: The file of the history; None is the usual one.
    """

    number: int
    state: AlertState | None = None
    note: str | None = None
    database: Path | None = None


def find_alerts(request: AlertsRequest) -> FoundAlerts:
    """Raise what has changed since the last call.

    :raise HistoryError: When the history cannot be read or written.
    :raise SourceError: When git cannot order the commits.
    """
    which = request.which
    with _existing(which.database) as history:
        rank = ranked(in_order(request.source) if request.source else ())
        groups = in_series(
            history.entries(
                scenario=which.scenario,
                variant=which.variant,
                place=which.at,
            )
        )
        changes = find_changes(
            groups,
            level=request.level,
            min_segment=request.min_segment,
            rank=rank,
        )
        raised = raise_alerts(
            history,
            changes,
            groups,
            int(time.time()),
            min_segment=request.min_segment,
            rank=rank,
        )
        return FoundAlerts(tuple(raised), tuple(read_alerts(history)))


def change_alert(request: AlertStateRequest) -> Alert:
    """Say what became of an alert.

    :raise HistoryError: When the history cannot be read or written.
    :raise UsageError: When there is no such alert.
    """
    with _existing(request.database) as history:
        return set_state(
            history, request.number, request.state, request.note
        )


@contextmanager
def _existing(database: Path | None) -> Iterator[History]:
    """Open a history for writing, but make none."""
    path = database or default_path()
    with open_history(path):
        pass
    with open_history(path, write=True) as history:
        yield history
