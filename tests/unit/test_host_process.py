# SPDX-License-Identifier: GPL-2.0-or-later
"""No child outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vfio_p2p.machine.process import (
    kill_session,
    owned,
    session_members,
)

# A leader that does not care for SIGTERM, and a child in another group.
STUBBORN = """\
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"], process_group=0)
print(child.pid, flush=True)
child.wait()
"""

# Dies by SIGKILL with a child that it owns.
VICTIM = """\
import os, signal
from pathlib import Path
from vfio_p2p.machine.process import owned
with owned(["sleep", "600"], cwd=Path("/"), env=os.environ) as child:
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until_gone(pid: int) -> None:
    for _ in range(6000):
        if not is_running(pid):
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} does not end")


def test_nothing_of_a_session_is_left(tmp_path: Path) -> None:
    pids = []

    def interrupted() -> None:
        with owned(
            [sys.executable, "-c", STUBBORN], cwd=tmp_path, env=os.environ
        ) as process:
            assert process.stdout
            pids.append(process.pid)
            pids.append(int(process.stdout.readline()))
            assert sorted(session_members(process.pid)) == sorted(pids)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(map(is_running, pids))


def test_a_leader_may_end_by_itself(tmp_path: Path) -> None:
    code = "trap 'kill $!; exit 7' TERM; sleep 600 & echo; wait"
    with owned(["sh", "-c", code], cwd=tmp_path, env=os.environ) as process:
        assert process.stdout
        process.stdout.readline()
    assert process.returncode == 7


def test_a_child_dies_with_us() -> None:
    victim = subprocess.run(
        [sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, check=False
    )
    assert victim.returncode == -signal.SIGKILL
    wait_until_gone(int(victim.stdout))


def test_output_and_input(tmp_path: Path) -> None:
    code = "cat; echo out; echo error >&2; pwd; echo $X"
    with owned(["sh", "-c", code], cwd=tmp_path, env={"X": "y"}) as process:
        assert process.stdout
        text = process.stdout.read().decode()
    assert text.splitlines() == ["out", "error", str(tmp_path), "y"]


def test_somebody_else_with_the_number_of_the_session() -> None:
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        assert not kill_session(other.pid, led=False)
        assert is_running(other.pid)
        assert kill_session(other.pid, led=True)
    finally:
        other.kill()
        other.wait()
    assert other.returncode == -signal.SIGKILL
