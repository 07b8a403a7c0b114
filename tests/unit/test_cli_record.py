# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands keep their runs in the history that they are given."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from bundles import make_bundle
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.cli import main
from vfio_p2p.errors import HistoryError
from vfio_p2p.history.database import default_path, open_history
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.record import (
    check_history,
    project_revision,
    recording,
)
from vfio_p2p.progress import Task
from workshops import FakeWorkshop

COMMANDS = {
    "run": ["two-devices"],
    "validate": [],
    "validate --mutants": [],
    "validate --followups": [],
    "validate --all": [],
    "compare": ["base", "patched"],
    "demo": [],
}
OLDER = ("report.json", "junit.xml", "demo.svg")


def digests(path: Path) -> list[str]:
    """Return the digests of the history on the disk."""
    with open_history(path) as history:
        return [x.digest for x in history.entries()]


def test_each_is_on_the_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "db"
    bundles = [
        open_bundle(make_bundle(tmp_path / str(seed), seed=seed))
        for seed in (1, 2)
    ]
    with recording(path) as record:
        assert digests(path) == []
        for number, bundle in enumerate(bundles, 1):
            record(bundle, Verdict.PASS)
            assert len(digests(path)) == number
        # The same run from the cache is not another result.
        record(bundles[0], Verdict.PASS)
    assert digests(path) == [x.digest for x in bundles]
    with open_history(path) as history:
        (found, _) = history.entries()
    assert (found.seed, found.variant) == (1, "patched")
    assert found.project_revision == project_revision()


class Remarks:
    """A reporter that keeps its remarks."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def task(self, name: str) -> Task:
        """Fail, since no task is expected."""
        raise AssertionError(name)

    def remark(self, text: str) -> None:
        """Keep the text."""
        self.texts.append(text)


def test_only_what_passes_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "db"
    bundles = {
        verdict: open_bundle(
            make_bundle(tmp_path / verdict, seed=seed)
        )
        for seed, verdict in enumerate(Verdict)
    }
    told = Remarks()
    with recording(path, told) as record:
        for verdict, bundle in bundles.items():
            record(bundle, verdict)
    assert digests(path) == [bundles[Verdict.PASS].digest]
    count = len(Verdict) - 1
    assert told.texts == [f"{path}: without {count} that did not pass"]
    told.texts.clear()
    with recording(path, told):
        pass
    assert not told.texts


def test_nothing_is_kept_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with recording(None) as record:
        record(open_bundle(make_bundle(tmp_path / "b")), Verdict.PASS)
    assert not default_path().parent.exists()


def damage(path: Path, kind: str) -> None:
    """Make a history of one run, and then damage the file."""
    with recording(path) as record:
        record(open_bundle(make_bundle(path.parent / "b")), Verdict.PASS)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        if kind == "newer":
            other.execute("PRAGMA user_version = 7")
        elif kind == "foreign":
            other.execute("PRAGMA application_id = 7")
        elif kind == "damaged":
            path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 30_000)
        elif kind == "a folder":
            path.unlink()
            path.mkdir()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("damaged", "damaged"),
        ("newer", "newer than this"),
        ("foreign", "another program's"),
        ("a folder", "cannot be opened"),
    ],
)
def test_a_bad_history_is_found_out(
    kind: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "db"
    damage(path, kind)
    with pytest.raises(HistoryError, match=said) as caught:
        check_history(path)
    assert str(path) in caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_history_is_told_of_before_anything_is_built(
    command: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "db"
    damage(path, "foreign")
    (tmp_path / "out").mkdir()
    for name in OLDER:
        (tmp_path / "out" / name).touch()
    workshop = FakeWorkshop()
    arguments = [*command.split(), *COMMANDS[command]]
    assert main([*arguments, "--history", str(path)], workshop) == 2
    what, hint = capsys.readouterr().err.splitlines()
    assert "another program's" in what
    assert hint.startswith("  ")
    assert {x.name for x in (tmp_path / "out").iterdir()} == {*OLDER}
    assert workshop.built == []


@pytest.mark.parametrize("command", ["validate", "compare"])
def test_seeds_that_nothing_can_hold(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = [command, *COMMANDS[command], "--seed", str(2**63 - 3)]
    workshop = FakeWorkshop()
    assert main([*words, "--seeds", "4"], workshop) == 2
    assert "the last seed is too large" in capsys.readouterr().err
    assert workshop.built == []
    workshop.make = lambda cell, path: make_bundle(
        path,
        scenario=cell.job.scenario,
        variant=cell.variant,
        seed=cell.job.seed,
    )
    assert main([*words, "--seeds", "3"], workshop) != 2
    assert {cell.job.seed for cell in workshop.ran} == {
        2**63 - 3, 2**63 - 2, 2**63 - 1,
    }  # fmt: skip
