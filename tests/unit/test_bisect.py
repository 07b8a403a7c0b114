# SPDX-License-Identifier: GPL-2.0-or-later
"""Bisecting finds the right commit, and leaves the repository as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fake_bisect
import pytest
from bench import alive
from vfio_p2p.cli.bisect import _text
from vfio_p2p.errors import (
    BuildError,
    HarnessError,
    SourceError,
    UsageError,
)
from vfio_p2p.history.database import Entry, open_history
from vfio_p2p.paths import cache_dir
from vfio_p2p.plans.bisect.search import (
    Above,
    Bisection,
    Measure,
    MeasuredCommit,
    Steps,
    search,
)
from vfio_p2p.plans.bisect.step import Probe
from vfio_p2p.progress import Progress, silent
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Scenario

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Repository:
    """A git repository whose commits contain their measurements."""

    path: Path

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(self.path), *arguments],
            check=True, capture_output=True, text=True,
        ).stdout.strip()

    def commit(self, value: object) -> str:
        (self.path / "value").write_text(f"{value}\n")
        self.git("add", "value")
        self.git(
            "commit", "--quiet", "--allow-empty", "-m", f"Make it {value}"
        )
        return self.git("rev-parse", "HEAD")

    def state(self) -> dict[str, str]:
        """Return everything that a user could notice."""
        return {
            "worktrees": self.git("worktree", "list", "--porcelain"),
            "refs": self.git("for-each-ref"),
            "status": self.git("status", "--porcelain", "--branch"),
            "files": "\n".join(
                sorted(
                    str(x.relative_to(self.path))
                    for x in self.path.rglob("*")
                    # Git makes this file when any reference is deleted.
                    if x.name != "packed-refs"
                )
            ),
        }


@pytest.fixture
def repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Repository:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A Developer")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "dev@example.org")
    made = Repository(tmp_path / "it's a repository")
    made.path.mkdir()
    made.git("init", "--quiet", "--initial-branch=master")
    return made


def commits(repository: Repository, values: Sequence[object]) -> list[str]:
    return [repository.commit(value) for value in values]


def bisect(
    repository: Repository,
    good: str,
    bad: str,
    above: Above | None = None,
    told: list[MeasuredCommit] | None = None,
    measure: Measure = fake_bisect.measure,
) -> Bisection:
    """Bisect, and check that no traces are left."""
    before = repository.state()
    try:
        return search(
            repository.path,
            good,
            bad,
            Probe("blackout", 42, "f00d"),
            load("two-devices"),
            silent,
            (told if told is not None else []).append,
            above,
            Steps(measure, fake_bisect.SCRIPT),
        )
    finally:
        assert repository.state() == before
        left = [x.name for x in (cache_dir() / "bisect").glob("*")]
        assert [x for x in left if not x.endswith(".lock")] == []


@pytest.mark.parametrize("where", range(1, 8))
def test_the_commit_and_by_how_much(
    repository: Repository, where: int
) -> None:
    values = [300] * where + [303] * (8 - where)
    made = commits(repository, values)
    told: list[MeasuredCommit] = []
    found = bisect(repository, made[0], made[-1], told=told)
    assert found.first
    assert found.before
    assert found.first.commit == made[where]
    assert found.first.subject == "Make it 303"
    assert found.before.commit == made[where - 1]
    assert found.candidates == (made[where],)
    assert found.first.value_ns == 303_000_000
    assert found.before.value_ns == 300_000_000
    assert tuple(told) == found.samples
    assert f"{made[where]} is the first bad commit" in _text(found)
    assert "+3.000 ms (+1.00 %)" in _text(found)


def test_an_improvement_has_a_first_commit_too(
    repository: Repository,
) -> None:
    made = commits(repository, [300, 299, 300, 280, 281, 280])
    found = bisect(repository, made[0], made[-1])
    assert found.first
    assert found.first.commit == made[3]
    assert "-20.000 ms (-6.67 %)" in _text(found)


def test_a_cache_with_an_odd_name(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "it's; a $cache"))
    made = commits(repository, [300, 300, 303, 303])
    found = bisect(repository, made[0], made[-1])
    assert found.first
    assert found.first.commit == made[2]


def test_names_of_commits(repository: Repository) -> None:
    made = commits(repository, [300, 300, 303])
    repository.git("tag", "v1", made[0])
    found = bisect(repository, "v1", "master")
    assert found.first
    assert found.first.commit == made[2]


@pytest.mark.parametrize("value", ["broken", "refused"])
def test_what_cannot_be_known_is_skipped(
    repository: Repository, value: str
) -> None:
    made = commits(repository, [300, 300, value, 300, 303, value, 303])
    found = bisect(repository, made[0], made[-1])
    assert found.first
    assert found.first.commit == made[4]


def test_only_skipped_are_left(repository: Repository) -> None:
    made = commits(repository, [300, 300, "broken", "refused", 303, 303])
    found = bisect(repository, made[0], made[-1])
    assert found.first is None
    assert set(found.candidates) == set(made[2:5])
    assert {x.why for x in found.samples if x.bad is None} == {
        "ninja failed with status 1",
        "no blackout",
    }
    text = _text(found)
    assert "the first bad commit is one of these" in text
    assert made[2][:12] in text


@pytest.mark.parametrize(
    ("above", "first"),
    [
        (Above(0.5, percent=True), 1),
        (Above(1.5, percent=True), 3),
        (Above(2e6, percent=False), 2),
        (None, 4),
    ],
)
def test_where_bad_begins(
    repository: Repository, above: Above | None, first: int
) -> None:
    made = commits(repository, [300, 302, 304, 306, 390, 400])
    found = bisect(repository, made[0], made[-1], above)
    assert found.first
    assert found.first.commit == made[first]


@pytest.mark.parametrize("bad", [300, 302])
def test_nothing_to_be_found(repository: Repository, bad: int) -> None:
    made = commits(repository, [300, 400, bad])
    above = Above(1, percent=True) if bad == 302 else None
    with pytest.raises(UsageError, match="there is no change to find"):
        bisect(repository, made[0], made[-1], above)


def test_an_end_that_does_not_build(repository: Repository) -> None:
    made = commits(repository, [300, 303, "broken"])
    with pytest.raises(BuildError):
        bisect(repository, made[0], made[-1])


def test_an_error_that_no_commit_is_to_blame_for(
    repository: Repository,
) -> None:
    made = commits(repository, [300, 300, "full", 303, 303])
    with pytest.raises(HarnessError, match="no room under") as caught:
        bisect(repository, made[0], made[-1])
    assert caught.value.exit_code == 2


def test_a_side_branch(repository: Repository) -> None:
    good = repository.commit(300)
    repository.git("checkout", "--quiet", "-b", "side")
    guilty = commits(repository, [300, 303])[1]
    repository.git("checkout", "--quiet", "master")
    (repository.path / "other").write_text("1\n")
    repository.git("add", "other")
    repository.git("commit", "--quiet", "-m", "Something else")
    repository.git("merge", "--quiet", "-m", "Merge", "side")
    found = bisect(repository, good, "master")
    assert found.first
    assert found.first.commit == guilty


def test_a_parent_that_git_did_not_ask_for(repository: Repository) -> None:
    good = repository.commit(300)
    fork = repository.commit(300.5)
    repository.git("checkout", "--quiet", "-b", "side")
    guilty = repository.commit(303)
    repository.git("checkout", "--quiet", "master")
    for number in range(4):
        (repository.path / "other").write_text(f"{number}\n")
        repository.git("add", "other")
        repository.git("commit", "--quiet", "-m", "Something else")
    repository.git("merge", "--quiet", "-m", "Merge", "side")
    told: list[MeasuredCommit] = []
    found = bisect(repository, good, "master", told=told)
    assert found.first
    assert found.before
    assert found.first.commit == guilty
    assert (found.before.commit, found.before.value_ns) == (
        fork,
        300_500_000,
    )
    # The commit was not measured before this was known.
    assert told[-1] == found.before


def test_bad_arguments(repository: Repository, tmp_path: Path) -> None:
    made = commits(repository, [300, 303])
    for good, bad in ((made[1], made[0]), (made[0], made[0])):
        with pytest.raises(UsageError, match="is no ancestor of"):
            bisect(repository, good, bad)
    for name in ("no-such-tag", "--all", "HEAD:value", "", "v1..v2"):
        with pytest.raises(UsageError, match="has no commit"):
            bisect(repository, made[0], name)
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(SourceError, match="git"):
        search(
            outside, "a", "b", Probe("blackout", 1, ""), load("two-devices"),
            silent, print,
        )


def test_the_users_own_bisection_goes_on(repository: Repository) -> None:
    made = commits(repository, [300, 300, 303, 303, 303])
    repository.git("bisect", "start", made[-1], made[0])
    log = repository.git("bisect", "log")
    found = bisect(repository, made[0], made[-1])
    assert found.first
    assert repository.git("bisect", "log") == log


def test_the_users_hooks_and_changes(
    repository: Repository, tmp_path: Path
) -> None:
    made = commits(repository, [300, 300, 303, 303, 303])
    hook = repository.path / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\n")
    hook.chmod(0o755)
    (repository.path / "value").write_text("work under way\n")
    found = bisect(repository, made[0], made[-1])
    assert found.first
    assert not (tmp_path / "ran").exists()
    assert (repository.path / "value").read_text() == "work under way\n"


def test_what_meson_fetched_comes_along(repository: Repository) -> None:
    folder = repository.path / "subprojects"
    (folder / "keycodemapdb").mkdir(parents=True)
    (folder / "keycodemapdb.wrap").touch()
    (folder / "keycodemapdb" / "README").write_text("fetched\n")
    (folder / ".gitignore").write_text("/keycodemapdb\n")
    repository.git("add", ".")
    made = commits(repository, [300, 303])
    seen = []

    def look(
        tree: Path,
        home: Path,
        probe: Probe,
        scenario: Scenario,
        progress: Progress,
    ) -> Entry:
        seen.append((tree / "subprojects/keycodemapdb/README").read_text())
        return fake_bisect.measure(tree, home, probe, scenario, progress)

    bisect(repository, made[0], made[-1], measure=look)
    assert seen == ["fetched\n"] * 2


def command(
    repository: Repository, *arguments: str
) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [
            sys.executable, str(HERE / "fake_bisect.py"),
            "--source", str(repository.path), *arguments,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"it ended without {text!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", [0, 2])
def test_a_signal_leaves_nothing(
    repository: Repository, number: signal.Signals, where: int
) -> None:
    values: list[object] = [300, 300, 300, 303, 303]
    values[where] = "slow"
    made = commits(repository, values)
    before = repository.state()
    process = command(repository, "--good", made[0], "--bad", made[-1])
    wait_for(process, "sleeping")
    (pid,) = (cache_dir() / "bisect").glob("*/pid")
    step = int(pid.read_text())
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr.endswith("vfio-p2p: interrupted\n")
    assert repository.state() == before
    assert not alive(step)
    left = [x.suffix for x in (cache_dir() / "bisect").iterdir()]
    assert set(left) == {".lock"}


def test_what_a_kill_left_is_put_away_next_time(
    repository: Repository,
) -> None:
    made = commits(repository, ["slow", 303])
    clean = repository.state()
    process = command(repository, "--good", made[0], "--bad", made[-1])
    wait_for(process, "sleeping")
    process.kill()
    process.communicate()
    assert repository.state()["worktrees"] != clean["worktrees"]
    made = [repository.commit(300), repository.commit(303)]
    clean["files"] = repository.state()["files"]
    process = command(
        repository, "--good", made[0], "--bad", made[-1], "--json"
    )
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["first_bad"] == made[1]
    assert len(repository.git("worktree", "list").splitlines()) == 1


def test_the_history_gets_what_was_measured(
    repository: Repository, tmp_path: Path
) -> None:
    made = commits(repository, [300, 300, "broken", 303, 303])
    path = tmp_path / "history"
    process = command(
        repository, "--good", made[0], "--bad", made[-1],
        "--record", "--db", str(path), "--above", "1ms",
    )
    stdout, _ = process.communicate()
    assert process.returncode == 3
    assert made[2][:12] in stdout
    with open_history(path) as history:
        found = {x.qemu_revision for x in history.entries()}
    assert found == {made[0], made[1], made[3], made[4]}


def test_a_history_that_is_none_is_said_at_once(
    repository: Repository, tmp_path: Path
) -> None:
    made = commits(repository, ["broken", 303])
    process = command(
        repository, "--good", made[0], "--bad", made[1],
        "--record", "--db", str(tmp_path),
    )
    _, stderr = process.communicate()
    assert process.returncode == 2
    assert "cannot be opened" in stderr
