# SPDX-License-Identifier: GPL-2.0-or-later
"""Children end with the process that started them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vfio_p2p.errors import MissingToolError
from vfio_p2p.machine.process import (
    bound,
    owned,
)
from vfio_p2p.machine.session import kill_session, session_members

# A session's leader that ignores SIGTERM, with a child in another group.
STUBBORN = """\
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"], process_group=0)
print(child.pid, flush=True)
child.wait()
"""

# A process that owns a child and is killed.
VICTIM = """\
import os, signal
from pathlib import Path
from vfio_p2p.machine.process import owned
with owned(["sleep", "600"], cwd=Path("/"), env=os.environ) as child:
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""

# A process whose child says when it gets SIGTERM.
CHILD = """\
import os, signal, sys
def end(number, frame):
    # The signal may come while the line below is being printed.
    os.write(1, b"SIGTERM\\n")
    sys.exit()
signal.signal(signal.SIGTERM, end)
os.write(1, b"started\\n")
signal.pause()
"""
PARENT = f"""\
import signal, subprocess, sys
from vfio_p2p.machine.process import bound
child = [sys.executable, "-c", {CHILD!r}]
subprocess.run(bound(child, signal.SIGTERM))
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
    pytest.fail(f"process {pid} did not end")


def test_all_processes_of_a_session_end(tmp_path: Path) -> None:
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


def test_a_leader_may_end_upon_sigterm(tmp_path: Path) -> None:
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


def test_a_bound_program_has_the_pid_and_the_arguments() -> None:
    words = ["-n", "a  b", "$HOME", "x=y", ""]
    code = "import os, sys; print(os.getpid(), sys.argv[1:])"
    with subprocess.Popen(
        bound([sys.executable, "-c", code, *words]), stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        text = child.stdout.read().decode()
    assert text == f"{child.pid} {words}\n"
    assert child.returncode == 0


def test_the_signal_can_be_chosen() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"started\n"
        parent.kill()
        assert parent.stdout.read() == b"SIGTERM\n"


def test_a_parent_that_died_too_early_is_noticed() -> None:
    # The parent is this shell, and not the process that called bound(). If
    # a parent dies too early, the child finds another one in the same way.
    line = shlex.join(bound(["echo", "started"]))
    result = subprocess.run(
        ["sh", "-c", f"{line}; exit $?"], stdout=subprocess.PIPE, check=False
    )
    assert (result.returncode, result.stdout) == (127, b"")


def test_a_program_that_is_missing() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        bound(["no-such-program"])


def test_setpriv_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="setpriv") as caught:
        bound(["sh"])
    assert caught.value.package == "util-linux"


def test_output_and_input(tmp_path: Path) -> None:
    code = "cat; echo out; echo error >&2; pwd; echo $X"
    with owned(["sh", "-c", code], cwd=tmp_path, env={"X": "y"}) as process:
        assert process.stdout
        text = process.stdout.read().decode()
    assert text.splitlines() == ["out", "error", str(tmp_path), "y"]


def test_a_session_that_is_not_ours_is_left_alone() -> None:
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        assert not kill_session(other.pid, led=False)
        assert is_running(other.pid)
        assert kill_session(other.pid, led=True)
    finally:
        other.kill()
        other.wait()
    assert other.returncode == -signal.SIGKILL
