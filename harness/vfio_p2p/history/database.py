# SPDX-License-Identifier: GPL-2.0-or-later
"""The history: every result, with what it was made from, in SQLite.

Once `History.add` returned, its results are on the disk: each call is one
transaction, with ``synchronous=FULL`` and a write-ahead log
(sqlite.org/wal.html).

The file says which program it belongs to (``application_id``) and which format
it has (``user_version``).  A file of another program, of a newer format, or
that is damaged, is never changed.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from vfio_p2p.errors import HistoryError, NoSpaceError
from vfio_p2p.paths import is_special, state_dir

# "VFP2", at the place of the application id in sqlite.org/fileformat.html.
_APPLICATION_ID = 0x56465032

# The steps that turn format n into format n + 1; format 0 is an empty file.
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
    (
        """CREATE TABLE alert (
            id INTEGER PRIMARY KEY,
            raised_s INTEGER NOT NULL,
            change TEXT NOT NULL,
            state TEXT NOT NULL,
            note TEXT NOT NULL
        ) STRICT""",
    ),
)

#: What a result of the testbed has as its host.
TESTBED = "testbed"

# The end of the year 9999, the last that a date can be printed of.
_LAST_S = 253_402_300_799

# How long to wait for another process to finish writing.
WAIT_S = 10.0

# Two files beside a history take this much while it is open.
_LEAST_BYTES = 1 << 20

_OTHER = "Name another file, or none."
_WHY = {
    sqlite3.SQLITE_BUSY: (
        "another program has locked it",
        "Try again when that program is done.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened",
        "Check the path and its permissions.",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "it is damaged",
        "Use a copy of it, or save what can be read with "
        "'sqlite3 FILE .recover'.",
    ),
    sqlite3.SQLITE_IOERR: (
        "it cannot be read or written",
        "See what the kernel's log says about the disk.",
    ),
    sqlite3.SQLITE_NOTADB: ("it is not an SQLite database", _OTHER),
    sqlite3.SQLITE_READONLY: (
        "it cannot be written",
        "Check its permissions and those of its folder.",
    ),
}


@dataclass(frozen=True)
class Metric:
    """One figure of a result.

    :param name: Its name, e.g. ``blackout``.
    :param value: Its value in `unit`.
    :param unit: ``ns``, ``ms`` or another unit.
    """

    name: str
    value: int
    unit: str


@dataclass(frozen=True)
class Entry:
    """One result.

    :param recorded_s: When it was recorded, in seconds of Unix time.
    :param digest: The digest of its bundle.
    :param qemu_revision: The commit of the QEMU tree; empty without one.
    :param qemu_revision_s: When that was committed, in seconds of Unix time,
        if known.
    :param qemu_version: The version that QEMU itself reports.
    :param variant: Which patches were applied to that tree.
    :param build: Its key in the build store.  Where the two sides had
        different QEMUs, version, variant and build are those of both.
    :param project_revision: The commit of this project; empty if unknown.
    :param scenario: The name of the scenario.
    :param scenario_digest: The digest of the scenario.
    :param seed: The seed of the run.
    :param host: Where it ran.
    :param testbed: The digest of all that the testbed is made of.
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

    @property
    def place(self) -> str:
        """The place of the run, as ``--at`` calls it."""
        return "sealed" if self.host == TESTBED else self.host

    def metric(self, name: str) -> Metric | None:
        """Return the metric of that name, if it was measured."""
        return next((x for x in self.metrics if x.name == name), None)


_COLUMNS = tuple(x.name for x in fields(Entry) if x.name != "metrics")


def default_path() -> Path:
    """Return the default path of the history."""
    return state_dir() / "history.sqlite3"


