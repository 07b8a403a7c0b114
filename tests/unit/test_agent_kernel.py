# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of the kernel's state, which must not hang."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from vfio_p2p.agent.failure import AgentError
from vfio_p2p.agent.kernel import BlockedError, Kernel
from vfio_p2p.agent.roots import Roots


def kernel(tools: Path = Path("/nowhere")) -> Kernel:
    """Return a kernel that is soon given up."""
    return Kernel(Roots(tools=(str(tools),)), limit_s=0.3, doubt_s=0.1)


def program(folder: Path, name: str, text: str) -> Kernel:
    """Make one of root's programs, a shell script."""
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return kernel(folder)


def test_a_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    kernel().write(path, "0000:01:10.0")
    assert path.read_text() == "0000:01:10.0"


@pytest.mark.parametrize(
    ("name", "code"), [("missing", errno.ENOENT), (".", errno.EISDIR)]
)
def test_a_refusal(tmp_path: Path, name: str, code: int) -> None:
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        kernel().write(tmp_path / name, "x")
    assert caught.value.errno == code
    assert caught.value.filename == str(tmp_path / name)


def test_a_write_that_sleeps_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    # Without a reader, whoever opens it to write sleeps.
    os.mkfifo(path)
    with pytest.raises(BlockedError) as caught:
        kernel().write(path, "x")
    assert caught.value.what == f"{path}: not done after 0.3 s"
    assert caught.value.code == 5
    patient = Kernel(Roots(), limit_s=3600, doubt_s=0.1)
    with pytest.raises(BlockedError) as caught:
        patient.write(path, "x", lambda: "PID 7 (qemu, user ci)")
    assert caught.value.what == (
        f"{path}: the kernel waits for PID 7 (qemu, user ci)"
    )
    assert caught.value.code == 4


def test_nobody_waits_for_the_output_of_a_write(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    # The writer outlives the one who began it, as in a write that not even
    # SIGKILL ends.
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from vfio_p2p.agent.kernel import Kernel\n"
        "from vfio_p2p.agent.roots import Roots\n"
        "class Hasty(Kernel):\n"
        "    def _answers(self, fd, holders):\n"
        "        os._exit(7)\n"
        f"Hasty(Roots()).write(Path({str(path)!r}), 'x')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.wait() == 7
        ended = select.select([process.stdout], [], [], 20)[0]
        # This lets the writer go, whatever is wrong with it.
        assert path.read_text() == "x"
        assert ended
        assert process.stdout.read() == b""


def test_devlink_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(AgentError) as caught:
        kernel(tmp_path).devlink("dev")
    assert caught.value.what == "devlink is missing on the host"
    assert caught.value.code == 2
    script = "echo 'Unknown option \"x\"' >&2; exit 1"
    old = program(tmp_path, "devlink", script)
    with pytest.raises(AgentError) as caught:
        old.devlink("port", "x")
    assert caught.value.what == 'devlink port x: Unknown option "x"'
    assert "6.2" in caught.value.hint
    assert caught.value.code == 2
    bad = program(tmp_path, "devlink", "echo kernel; echo answers: no; exit 1")
    with pytest.raises(AgentError) as caught:
        bad.devlink("port", "x")
    assert caught.value.what == "devlink port x: kernel answers: no"
    assert caught.value.code == 5


def test_a_program_that_hangs_is_given_up(tmp_path: Path) -> None:
    hung = program(tmp_path, "devlink", "exec sleep 60")
    with pytest.raises(BlockedError, match=r"dev: not done after 0\.3 s"):
        hung.devlink("dev")


def test_modprobe(tmp_path: Path) -> None:
    assert kernel(tmp_path).modprobe("x") == "modprobe is missing"
    good = program(tmp_path, "modprobe", '[ "$*" = "-- mlx5_vfio_pci" ]')
    assert good.modprobe("mlx5_vfio_pci") == ""
    assert good.modprobe("x") == "exit status 1"


def test_signals_wait() -> None:
    # In a process without other threads, which might take the signal.
    code = (
        "import os, signal, time\n"
        "from vfio_p2p.agent.kernel import undisturbed\n"
        "try:\n"
        "    with undisturbed():\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(0)\n"
        "        print('done')\n"
        "    print('not interrupted')\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        check=True,
    )
    assert done.stdout == "done\ninterrupted\n"
