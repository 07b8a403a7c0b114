# SPDX-License-Identifier: GPL-2.0-or-later
"""The history is whole, refuses other files, and keeps what it confirmed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from histories import MS, entries, entry
from vfio_p2p.cli import main
from vfio_p2p.errors import HistoryError, NoSpaceError
from vfio_p2p.history import database as module
from vfio_p2p.history.database import (
    TESTBED,
    Entry,
    Metric,
    default_path,
    open_history,
)

HERE = Path(__file__).parent
NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history.sqlite3"


def stored(path: Path) -> list[Entry]:
    with open_history(path) as history:
        return list(history.entries())


def fill(path: Path, count: int = 3) -> list[Entry]:
    made = entries([300 * MS + number for number in range(count)])
    with open_history(path, write=True) as history:
        assert history.add(made) == count
    return made


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_what_is_stored_is_read(path: Path) -> None:
    made = fill(path)
    assert stored(path) == made
    assert made[1].metric("blackout") == Metric(
        "blackout", 300 * MS + 1, "ns"
    )
    assert made[1].metric("heartbeat") is None


def test_a_known_result_stays_as_it_is(path: Path) -> None:
    made = fill(path)
    later = replace(made[0], recorded_s=1_800_000_000)
    other = replace(made[0], qemu_revision="a revert")
    with open_history(path, write=True) as history:
        assert history.add([later, other]) == 1
    assert stored(path) == [*made, other]


def test_all_or_nothing(path: Path) -> None:
    made = fill(path)
    good = replace(entry(), digest="good")
    bad = replace(entry(), digest="bad", seed=1 << 63)
    with (
        open_history(path, write=True) as history,
        pytest.raises(HistoryError, match="cannot hold"),
    ):
        history.add([good, bad])
    assert stored(path) == made


def test_what_is_reported_is_on_the_disk(path: Path) -> None:
    # A kill cannot show this; only a loss of power could.
    with open_history(path, write=True) as history:
        ask = history._connection.execute
        assert ask("PRAGMA synchronous").fetchone() == (2,)     # FULL
        assert ask("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_history_is_state_and_not_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "vfio-p2p" / "history.sqlite3"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert default_path() == (
        Path.home() / ".local/state/vfio-p2p/history.sqlite3"
    )


def test_no_history(path: Path) -> None:
    with pytest.raises(HistoryError, match="no history there"):
        stored(path)
    assert not path.parent.exists()
    path.parent.mkdir()
    path.touch()
    with pytest.raises(HistoryError, match="no history there"):
        stored(path)
    # A writer that is killed at once may leave an empty file.
    fill(path)


@pytest.mark.parametrize("write", [False, True])
def test_a_newer_format(path: Path, write: bool) -> None:
    fill(path)
    execute(path, "PRAGMA user_version = 99")
    before = path.read_bytes()
    with (
        pytest.raises(HistoryError, match="format 99 is newer"),
        open_history(path, write=write),
    ):
        pass
    assert path.read_bytes() == before


def test_an_older_format(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fill(path)
    step = ("CREATE TABLE more (id INTEGER PRIMARY KEY)",)
    monkeypatch.setattr(module, "_STEPS", (*module._STEPS, step))
    # Whoever only reads needs nothing of the newer format.
    before = path.read_bytes()
    assert stored(path) == made
    assert path.read_bytes() == before
    with open_history(path, write=True):
        pass
    assert stored(path) == made
    execute(path, "INSERT INTO more VALUES (1)")


def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fill(path)
    with monkeypatch.context() as patch:
        step = ("CREATE TABLE more (id)", "CREATE TABLE more (id)")
        patch.setattr(module, "_STEPS", (*module._STEPS, step))
        with (
            pytest.raises(HistoryError, match="more already exists"),
            open_history(path, write=True),
        ):
            pass
    assert stored(path) == made


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize(
    "foreign",
    [
        # Each of them computes forever when it is used.
        "DROP TABLE metric; CREATE VIEW metric AS WITH RECURSIVE r(x) AS ("
        "SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT 1 AS result, "
        "'blackout' AS name, x AS value, 'ns' AS unit FROM r",
        "CREATE TRIGGER t AFTER INSERT ON result BEGIN INSERT INTO metric "
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) "
        "SELECT 1, x, 1, 'ns' FROM r; END",
        # Types that are not kept.
        "DROP TABLE metric; CREATE TABLE metric (result, name, value, unit)",
    ],
)
def test_tables_that_are_not_ours(
    path: Path, foreign: str, write: bool
) -> None:
    with open_history(path, write=True):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(foreign)
    with (
        pytest.raises(HistoryError, match="not those of a history"),
        open_history(path, write=write),
    ):
        pass


@pytest.mark.parametrize("write", [False, True])
def test_another_programs_database(path: Path, write: bool) -> None:
    path.parent.mkdir()
    execute(path, "CREATE TABLE places (url TEXT)")
    before = path.read_bytes()
    with (
        pytest.raises(HistoryError, match="another program's database"),
        open_history(path, write=write),
    ):
        pass
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("write", [False, True])
def test_a_pipe_is_not_waited_for(path: Path, write: bool) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    with (
        pytest.raises(HistoryError, match="not a regular file"),
        open_history(path, write=write),
    ):
        pass
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("write", [False, True])
def test_no_database(path: Path, write: bool) -> None:
    path.parent.mkdir()
    path.write_text("Dear diary, " * 100)
    with (
        pytest.raises(HistoryError, match="not an SQLite database"),
        open_history(path, write=write),
    ):
        pass
    assert path.read_text() == "Dear diary, " * 100


@pytest.mark.parametrize("write", [False, True])
def test_a_folder(path: Path, write: bool) -> None:
    path.mkdir(parents=True)
    with (
        pytest.raises(HistoryError, match=r"cannot be (opened|read)"),
        open_history(path, write=write),
    ):
        pass


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_damage(path: Path, write: bool, damage: str) -> None:
    fill(path, 200)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2 :] = b"\xa5" * (len(data) - len(data) // 2)
    path.write_bytes(data)
    with (
        pytest.raises(HistoryError, match="damaged"),
        open_history(path, write=write),
    ):
        pass
    assert path.read_bytes() == data


def test_locked(path: Path) -> None:
    made = fill(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        # Readers are not affected.
        assert stored(path) == made
        with (
            pytest.raises(HistoryError, match="has locked it"),
            open_history(path, write=True, wait_s=0.01),
        ):
            pass
    assert fill(path.with_name("other"))
    assert stored(path) == made


def test_a_full_disk(path: Path) -> None:
    made = fill(path)
    with open_history(path, write=True) as history:
        history._connection.execute("PRAGMA max_page_count = 1")
        many = [
            replace(entry(), digest=f"{number}") for number in range(999)
        ]
        with pytest.raises(NoSpaceError):
            history.add(many)
    assert stored(path) == made


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
def test_a_disk_that_was_full_before(path: Path) -> None:
    made = fill(path)
    small = path.with_name("small")
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], check=False
    )
    if mounted.returncode:
        pytest.skip("there are no file systems to be mounted")
    try:
        copy = small / path.name
        copy.write_bytes(path.read_bytes())
        with suppress(OSError), (small / "more").open("wb") as more:
            more.write(bytes(1 << 20))
        for write in True, False:
            with (
                pytest.raises(NoSpaceError) as caught,
                open_history(copy, write=write) as history,
            ):
                list(history.entries())
            assert str(copy) in caught.value.what
        (small / "more").unlink()
        assert stored(copy) == made
    finally:
        subprocess.run(["umount", small], check=True)


def test_read_only(path: Path, as_nobody: Path) -> None:
    made = fill(path)
    copy = as_nobody / path.name
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o444)
    as_nobody.chmod(0o555)
    with unprivileged():
        # SQLite would want to create two more files.
        assert stored(copy) == made
        with (
            pytest.raises(HistoryError, match=r"cannot be (opened|written)"),
            open_history(copy, write=True),
        ):
            pass
        as_nobody.chmod(0o755)
        assert stored(copy) == made
        with (
            pytest.raises(HistoryError, match="cannot be written"),
            open_history(copy, write=True) as history,
        ):
            history.add([entry()])
        assert stored(copy) == made


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Return a folder of a user who is not root, whoever runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, -1)
        yield folder


@contextmanager
def unprivileged() -> Iterator[None]:
    """Drop root's rights for a while, as nothing is read-only to root."""
    euid = os.geteuid()
    if euid == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(euid)


