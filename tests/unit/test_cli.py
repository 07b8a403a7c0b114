# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: exit codes, and errors that help."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from vfio_p2p.cli import COMMANDS, main
from vfio_p2p.cli.entry import guarded, make_parser
from vfio_p2p.errors import (
    BuildError,
    HarnessError,
    InputError,
    MissingToolError,
    TestbedError,
)

Capture = pytest.CaptureFixture[str]


def command(result: int | BaseException, verbose: bool = False) -> int:
    """Run a command that returns a code or raises an error."""

    def run() -> int:
        if isinstance(result, BaseException):
            raise result
        return result

    return guarded(run, verbose)


@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_exit_code_is_the_commands(code: int) -> None:
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
    capsys: Capture,
) -> None:
    assert command(HarnessError("what")) == 5
    assert capsys.readouterr().err == "vfio-p2p: what\n"


def test_build_error_shows_the_log(
    capsys: Capture, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    assert command(BuildError("ninja failed", log, "error: a\nerror: b")) == 5
    assert capsys.readouterr().err.splitlines() == [
        "vfio-p2p: ninja failed",
        "error: a",
        "error: b",
        f"  Read the whole log: {log}",
    ]


def test_error_does_not_act_on_the_terminal(
    capsys: Capture,
) -> None:
    evil = BuildError("a\x1b[31m", Path("\x1b"), "b\x1b[2J\nc\x07")
    assert command(evil) == 5
    said = capsys.readouterr().err
    assert all(c == "\n" or c.isprintable() for c in said)
    assert "b\\x1b[2J\nc\\x07" in said


def test_interrupted(
    capsys: Capture,
) -> None:
    assert command(KeyboardInterrupt()) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert f"vfio-p2p {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
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
    assert all(name in done.stdout for name in COMMANDS)


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
    # A shell makes it ignore Ctrl-C; it must still end on SIGTERM.
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from vfio_p2p.cli import main\n"
        "class Workshop:\n"
        "    def check(self, setting):\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "sys.exit(main(['validate'], Workshop()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False
    )
    assert done.returncode == 130
    assert b"interrupted" in done.stderr


def test_a_mistake_of_ours_is_no_verdict(capsys: Capture) -> None:
    assert command(ZeroDivisionError("division by zero")) == 5
    what, hint = capsys.readouterr().err.splitlines()
    assert "a mistake in vfio-p2p: ZeroDivisionError" in what
    assert "-v" in hint


@pytest.mark.parametrize(
    "err", [ZeroDivisionError("so"), HarnessError("so")], ids=repr
)
def test_a_traceback_only_when_asked_for(
    capsys: Capture, err: Exception
) -> None:
    assert command(err) == 5
    assert "Traceback" not in capsys.readouterr().err
    assert command(err, verbose=True) == 5
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["cache", "list"], ["history", "list"], ["series", "list"]]
)
def test_verbose_goes_after_an_action(words: list[str]) -> None:
    parsed = make_parser(words[0]).parse_args([*words, "-vv"])
    counts = {k: v for k, v in vars(parsed).items() if "verbose" in k}
    assert sum(counts.values()) == 2


def test_standard_input_that_is_closed() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" -m vfio_p2p b4-check <&-', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "standard input is closed" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        ("rules >&-", 5, "", "standard output is closed"),
        ("--version >&-", 5, "", "standard output is closed"),
        ("nothing 2>&-", 2, "", ""),
        ("check --no-such-option 2>&-", 2, "", ""),
        ("-v nothing 2>&-", 2, "", ""),
    ],
)
def test_output_that_is_closed(
    words: str, code: int, out: str, err: str
) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m vfio_p2p {words}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert done.stdout == out
    assert err in done.stderr


def test_a_closed_descriptor_is_not_taken_by_a_file(tmp_path: Path) -> None:
    """What a child prints must not end in a file that was opened since."""
    kept = tmp_path / "kept"
    kept.touch()
    program = (
        "import os, sys\n"
        "from vfio_p2p.cli import main\n"
        "import subprocess\n"
        "main(['nothing'])\n"
        "print(os.open(sys.argv[1], os.O_RDONLY), flush=True)\n"
        "subprocess.run(['readlink', '/proc/self/fd/0', '/proc/self/fd/2'])\n"
    )
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" "$2" <&- 2>&-', sys.executable, program,
         str(kept)],
        capture_output=True,
        text=True,
        check=False,
    )
    first, *null = done.stdout.splitlines()
    assert int(first) > 2
    assert null == ["/dev/null", "/dev/null"]


def test_help_that_cannot_be_written() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vfio_p2p", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 5


@pytest.mark.parametrize("place", ["before", "after"])
def test_verbose_goes_before_and_after_the_command(
    capsys: Capture, place: str
) -> None:
    words = ["check", "/no/such/log"]
    words.insert(0 if place == "before" else 1, "-v")
    assert main(words) == 2
    assert "Traceback" in capsys.readouterr().err


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"vfio-p2p {version('vfio-p2p')}\n"


@pytest.mark.parametrize(
    ("wrong", "right"), [("validat", "validate"), ("rule", "rules")]
)
def test_a_wrong_command_suggests_the_nearest(
    capsys: Capture, wrong: str, right: str
) -> None:
    assert main([wrong]) == 2
    what, hint = capsys.readouterr().err.splitlines()
    assert repr(wrong) in what
    assert repr(right) in hint


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vfio_p2p", "rules"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 5
    assert "standard output: No space left" in done.stderr


def test_output_appears_as_it_is_made() -> None:
    """The first line is there while the command still runs."""
    program = (
        "import sys\n"
        "from vfio_p2p.cli.context import Printer\n"
        "Printer().show('first')\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"first\n"
        assert process.poll() is None
        process.stdin.close()
