# SPDX-License-Identifier: GPL-2.0-or-later
"""The history: every result, with what it was made from, in SQLite.

What `History.add` returned from is on the disk: ``synchronous=FULL`` with a
write-ahead log (sqlite.org/wal.html), one transaction for each call.

The file says whose it is (``application_id``) and of which format
(``user_version``). Nothing is changed in one that is another program's, or
of a newer format, or damaged.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from vfio_p2p.errors import HistoryError, NoSpaceError
from vfio_p2p.paths import state_dir

# "VFP2", where sqlite.org/fileformat.html has the application id.
_APPLICATION_ID = 0x56465032

# What makes format n + 1 of format n; format 0 is an empty file.
_STEPS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE result (
            id INTEGER PRIMARY KEY,
            recorded_s INTEGER NOT NULL,
            digest TEXT NOT NULL,
            qemu_revision TEXT NOT NULL,
            qemu_revision_s INTEGER,
            qemu_version TEXT NOT NULL,
            variant TEXT NOT NULL,
            build TEXT NOT NULL,
            project_revision TEXT NOT NULL,
            scenario TEXT NOT NULL,
            scenario_digest TEXT NOT NULL,
            seed INTEGER NOT NULL,
            host TEXT NOT NULL,
            testbed TEXT NOT NULL,
            UNIQUE (digest, qemu_revision, project_revision)
        ) STRICT""",
        """CREATE TABLE metric (
            result INTEGER NOT NULL REFERENCES result,
            name TEXT NOT NULL,
            value INTEGER NOT NULL,
            unit TEXT NOT NULL,
            PRIMARY KEY (result, name)
        ) STRICT, WITHOUT ROWID""",
    ),
)

# For another process to finish what it writes.
WAIT_S = 10.0

_OTHER = "name another file, or none"
_WHY = {
    sqlite3.SQLITE_BUSY: (
        "another program has locked it",
        "try again when that is done",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened",
        "check the path and its permissions",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "it is damaged",
        "use a copy of it, or save what can be read with "
        "'sqlite3 FILE .recover'",
    ),
    sqlite3.SQLITE_IOERR: (
        "it cannot be read or written",
        "see what the kernel says of the disk",
    ),
    sqlite3.SQLITE_NOTADB: ("it is no SQLite database", _OTHER),
    sqlite3.SQLITE_READONLY: (
        "it cannot be written",
        "check its permissions and those of its folder",
    ),
}


@dataclass(frozen=True)
class Metric:
    """One figure of a result.

    :param name: E.g. ``blackout``.
    :param value: In `unit`.
    :param unit: ``ns``, ``ms`` or another.
    """

    name: str
    value: int
    unit: str


@dataclass(frozen=True)
class Entry:
    """One result.

    :param recorded_s: When it was recorded, seconds of Unix time.
    :param digest: Of its bundle.
    :param qemu_revision: Commit of the QEMU tree; empty if it has none.
    :param qemu_revision_s: When that was committed, if known.
    :param qemu_version: What QEMU says its version is.
    :param variant: What our patches made of that tree.
    :param build: Key in the build store.
    :param project_revision: Commit of this project; empty if unknown.
    :param scenario: Its name.
    :param scenario_digest: Its digest.
    :param seed: What fixed the rest.
    :param host: Where it ran.
    :param testbed: Digest of all that the testbed is made of.
    :param metrics: What was measured, by name.
    """

    recorded_s: int
    digest: str
    qemu_revision: str
    qemu_revision_s: int | None
    qemu_version: str
    variant: str
    build: str
    project_revision: str
    scenario: str
    scenario_digest: str
    seed: int
    host: str
    testbed: str
    metrics: tuple[Metric, ...]

    def metric(self, name: str) -> Metric | None:
        """The metric of that name, if it was measured."""
        return next((x for x in self.metrics if x.name == name), None)


_COLUMNS = tuple(x.name for x in fields(Entry) if x.name != "metrics")


def default_path() -> Path:
    """Where the history is unless the user says otherwise."""
    return state_dir() / "history.sqlite3"