class History:
    """An open history; see `open_history`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def add(self, entries: Iterable[Entry]) -> int:
        """Store all of these results, or none.

        They are on the disk when this returns.  A known result (the same
        bundle, of the same revisions) stays as it is.

        :param entries: The results.
        :return: The number of new results.
        :raise HistoryError: When they cannot be stored.
        :raise NoSpaceError: When the disk is full.
        """
        with self.tables(write=True):
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

    def entries(
        self,
        *,
        scenario: str | None = None,
        variant: str | None = None,
        place: str | None = None,
        metric: str | None = None,
    ) -> Iterator[Entry]:
        """Yield results, in the order in which they were recorded.

        They are those of one moment, however long the reader takes.

        :param scenario: Only results of this scenario, if given.
        :param variant: Only results of this tree, if given.
        :param place: Only results of this place, if given; see `Entry.place`.
        :param metric: The name of the only metric that results then have; by
            default they have all.
        :raise HistoryError: When the file cannot be read.
        """
        wanted = {
            "scenario": scenario,
            "variant": variant,
            "host": TESTBED if place == "sealed" else place,
        }
        asked = {x: y for x, y in wanted.items() if y is not None}
        where = " AND ".join(f"{x} = ?" for x in asked) or "TRUE"
        named = {} if metric is None else {"name": metric}
        results = (
            f"SELECT id, {', '.join(_COLUMNS)} FROM result "
            f"WHERE {where} ORDER BY id"
        )
        metrics = (
            "SELECT result, name, value, unit FROM metric "
            f"WHERE result IN (SELECT id FROM result WHERE {where}) "
            f"AND {'name = ?' if named else 'TRUE'} ORDER BY result, name"
        )
        with self.tables():
            # Both are in the order of the results.
            groups = groupby(
                self._connection.execute(
                    metrics, (*asked.values(), *named.values())
                ),
                key=itemgetter(0),
            )
            number, group = next(groups, (None, iter(())))
            for row in self._connection.execute(
                results, tuple(asked.values())
            ):
                found: tuple[Metric, ...] = ()
                if row[0] == number:
                    found = tuple([Metric(*x[1:]) for x in group])
                    number, group = next(groups, (None, iter(())))
                if not 0 <= row[1] <= _LAST_S:
                    raise HistoryError(
                        f"{self._path} has a result of no time that there "
                        f"is: {row[1]} s",
                        _OTHER,
                    )
                yield Entry(*(*row[1:], found))

    @contextmanager
    def tables(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Work on the tables within one transaction.

        :param write: Whether they are going to be changed.
        :raise HistoryError: When that fails; then nothing was changed.
        :raise NoSpaceError: When the disk is full.
        """
        # A transaction that begins as a reader cannot wait for a writer.
        begin = "BEGIN IMMEDIATE" if write else "BEGIN"
        with (
            _explained(self._path),
            _transaction(self._connection, begin),
        ):
            yield self._connection

    def metrics(self) -> set[str]:
        """Return the names of all metrics.

        :raise HistoryError: When the file cannot be read.
        """
        with _explained(self._path):
            found = self._connection.execute(
                "SELECT DISTINCT name FROM metric"
            )
            return {name for (name,) in found}


@contextmanager
def open_history(
    path: Path, *, write: bool = False, wait_s: float = WAIT_S
) -> Iterator[History]:
    """Open a history.

    :param path: Its file.
    :param write: Whether results are to be added.  If so, a missing file is
        made, and a file of an older format is brought to this format.
    :param wait_s: How long to wait for another process, in seconds.
    :raise HistoryError: When the file is missing, another program's, newer,
        locked, damaged, or cannot be written.
    :raise NoSpaceError: When the disk is full.
    """
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.exists():
        raise _missing(path)
    if is_special(path):
        raise HistoryError(f"{path} is not a regular file", _OTHER)
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
    # A reader would create files next to it, to learn of writers.
    return "immutable=1"


def _prepare(
    connection: sqlite3.Connection, path: Path, write: bool, wait_s: float
) -> None:
    version = _identify(connection, path)
    if version:
        _check_tables(connection, path, version)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _error(path, sqlite3.SQLITE_CORRUPT)
    if not write:
        if not version:
            raise _missing(path)
        # What an older format has is the same in this one.
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
            # If two processes do this at once, one is turned away, and SQLite
            # does not wait.  The lowest eight bits tell the kind of error.
            busy = err.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)


def _identify(connection: sqlite3.Connection, path: Path) -> int:
    """Return the format of a history; 0 is an empty file."""
    version: int
    # This is one statement, as another process may be making the file.
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
            "Use a newer vfio-p2p.",
        )
    return version


def _check_tables(
    connection: sqlite3.Connection, path: Path, version: int
) -> None:
    """See that there is nothing but what this program has made.

    A view or a trigger of somebody else could compute forever.

    :raise HistoryError: When there is.
    """
    made = connection.execute(
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
    )
    if {sql for (sql,) in made} != {*sum(_STEPS[:version], ())}:
        raise HistoryError(
            f"{path}: its tables are not those of a history", _OTHER
        )


@contextmanager
def _transaction(
    connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE"
) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors have rolled the transaction back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into those that tell the user what to do."""
    try:
        yield
    except sqlite3.DatabaseError as err:
        code = getattr(err, "sqlite_errorcode", 0) & 0xFF
        # A file of its own is made larger when the disk is full already.
        if code == sqlite3.SQLITE_FULL or (
            code == sqlite3.SQLITE_IOERR
            and shutil.disk_usage(path.parent).free < _LEAST_BYTES
        ):
            raise NoSpaceError(path) from err
        if code not in _WHY:
            raise HistoryError(f"{path}: {err}", _OTHER) from err
        raise _error(path, code) from err
    except UnicodeDecodeError as err:
        # SQLite has quoted what it found in a damaged file.
        raise _error(path, sqlite3.SQLITE_CORRUPT) from err
    except (OverflowError, UnicodeEncodeError) as err:
        raise HistoryError(
            f"{path} cannot hold such a result: {err}",
            "This is no result of vfio-p2p; give the bundle of a run.",
        ) from err


def _error(path: Path, code: int) -> HistoryError:
    why, hint = _WHY[code]
    return HistoryError(f"{path}: {why}", hint)


def _missing(path: Path) -> HistoryError:
    return HistoryError(
        f"{path}: no history there yet",
        "Run 'vfio-p2p history record BUNDLE' to begin one.",
    )
