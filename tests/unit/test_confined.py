# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of somebody else's tree run only where they have to, and confined.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from vfio_p2p.errors import SourceError
from vfio_p2p.machine import confined
from vfio_p2p.machine.confined import plain_environment, without_network
from vfio_p2p.machine.process import owned
from vfio_p2p.series import git
from vfio_p2p.series.git import local_changes, revision_of, run_git

CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', {}))"


def connects(command: Callable[[list[str]], list[str]]) -> bool:
    """Return whether a program can reach a server on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = CONNECT.format(server.getsockname()[1])
        return not subprocess.run(
            command([sys.executable, "-c", program]),
            capture_output=True,
            check=False,
        ).returncode


def test_a_confined_program_has_no_network() -> None:
    if without_network(["/x"]) == ["/x"]:
        pytest.skip("this machine allows no network namespaces")
    assert connects(list)
    assert not connects(without_network)


def test_a_build_has_no_network_and_is_still_ours(tmp_path: Path) -> None:
    if without_network(["/x"]) == ["/x"]:
        pytest.skip("this machine allows no network namespaces")
    show = ["sh", "-c", "cat /proc/net/dev; cat /proc/$$/status"]
    with owned(
        show, cwd=tmp_path, env=plain_environment(), network=False
    ) as process:
        assert process.stdout
        text = process.stdout.read().decode()
        assert f"Pid:\t{process.pid}" in text
    assert "eth" not in text
    assert f"PPid:\t{os.getpid()}" in text


def test_where_namespaces_are_not_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = shutil.which("false")
    monkeypatch.setenv("PATH", str(tmp_path))
    try:
        for program in (None, refuses):
            if program:
                (tmp_path / "unshare").symlink_to(program)
            confined._prefix.cache_clear()
            assert without_network(["/x", Path("y")]) == ["/x", "y"]
    finally:
        confined._prefix.cache_clear()


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERL5OPT", "-Mevil")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/x")
    found = plain_environment({"A": "b"})
    assert found.keys() <= {"PATH", "HOME", "TMPDIR", "LC_ALL", "A"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout whose configuration names programs for all occasions."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "x").write_text("1")
    (root / ".gitattributes").write_text("x filter=evil diff=evil\n")
    call = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*call, *words], check=True)
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho \"$0\" >> {tmp_path}/ran\ncat\n")
    program.chmod(0o755)
    included = root / ".git" / "more"
    for name in ("clean", "smudge"):
        subprocess.run(
            ["git", "config", "-f", included, f"filter.evil.{name}", program],
            check=True,
        )
    for key, value in (
        ("core.fsmonitor", str(program)),
        ("filter.evil.required", "true"),
        ("filter.evil.process", str(program)),
        ("diff.evil.textconv", str(program)),
        ("include.path", "more"),
        ("core.hooksPath", str(root / "hooks")),
    ):
        subprocess.run([*call, "config", key, value], check=True)
    (root / "hooks").mkdir()
    for hook in ("post-index-change", "post-checkout", "pre-applypatch"):
        (root / "hooks" / hook).symlink_to(program)
    # What git has noted of the file no longer fits, so it has to look.
    os.utime(root / "x", (1, 1))
    return root


def test_git_runs_nothing_of_the_tree(tree: Path, tmp_path: Path) -> None:
    found = revision_of(tree)
    assert found is not None
    assert len(found.commit) == 40
    assert local_changes(tree) == []
    (tree / "x").write_text("2")
    assert local_changes(tree) == ["x"]
    assert run_git(tree, "checkout", "--quiet", "--", ".").returncode == 0
    assert (tree / "x").read_text() == "1"
    assert not (tmp_path / "ran").exists()
    # It does without our options.
    os.utime(tree / "x", (2, 2))
    subprocess.run(
        ["git", "-C", tree, "status"], capture_output=True, check=False
    )
    assert (tmp_path / "ran").exists()


def test_git_that_does_not_end(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git, "_LIMIT_S", 0.000001)
    with pytest.raises(SourceError, match="did not end within"):
        revision_of(tree)
