# SPDX-License-Identifier: GPL-2.0-or-later
"""Alerts: raised once for each change of QEMU, and kept with their states."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import vfio_p2p
from histories import MS, entry
from vfio_p2p.cli import main
from vfio_p2p.history.database import Entry, Metric, open_history

HARNESS = str(Path(vfio_p2p.__file__).parents[1])
EVIL = "\x1b[31m\u202e<b>{{ 7 }}"


def row(
    values_ns: Sequence[int], seed: int = 1, **changes: Any
) -> list[Entry]:
    """Make results of commits, a day apart, of which a phase is a part."""
    draw = random.Random(seed)
    found = []
    for number, value in enumerate(values_ns):
        commit = f"{number:04x}" * 10
        noise = draw.randrange(MS // 10)
        made = replace(
            entry(value + noise, commit),
            qemu_revision_s=1_600_000_000 + 86_400 * number,
            metrics=(
                Metric("blackout", value + noise, "ns"),
                Metric("phase.load", value // 3 + noise // 2, "ns"),
                Metric("phase.save", 5 * MS, "ns"),
            ),
            **changes,
        )
        found.append(replace(made, digest=f"{commit} {changes}"))
    return found


def steps(*levels: tuple[int, float]) -> list[int]:
    """Return values: how many, and of which milliseconds."""
    return [round(ms * MS) for count, ms in levels for _ in range(count)]


class Book:
    """A history, and the commands about its alerts."""

    def __init__(
        self, path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.path = path
        self._capsys = capsys

    def add(self, *found: Entry) -> None:
        """Add results."""
        with open_history(self.path, write=True) as history:
            history.add(found)

    def execute(self, *statements: str) -> None:
        """Change the file behind the back of its program."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def command(self, *words: str) -> tuple[int, str]:
        """Run a command, and return its exit code and what it says."""
        try:
            code = main(["history", *words, "--db", str(self.path)])
        except SystemExit as err:
            code = int(str(err.code))
        told = self._capsys.readouterr()
        return code, told.out + told.err

    def alerts(self, *words: str) -> list[Any]:
        """Look for alerts, and return those that are shown."""
        code, told = self.command("alerts", "--json", *words)
        assert code in (0, 1), told
        found: list[Any] = json.loads(told)["alerts"]
        return found