def test_many_begin_at_once(path: Path) -> None:
    made = entries(range(8))

    def add(one: Entry) -> int:
        with open_history(path, write=True) as history:
            return history.add([one])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(add, made)) == [1] * 8
    assert {x.digest for x in stored(path)} == {x.digest for x in made}


def test_killed_while_writing(path: Path) -> None:
    told = 0
    for stop_after in (1, 2, 5, 11, 23):
        path.unlink(missing_ok=True)
        with subprocess.Popen(
            [sys.executable, str(HERE / "history_writer.py"), str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as writer:
            assert writer.stdout
            lines = [writer.stdout.readline() for _ in range(stop_after)]
            writer.kill()
            lines += writer.stdout.readlines()
        told = int(lines[-1] if lines[-1].endswith(b"\n") else lines[-2])
        found = stored(path)
        # Each pair is stored as a whole, or not at all.
        assert [x.digest for x in found] == [
            f"{number}-{half}"
            for number in range(len(found) // 2)
            for half in "ab"
        ]
        assert len(found) // 2 > told
        assert all(len(x.metrics) == 2 for x in found)
        fill(path)
    assert told


def test_results_are_selected(path: Path) -> None:
    made = [
        replace(
            entry(300 * MS),
            digest=str(number),
            scenario="even" if number % 2 == 0 else "odd",
            host="box" if number > 2 else TESTBED,
            metrics=()
            if number == 1
            else (Metric("a", number, "ns"), Metric("b", number, "ns")),
        )
        for number in range(5)
    ]
    with open_history(path, write=True) as history:
        history.add(made)
    with open_history(path) as history:
        assert list(history.entries()) == made
        assert list(history.entries(scenario="odd")) == made[1::2]
        assert list(history.entries(place="sealed")) == made[:3]
        assert list(history.entries(place="box", scenario="even")) == made[4:]
        assert list(history.entries(variant="none")) == []
        found = [x.metrics for x in history.entries(metric="b")]
        assert found == [x.metrics[1:] for x in made]
        assert history.metrics() == {"a", "b"}


def test_results_are_read_one_by_one(path: Path) -> None:
    """They are those of the moment when reading began."""
    fill(path, 3)
    with open_history(path) as history:
        reading = history.entries()
        first = next(reading)
        with open_history(path, write=True) as writer:
            writer.add([replace(first, digest="later")])
        assert len(list(reading)) == 2
    assert len(stored(path)) == 4


def test_a_history_of_0_1_0(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    old = HERE / "data" / "be555e3" / "history.sqlite3"
    path.write_bytes(old.read_bytes())
    with open_history(path) as history:
        known = list(history.entries())
    assert len(known) == 7
    assert {x.variant for x in known} == {"patched"}
    assert all(x.metric("blackout") for x in known)
    with open_history(path, write=True) as history:
        assert history.add(known) == 0
        assert history.add([entry(5 * MS)]) == 1
    with open_history(path) as history:
        assert len(list(history.entries())) == 8
    assert main(["history", "list", "--db", str(path)]) == 0
    assert main(["history", "plot", "blackout", "--db", str(path)]) == 0
