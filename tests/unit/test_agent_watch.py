# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's ``watch``: its program does not outlive the controller."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_LIMIT_S = 60.0
_REST = '"cwd": "", "env": {}, "log": "", "stderr": ""'
# A shorter time for tests in which nobody speaks for that long.
_IMPATIENT = (
    "import sys; from vfio_p2p.agent import main, watch; "
    "watch.LEASE_S = 1.0; sys.exit(main.main(['watch']))"
)


class Watcher:
    """A watcher of a shell script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: dict[str, bytes] = {"log": b"", "stderr": b""}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, code: str, *, impatient: bool = False) -> int:
        """Start the watcher and the script, and return the script's PID."""
        how = ["-c", _IMPATIENT] if impatient else ["-m", "vfio_p2p.agent"]
        self._process = subprocess.Popen(
            [sys.executable, *how, *([] if impatient else ["watch"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.send(
            {
                "argv": ["sh", "-c", code],
                "cwd": str(self.folder / "new"),
                "env": {"GREETING": "hello"},
                "log": str(self.folder / "log"),
                "stderr": str(self.folder / "stderr"),
            }
        )
        return int(self.receive()["pid"])

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The watcher."""
        assert self._process
        return self._process

    def send(self, document: object) -> None:
        """Send a line to the watcher."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(document).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        """Wait for the next answer that is no piece of a file."""
        assert self.process.stdout
        for line in self.process.stdout:
            document = json.loads(line)
            (key, *_) = document
            if key not in self.told:
                return document
            self.told[key] += base64.b64decode(document[key])
        return None

    def end(self) -> None:
        """End the watcher's stdin."""
        assert self.process.stdin
        self.process.stdin.close()

    def stop(self) -> None:
        """Kill the watcher if it is still there."""
        if self._process:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe
                pipe.close()


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[Watcher]:
    made = Watcher(tmp_path)
    yield made
    made.stop()


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_program_and_its_files(watcher: Watcher) -> None:
    watcher.start(
        "pwd >../log; echo $GREETING >>../log; echo wrong >&2; exit 7"
    )
    assert watcher.receive() == {"status": 7, "silent": False}
    cwd = str(watcher.folder / "new")
    assert watcher.told["log"].decode() == f"{cwd}\nhello\n"
    assert watcher.told["stderr"] == b"wrong\n"
    assert Path(cwd).stat().st_mode & 0o777 == 0o700
    assert watcher.receive() is None
    assert watcher.process.wait() == 0


def test_a_log_follows_while_the_program_runs(watcher: Watcher) -> None:
    pid = watcher.start(
        "echo one >../log; while [ ! -e ../go ]; do sleep 0.01; done; "
        "echo two >>../log; kill -KILL $$"
    )
    assert watcher.process.stdout
    line = json.loads(watcher.process.stdout.readline())
    assert base64.b64decode(line["log"]) == b"one\n"
    assert is_running(pid)
    (watcher.folder / "go").touch()
    assert watcher.receive()["status"] == -signal.SIGKILL
    assert watcher.told["log"] == b"two\n"


def test_it_is_killed_with_its_session(watcher: Watcher) -> None:
    pid = watcher.start(
        "trap '' TERM HUP; sh -c 'trap \"\" HUP; echo $$ >../log; sleep 600' "
        "& wait"
    )
    log = watcher.folder / "log"
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
    child = int(log.read_text())
    watcher.send({"kill": True})
    assert watcher.receive() == {"status": -9, "silent": False}
    assert not is_running(pid)
    assert not is_running(child)


def test_it_ends_with_stdin(watcher: Watcher) -> None:
    pid = watcher.start("exec sleep 600")
    watcher.end()
    assert watcher.receive() == {"status": -9, "silent": False}
    assert not is_running(pid)
    assert watcher.process.wait() == 0


def test_it_ends_if_nobody_speaks(watcher: Watcher) -> None:
    pid = watcher.start("exec sleep 600", impatient=True)
    for _ in range(10):
        watcher.send(None)
        time.sleep(0.2)
    assert is_running(pid)
    assert watcher.receive() == {"status": -9, "silent": True}
    assert not is_running(pid)


def test_it_ends_if_the_watcher_is_killed(watcher: Watcher) -> None:
    pid = watcher.start("exec sleep 600")
    watcher.process.kill()
    wait_until(lambda: not is_running(pid))


def test_it_ends_if_nobody_reads(watcher: Watcher) -> None:
    """The answers have filled the pipe, and then the controller dies."""
    pid = watcher.start(
        "yes | head -c 10000000 >../log; touch ../full; exec sleep 600"
    )
    wait_until((watcher.folder / "full").exists)
    assert is_running(pid)
    watcher.end()
    wait_until(lambda: not is_running(pid))


def test_nobody_reads_or_speaks(watcher: Watcher) -> None:
    pid = watcher.start(
        "yes | head -c 10000000 >../log; touch ../full; exec sleep 600",
        impatient=True,
    )
    wait_until(lambda: not is_running(pid))
    # Whoever comes back is told why.
    assert watcher.receive() == {"status": -9, "silent": True}


def test_a_program_that_is_missing(tmp_path: Path, watcher: Watcher) -> None:
    watcher.start("exec /no/program")
    assert watcher.receive()["status"] == 127
    assert b"/no/program: not found" in watcher.told["stderr"]


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ("nonsense", "the request is wrong"),
        ("{}", "KeyError"),
        (f'{{"argv": [], {_REST}}}', "argv is empty"),
        (f'{{"argv": "x", {_REST}}}', "argv is no list"),
        (f'{{"argv": ["x"], "cwd": 1, {_REST}}}'[:-1], "JSONDecodeError"),
    ],
)
def test_requests_that_are_wrong(request_: str, why: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vfio_p2p.agent", "watch"],
        input=f"{request_}\n".encode(),
        stdout=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 2
    assert why in json.loads(done.stdout)["error"]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cwd = str(tmp_path / "file" / "new")
    request = {"argv": ["true"], "env": {}, "log": "", "cwd": cwd}
    done = subprocess.run(
        [sys.executable, "-m", "vfio_p2p.agent", "watch"],
        input=json.dumps(request | {"stderr": "x"}).encode() + b"\n",
        stdout=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 5
    assert "Not a directory" in json.loads(done.stdout)["error"]


def test_no_request(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vfio_p2p.agent", "watch"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"")