@pytest.fixture
def book(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Book:
    """A history with nothing in it."""
    return Book(tmp_path / "h.sqlite3", capsys)


def test_a_change_is_raised_once(book: Book) -> None:
    book.add(*row(steps((18, 300), (12, 303))))
    code, told = book.command("alerts")
    assert code == 1
    assert told.splitlines()[0] == (
        "alert 1, new: two-devices of stock at testbed"
    )
    assert f"since {18:04x}" in told
    assert f"before: {17:04x}" in told
    assert "1 new, 1 shown, 1 in all" in told
    code, told = book.command("alerts")
    assert code == 0
    assert "0 new, 1 shown, 1 in all" in told


def test_the_metrics_that_moved_are_told(book: Book) -> None:
    book.add(*row(steps((18, 300), (12, 330))))
    (alert,) = book.alerts()
    moved = {x["name"]: x for x in alert["change"]["moved"]}
    assert [*moved] == ["blackout", "phase.load"]
    assert moved["blackout"]["after"] - moved["blackout"][
        "before"
    ] == pytest.approx(30 * MS, rel=0.01)


def test_every_change_is_found_and_nothing_else(book: Book) -> None:
    book.add(*row(steps((14, 300), (14, 303), (14, 294))))
    found = [x["change"]["first"]["commit"] for x in book.alerts()]
    assert found == [f"{14:04x}" * 10, f"{28:04x}" * 10]


@pytest.mark.parametrize("seed", range(4))
def test_a_history_that_grows_raises_nothing_twice(
    book: Book, seed: int
) -> None:
    values = row(steps((15, 300), (25, 301)), seed=seed)
    book.add(*values[:12])
    raised = 0
    for each in values[12:]:
        book.add(each)
        code, _ = book.command("alerts")
        raised += code
    assert raised == 1
    assert len(book.alerts("--all")) == 1


def test_noise_raises_nothing(book: Book) -> None:
    book.add(*row(steps((40, 300))))
    code, told = book.command("alerts")
    assert code == 0
    assert told == "0 new, 0 shown, 0 in all\n"


def test_what_is_negligible_is_not_raised(book: Book) -> None:
    values = [
        replace(
            x,
            metrics=(
                Metric("blackout", 300 * MS, "ns"),
                Metric("phase.load", 100 * MS + (n > 15) * MS // 5, "ns"),
            ),
        )
        for n, x in enumerate(row(steps((30, 300))))
    ]
    book.add(*values)
    assert not book.alerts()


def test_another_testbed_is_another_series(book: Book) -> None:
    old = row(steps((15, 300)), testbed="01d")
    new = row(steps((30, 310)), testbed="11e")[15:]
    book.add(*old, *new)
    assert not book.alerts()


def test_states_are_kept(book: Book) -> None:
    book.add(*row(steps((18, 300), (12, 303))))
    book.command("alerts")
    code, told = book.command(
        "alert", "1", "--state", "expected", "--note", "it was meant"
    )
    assert code == 0
    assert "alert 1, expected:" in told
    assert "note: it was meant" in told
    assert not book.alerts()
    (alert,) = book.alerts("--all")
    assert (alert["state"], alert["note"]) == ("expected", "it was meant")
    book.command("alert", "1", "--state", "confirmed")
    (alert,) = book.alerts()
    assert (alert["state"], alert["note"]) == ("confirmed", "it was meant")
    # More results raise nothing, whatever the state is.
    book.add(*row(steps((18, 300), (22, 303)))[30:])
    assert book.command("alerts")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["alert", "7"], "there is no alert 7"),
        (["alert", "0"], "not the number of an alert"),
        (["alert", "1", "--state", "done"], "invalid choice"),
    ],
)
def test_what_does_not_exist(
    book: Book, words: list[str], said: str
) -> None:
    book.add(*row(steps((3, 300))))
    code, told = book.command(*words)
    assert code == 2
    assert said in told


@pytest.mark.parametrize("words", [["alerts"], ["alert", "1"]])
def test_no_history_is_made(book: Book, words: list[str]) -> None:
    code, told = book.command(*words)
    assert code == 2
    assert "no history there yet" in told
    assert not book.path.exists()


def test_several_look_at_once(book: Book) -> None:
    book.add(*row(steps((18, 300), (12, 303))))
    words = ["history", "alerts", "--db", str(book.path)]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "vfio_p2p", *words],
            env={**os.environ, "PYTHONPATH": HARNESS},
            stdout=subprocess.DEVNULL,
        )
        for _ in range(4)
    ]
    assert sorted(x.wait() for x in running) == [0, 0, 0, 1]
    assert len(book.alerts()) == 1


def test_an_older_history_gets_the_table(book: Book) -> None:
    book.add(*row(steps((18, 300), (12, 303))))
    book.execute("DROP TABLE alert", "PRAGMA user_version = 1")
    code, _ = book.command("plot", "blackout")
    assert code == 0
    assert len(book.alerts()) == 1


@pytest.mark.parametrize(
    "damage", ["state = 'gone'", "change = '{}'", "change = '['"]
)
def test_a_damaged_alert(book: Book, damage: str) -> None:
    book.add(*row(steps((18, 300), (12, 303))))
    book.command("alerts")
    book.execute(f"UPDATE alert SET {damage}")
    for words in (["alerts"], ["alert", "1"]):
        code, told = book.command(*words)
        assert code == 2
        assert "alert 1 of the history is damaged" in told


def test_hostile_text(book: Book) -> None:
    book.add(*row(steps((18, 300), (12, 303)), variant=EVIL, scenario=EVIL))
    _, told = book.command("alerts")
    assert "\x1b" not in told
    assert "\u202e" not in told
    _, told = book.command("alert", "1", "--note", EVIL)
    assert "\x1b" not in told
