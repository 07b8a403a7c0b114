# SPDX-License-Identifier: GPL-2.0-or-later
"""The locks of physical functions, between real processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from threading import Timer

import pytest
from host_folders import PF, HostFolders
from vfio_p2p.agent.failure import AgentError
from vfio_p2p.agent.locks import lock_path, locked
from vfio_p2p.agent.roots import Roots

SECOND = "0000:02:00.0"

HOLD = """
import sys
from pathlib import Path
from threading import Timer
from vfio_p2p.agent.main import main
from vfio_p2p.agent.roots import Roots
root = Path(sys.argv[1])
sys.exit(main(sys.argv[2:], Roots(sys=root / "sys", lock=root / "lock")))
"""


@pytest.fixture
def host(tmp_path: Path) -> HostFolders:
    """A host with the processes of this machine."""
    made = HostFolders(tmp_path, Path("/proc")).make()
    (made.devices / SECOND).mkdir()
    return made


@contextmanager
def holding(
    host: HostFolders, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """Run the command ``hold`` until the block ends."""
    script = host.root / "agent.py"
    script.write_text(HOLD)
    process = subprocess.Popen(
        [sys.executable, script, host.root, "hold", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    assert process.stdin
    assert process.stdout
    with process:
        yield process
        process.stdin.close()


def said(process: subprocess.Popen[str]) -> object:
    """Return the next line that the command prints."""
    assert process.stdout
    return json.loads(process.stdout.readline())


def take(roots: Roots, *pfs: str) -> None:
    """Take the locks, and let them go."""
    with locked(roots, pfs, patience_s=0):
        pass


def test_hold_keeps_others_out(host: HostFolders) -> None:
    with holding(host, "--who", "vfio-p2p run\x1b[31m", PF) as process:
        assert said(process) == {"held": [PF]}
        with pytest.raises(AgentError) as caught:
            take(host.roots, SECOND, PF)
        what, since, who = re.split(r", since | \(", caught.value.what)
        assert what == f"{PF} is taken by vfio-p2p run?[31m"
        assert who == f"PID {process.pid}, user {user()})"
        started = datetime.strptime(since[:19], "%Y-%m-%d %H:%M:%S")
        assert abs(datetime.now() - started) < timedelta(minutes=5)
        assert caught.value.code == 4
        # The other one is not held.
        take(host.roots, SECOND)
        with holding(host, SECOND, PF) as second:
            error = said(second)
            assert isinstance(error, dict)
            assert str(process.pid) in error["error"]
        assert second.returncode == 4
    assert process.returncode == 0
    take(host.roots, PF)


def user() -> str:
    """Return who we are."""
    done = subprocess.run(["id", "-un"], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode().strip()


def test_the_command_line_names_a_holder(host: HostFolders) -> None:
    with holding(host, PF) as process:
        said(process)
        with pytest.raises(AgentError, match=f"hold {PF}, since"):
            take(host.roots, PF)


def test_a_killed_holder_holds_nothing(host: HostFolders) -> None:
    with holding(host, PF) as process:
        said(process)
        process.kill()
        process.wait()
        take(host.roots, PF)


def test_a_child_of_a_killed_holder_holds_the_lock(host: HostFolders) -> None:
    reader, writer = os.pipe()
    holder = os.fork()
    if holder == 0:
        os.close(writer)
        with locked(host.roots, [PF]) as locks:
            subprocess.Popen(["cat"], stdin=reader, pass_fds=locks)
            os._exit(0)
    os.waitpid(holder, 0)
    os.close(reader)
    with pytest.raises(AgentError) as caught:
        take(host.roots, PF)
    assert "has not finished" in caught.value.what
    child = int(caught.value.what.split("PID ")[1].split(",")[0])
    assert Path(f"/proc/{child}/comm").read_text() == "cat\n"
    # It is waited for.
    timer = Timer(0.5, os.close, [writer])
    timer.start()
    with locked(host.roots, [PF]):
        pass
    timer.join()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "hold: the following arguments are required: pfs"),
        (["0000:09:00.0"], "there is no PCI function 0000:09:00.0"),
        (["../.."], "not a PCI address: '../..'"),
    ],
)
def test_hold_refuses(
    host: HostFolders, arguments: list[str], what: str
) -> None:
    with holding(host, *arguments) as process:
        error = said(process)
        assert isinstance(error, dict)
        assert error["error"] == what
    assert process.returncode == 2


def test_a_lock_is_for_every_user(host: HostFolders) -> None:
    before = os.umask(0o077)
    try:
        take(host.roots, PF)
    finally:
        os.umask(before)
    path = lock_path(host.roots, PF)
    assert path.name == f"vfio-p2p-{PF}.lock"
    assert path.stat().st_mode & 0o777 == 0o644
    # A user can lock a file that he cannot write to.
    path.chmod(0o444)
    take(host.roots, PF)
    assert path.exists()


def test_a_trap_is_no_lock(host: HostFolders) -> None:
    path = lock_path(host.roots, PF)
    victim = host.root / "victim"
    path.symlink_to(victim)
    with pytest.raises(AgentError, match="symbolic link"):
        take(host.roots, PF)
    assert not victim.exists()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(AgentError, match="not a file"):
        take(host.roots, PF)
