# SPDX-License-Identifier: GPL-2.0-or-later
"""The alerts of a history: raised once, and changed by their states only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec

from vfio_p2p.errors import HistoryError, UsageError
from vfio_p2p.foreign import NOT_JSON
from vfio_p2p.history.alerts import (
    Alert,
    AlertState,
    LevelChange,
    Series,
    places,
)
from vfio_p2p.history.changes import MIN_SEGMENT
from vfio_p2p.history.database import Entry, History
from vfio_p2p.history.trend import NO_ORDER


def read_alerts(history: History) -> list[Alert]:
    """Return all alerts, the first one first.

    :param history: The history.
    :raise HistoryError: When the file cannot be read.
    """
    with history.tables() as tables:
        return _read(tables)


def _read(
    tables: sqlite3.Connection, where: str = "TRUE", *values: int
) -> list[Alert]:
    rows = tables.execute(
        "SELECT id, change, raised_s, state, note FROM alert "
        f"WHERE {where} ORDER BY id",
        values,
    )
    return [_alert(*row) for row in rows]


def _alert(
    number: int, change: str, raised_s: int, state: str, note: str
) -> Alert:
    try:
        return Alert(
            number,
            msgspec.json.decode(change, type=LevelChange),
            raised_s,
            AlertState(state),
            note,
        )
    except (*NOT_JSON, ValueError) as err:
        raise HistoryError(
            f"alert {number} of the history is damaged: {err}",
            "Use a copy of the history.",
        ) from err


def raise_alerts(
    history: History,
    changes: Iterable[LevelChange],
    groups: Mapping[Series, list[Entry]],
    now_s: int,
    *,
    min_segment: int = MIN_SEGMENT,
    rank: Mapping[str, int] = NO_ORDER,
) -> list[Alert]:
    """Raise the changes that were not raised before.

    A change is known if an alert of its series is about a revision that is
    nearer than the shortest level.

    :param history: The history, open for writing.
    :param changes: The changes.
    :param groups: The results that they were found in, as of `in_series`.
    :param now_s: The Unix time.
    :param min_segment: The smallest number of revisions of a level.
    :param rank: The numbers of commits, if their order is known.
    :return: The new alerts.
    """
    raised = []
    with history.tables(write=True) as tables:
        known = [alert.change for alert in _read(tables)]
        for change in changes:
            at = places(groups[change.series], rank)
            here = at[change.first]
            if any(
                other.series == change.series
                and abs(at.get(other.first, -min_segment) - here)
                < min_segment
                for other in known
            ):
                continue
            cursor = tables.execute(
                "INSERT INTO alert (raised_s, change, state, note) "
                "VALUES (?, ?, ?, '')",
                (
                    now_s,
                    msgspec.json.encode(change).decode(),
                    AlertState.NEW,
                ),
            )
            assert cursor.lastrowid
            raised.append(Alert(cursor.lastrowid, change, now_s))
            known.append(change)
    return raised


def set_state(
    history: History,
    number: int,
    state: AlertState | None,
    note: str | None,
) -> Alert:
    """Say what became of an alert.

    :param history: The history, open for writing.
    :param number: The number of the alert.
    :param state: Its new state; None keeps the old one.
    :param note: Its new note; None keeps the old one.
    :raise UsageError: When there is no such alert.
    """
    with history.tables(write=True) as tables:
        found = _read(tables, "id = ?", number)
        if not found:
            raise UsageError(
                f"there is no alert {number}",
                "'vfio-p2p history alerts --all' lists them.",
            )
        (old,) = found
        new = replace(
            old,
            state=state or old.state,
            note=old.note if note is None else note,
        )
        tables.execute(
            "UPDATE alert SET state = ?, note = ? WHERE id = ?",
            (new.state, new.note, number),
        )
    return new
