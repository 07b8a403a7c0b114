# SPDX-License-Identifier: GPL-2.0-or-later
"""Whoever runs something keeps it in the history, if told where."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from bundles import make_bundle
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.cli import main
from vfio_p2p.cli.record import project_revision, recording
from vfio_p2p.history.database import default_path, open_history
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.series import default_base, parse_variant

COMMANDS = {
    "run": ["two-devices"],
    "validate": [],
    "validate --mutants": [],
    "validate --followups": [],
    "validate --all": [],
    "compare": ["base", "patched"],
    "demo": [],
}
MODULES = (
    "run", "validate", "compare", "mutants", "followups", "everything", "demo",
    "session",
)
OLDER = ("report.json", "junit.xml", "demo.svg")


def digests(path: Path) -> list[str]:
    """Of what is on the disk."""
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
        # Taken from the cache, it is no other result.
        record(bundles[0], Verdict.PASS)
    assert digests(path) == [x.digest for x in bundles]
    with open_history(path) as history:
        (found, _) = history.entries()
    assert (found.seed, found.variant) == (1, "patched")
    assert found.project_revision == project_revision()


def test_only_what_passes_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "db"
    bundles = {
        verdict: open_bundle(
            make_bundle(tmp_path / verdict, seed=seed)
        )
        for seed, verdict in enumerate(Verdict)
    }
    with recording(path) as record:
        for verdict, bundle in bundles.items():
            record(bundle, verdict)
    assert digests(path) == [bundles[Verdict.PASS].digest]
    said = capsys.readouterr().err
    assert said == f"{path}: without {len(Verdict) - 1} that did not pass\n"
    with recording(path):
        pass
    assert not capsys.readouterr().err


def test_nothing_is_kept_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with recording(None) as record:
        record(open_bundle(make_bundle(tmp_path / "b")), Verdict.PASS)
    assert not default_path().parent.exists()


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a source, of which nothing may be built."""

    def build_all(*args: object) -> None:
        pytest.fail("something was built")

    base = default_base()
    fakes = {
        "find_outer": lambda: None,
        "choose_source": lambda args: (base, SimpleNamespace(version="10.0")),
        "choose_variants": lambda base, source, names: [
            parse_variant(base, x) for x in names
        ],
        "build_all": build_all,
    }
    for module in MODULES:
        for name, fake in fakes.items():
            monkeypatch.setattr(
                f"vfio_p2p.cli.{module}.{name}", fake, raising=False
            )
    monkeypatch.setattr(
        "vfio_p2p.cli.record.open_history",
        partial(open_history, wait_s=0.01),
    )


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("locked", "another program has locked it"),
        ("damaged", "damaged"),
        ("newer", "newer than this"),
        ("foreign", "another program's"),
        ("a folder", "cannot be opened"),
    ],
)
def test_a_bad_history_is_told_of_before_anything_runs(
    command: str, kind: str, said: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "db"
    with recording(path) as record:
        record(open_bundle(make_bundle(tmp_path / "b")), Verdict.PASS)
    (tmp_path / "out").mkdir()
    for name in OLDER:
        (tmp_path / "out" / name).touch()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        if kind == "newer":
            other.execute("PRAGMA user_version = 7")
        elif kind == "foreign":
            other.execute("PRAGMA application_id = 7")
        elif kind == "locked":
            other.execute("BEGIN EXCLUSIVE")
        elif kind == "damaged":
            path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 30_000)
        elif kind == "a folder":
            path.unlink()
            path.mkdir()
        arguments = [*command.split(), *COMMANDS[command]]
        assert main([*arguments, "--history", str(path)]) == 2
    what, hint = capsys.readouterr().err.splitlines()
    assert said in what
    assert str(path) in what
    assert hint.startswith("  ")
    assert {x.name for x in (tmp_path / "out").iterdir()} == {*OLDER}


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("command", ["validate", "compare"])
def test_seeds_that_nothing_can_hold(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [command, *COMMANDS[command], "--seed", str(2**63 - 3)]
    with pytest.raises(pytest.fail.Exception, match="was built"):
        main([*words, "--seeds", "3"])
    assert main([*words, "--seeds", "4"]) == 2
    assert "the last seed is too large" in capsys.readouterr().err
