# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: exit codes, and errors that help."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from vfio_p2p import cli
from vfio_p2p.cli import check, main
from vfio_p2p.errors import (
    BuildError,
    HarnessError,
    InputError,
    MissingToolError,
    TestbedError,
)

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], int]:
    """Run a command that returns or raises something."""

    def run(result: object) -> int:
        def body(_: argparse.Namespace) -> object:
            if isinstance(result, BaseException):
                raise result
            return result

        monkeypatch.setattr(check, "run", body)
        return main(["check", "x.log"])

    return run


@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_exit_code_is_the_commands(
    command: Callable[[object], int], code: int
) -> None:
    assert command(code) == code


@pytest.mark.parametrize(
    ("err", "code"),
    [
        (InputError("what", "hint"), 2),
        (MissingToolError("ninja", "ninja-build"), 2),
        (HarnessError("what", "hint"), 5),
        (TestbedError("what", "hint"), 5),
        (OSError(errno.ENOSPC, "No space left", "/disk"), 2),
        (OSError(errno.EACCES, "Permission denied", "/secret"), 2),
    ],
)
def test_error_is_one_line_and_a_hint(
    command: Callable[[object], int],
    capsys: Capture,
    err: Exception,
    code: int,
) -> None:
    assert command(err) == code
    out, said = capsys.readouterr()
    assert out == ""
    what, hint = said.splitlines()
    assert what.startswith("vfio-p2p: ")
    assert hint.strip()


def test_error_without_a_hint(
    command: Callable[[object], int], capsys: Capture
) -> None:
    assert command(HarnessError("what")) == 5
    assert capsys.readouterr().err == "vfio-p2p: what\n"


def test_build_error_shows_the_log(
    command: Callable[[object], int], capsys: Capture, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    assert command(BuildError("ninja failed", log, "error: a\nerror: b")) == 5
    assert capsys.readouterr().err.splitlines() == [
        "vfio-p2p: ninja failed",
        "error: a",
        "error: b",
        f"  the whole log is {log}",
    ]


def test_error_does_not_act_on_the_terminal(
    command: Callable[[object], int], capsys: Capture
) -> None:
    evil = BuildError("a\x1b[31m", Path("\x1b"), "b\x1b[2J\nc\x07")
    assert command(evil) == 5
    said = capsys.readouterr().err
    assert all(c == "\n" or c.isprintable() for c in said)
    assert "b\\x1b[2J\nc\\x07" in said


def test_interrupted(
    command: Callable[[object], int], capsys: Capture
) -> None:
    assert command(KeyboardInterrupt()) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert f"vfio-p2p {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["--nonsense"],
        ["check"],
        ["run", "two-devices", "--seed", "-1"],
        ["run", "two-devices", "--seed", str(1 << 64)],
        ["validate", "--jobs", "0"],
        ["validate", "--jobs", "many"],
    ],
)
def test_bad_usage(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err


def test_bad_scenario(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('name = "x"\n"colour\\u001b[31m" = 1\n[[devices]]\n')
    assert main(["run", str(path)]) == 2
    said = capsys.readouterr().err
    assert "bad.toml:" in said
    assert "\x1b" not in said


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vfio_p2p", "--help"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert all(name in done.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("buffered", ["", "1"])
def test_closed_pipe_does_not_change_the_verdict(
    tmp_path: Path, buffered: str
) -> None:
    log = tmp_path / "empty.log"
    log.touch()
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "vfio_p2p", "check", str(log)],
            stdout=theirs,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": buffered},
            check=False,
        )
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (3, b"")


def test_a_background_job_can_be_ended() -> None:
    # Its shell lets it ignore Ctrl-C, which is not to be all it ignores.
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from vfio_p2p import cli\n"
        "def run(args):\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    return 0\n"
        "import vfio_p2p.cli.rules\n"
        "vfio_p2p.cli.rules.run = run\n"
        "sys.exit(cli.main(['rules']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False
    )
    assert done.returncode == 130
    assert b"interrupted" in done.stderr