class History:
    """An open history; see `open_history`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def add(self, entries: Iterable[Entry]) -> int:
        """Store results, all or none; they are on the disk afterwards.

        A result that is known (the same bundle, of the same revisions)
        stays as it is.

        :return: How many are new.
        :raise HistoryError: When they cannot be stored.
        :raise NoSpaceError: When the disk is full.
        """
        with _explained(self._path), _transaction(self._connection):
            return sum(map(self._add, entries))

    def _add(self, entry: Entry) -> bool:
        marks = ", ".join("?" * len(_COLUMNS))
        cursor = self._connection.execute(
            f"INSERT INTO result ({', '.join(_COLUMNS)}) VALUES ({marks}) "
            "ON CONFLICT DO NOTHING",
            [getattr(entry, name) for name in _COLUMNS],
        )
        if not cursor.rowcount:
            return False
        self._connection.executemany(
            "INSERT INTO metric VALUES (?, ?, ?, ?)",
            [
                (cursor.lastrowid, x.name, x.value, x.unit)
                for x in entry.metrics
            ],
        )
        return True

    def entries(self) -> list[Entry]:
        """All results, in the order in which they were recorded.

        :raise HistoryError: When it cannot be read.
        """
        with _explained(self._path), _transaction(self._connection, "BEGIN"):
            metrics: dict[int, tuple[Metric, ...]] = {}
            for result, *values in self._connection.execute(
                "SELECT result, name, value, unit FROM metric"
            ):
                known = metrics.get(result, ())
                metrics[result] = (*known, Metric(*values))
            return [
                Entry(*(*row[1:], metrics.get(row[0], ())))
                for row in self._connection.execute(
                    f"SELECT id, {', '.join(_COLUMNS)} "
                    "FROM result ORDER BY id"
                )
            ]


@contextmanager
def open_history(
    path: Path, *, write: bool = False, wait_s: float = WAIT_S
) -> Iterator[History]:
    """Open a history.

    :param path: Its file.
    :param write: To add to it; it is then made if it is missing, and
        brought to this format if it is of an older one.
    :param wait_s: How long to wait for another process, in seconds.
    :raise HistoryError: When it is missing, not ours, newer, locked,
        damaged, or cannot be written.
    :raise NoSpaceError: When the disk is full.
    """
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.exists():
        raise _missing(path)
    with _explained(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{_mode(path, write)}",
            timeout=wait_s,
            isolation_level=None,
            uri=True,
        )
    with closing(connection):
        with _explained(path):
            _prepare(connection, path, write, wait_s)
        yield History(connection, path)


def _mode(path: Path, write: bool) -> str:
    if write:
        return "mode=rwc"
    log = path.with_name(f"{path.name}-wal")
    if os.access(path.parent, os.W_OK, effective_ids=True) or log.exists():
        return "mode=ro"
    # A reader would put files beside it, to be told of writers.
    return "immutable=1"


def _prepare(
    connection: sqlite3.Connection, path: Path, write: bool, wait_s: float
) -> None:
    version = _identify(connection, path)
    if version:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _error(path, sqlite3.SQLITE_CORRUPT)
    if not write:
        if not version:
            raise _missing(path)
        if version < len(_STEPS):
            raise HistoryError(
                f"{path}: history format {version} is older than this "
                f"program's, which is {len(_STEPS)}",
                "'vfio-p2p history record' brings it up to date",
            )
        return
    _keep_log(connection, time.monotonic() + wait_s)
    connection.execute("PRAGMA synchronous = FULL")
    with _transaction(connection):
        # Another process may have been faster.
        version = _identify(connection, path)
        for statement in sum(_STEPS[version:], ()):
            connection.execute(statement)
        if version < len(_STEPS):
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(_STEPS)}")


def _keep_log(connection: sqlite3.Connection, deadline_s: float) -> None:
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as err:
            # Of two that do this at once one is turned away, and SQLite
            # does not wait.
            # Its kinds differ in the bits above the lowest eight.
            busy = err.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)


def _identify(connection: sqlite3.Connection, path: Path) -> int:
    """Its format; 0 is an empty file."""
    version: int
    # In one statement: another process may be making it.
    owner, version, tables = connection.execute(
        "SELECT application_id, user_version, "
        "(SELECT count(*) FROM sqlite_master) "
        "FROM pragma_application_id, pragma_user_version"
    ).fetchone()
    if not owner and not version and not tables:
        return 0
    if owner != _APPLICATION_ID or version < 1:
        raise HistoryError(
            f"{path} is another program's database, not a history", _OTHER
        )
    if version > len(_STEPS):
        raise HistoryError(
            f"{path}: history format {version} is newer than this "
            f"program, which knows up to {len(_STEPS)}",
            "use a newer vfio-p2p",
        )
    return version


@contextmanager
def _transaction(
    # A writer that begins as a reader cannot wait for another one.
    connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE"
) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors have rolled it back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say what SQLite's errors mean to the user."""
    try:
        yield
    except sqlite3.DatabaseError as err:
        code = getattr(err, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise NoSpaceError(path) from err
        if code not in _WHY:
            raise HistoryError(f"{path}: {err}", _OTHER) from err
        raise _error(path, code) from err
    except (OverflowError, UnicodeEncodeError) as err:
        raise HistoryError(
            f"{path} cannot hold such a result: {err}",
            "the bundle was not written by vfio-p2p",
        ) from err


def _error(path: Path, code: int) -> HistoryError:
    why, hint = _WHY[code]
    return HistoryError(f"{path}: {why}", hint)


def _missing(path: Path) -> HistoryError:
    return HistoryError(
        f"{path}: no history there yet",
        "'vfio-p2p history record BUNDLE' begins one",
    )
