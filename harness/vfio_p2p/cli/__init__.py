# SPDX-License-Identifier: GPL-2.0-or-later
"""The command `vfio-p2p`: arguments in, exit code out.

Exit codes of every command: 0 pass, 1 fail, 2 bad usage or bad input,
3 inconclusive, 4 skip (nothing to test on), 5 error of the infrastructure.

Each command is a module of this package with `add_parser()`, which sets
``run`` as the parser's default, and ``run(args) -> exit code``.  Modules are
imported only when their command is asked for, so that ``check`` needs
nothing that drives virtual machines.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence

from vfio_p2p.errors import HarnessError, InputError, NoSpaceError
from vfio_p2p.trace import printable

COMMANDS = {
    "validate": "build, run the matrix, verdict, report (the main job)",
    "demo": "what the series is for, in ten lines and one picture",
    "build": "build QEMU variants into the store",
    "run": "run one scenario, sealed, and keep its bundle",
    "reproduce": "make a bundle's run again, and see that it is the same",
    "compare": "A against B: which is slower, by how much, and where",
    "check": "judge anybody's trace logs",
    "report": "show what runs found: text, HTML, JUnit, JSON, Perfetto",
    "rules": "what is promised, and how it is seen to hold",
    "series": "the patches: list, apply, verify, export",
    "b4-check": "an external check for b4: a patch on stdin, JSON on stdout",
    "history": "results that are kept, over revisions",
    "bisect": "find the commit that changed a downtime",
    "testbed": "the outer VM: its image, its selftest, a shell in it",
}


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vfio-p2p",
        description="Patch test harness for QEMU's VFIO live migration.",
        epilog="Exit codes: 0 pass, 1 fail, 2 bad usage or input, "
        "3 inconclusive, 4 skip, 5 infrastructure error.",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND"
    )
    for name, summary in COMMANDS.items():
        if name == command:
            path = "vfio_p2p.cli." + name.replace("-", "_")
            module = importlib.import_module(path)
            module.add_parser(commands)
        else:
            commands.add_parser(name, help=summary)
    return parser


def _report(err: HarnessError) -> int:
    lines = [
        f"vfio-p2p: {err.what}",
        *getattr(err, "tail", "").split("\n"),
        f"  {err.hint}",
    ]
    # Files that we read, and compilers, say what they like.
    for line in lines:
        if line.strip():
            print(printable(line.expandtabs()), file=sys.stderr)
    return err.exit_code


def _interrupt(number: int, frame: object) -> None:
    """End like on Ctrl-C, which puts everything away."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A script's background job has it so from its shell.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGINT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    :param argv: Arguments without the program's name; default `sys.argv`.
    :return: The exit code.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    command = next((arg for arg in args if arg in COMMANDS), None)
    parsed = _parser(command).parse_args(args)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    # Printed at the end, so that the verdict is known whatever becomes of
    # the pipe that it goes into.
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = _run(parsed)
    try:
        print(printed.getvalue(), end="", flush=True)
    except BrokenPipeError:
        # The reader has what it wanted, e.g. `head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _run(args: argparse.Namespace) -> int:
    """Run a command; every error becomes an exit code and two lines."""
    try:
        code: int = args.run(args)
        return code
    except HarnessError as err:
        return _report(err)
    except KeyboardInterrupt:
        print("vfio-p2p: interrupted", file=sys.stderr)
        return 130
    except (BrokenPipeError, SystemExit):
        # Nobody reads our progress any more, on which rich exits.
        return HarnessError.exit_code
    except OSError as err:
        if err.errno == errno.ENOSPC:
            return _report(NoSpaceError(err.filename or "the disk"))
        return _report(
            InputError(
                f"{err.filename or 'I/O'}: {err.strerror or err}",
                "check the path and its permissions",
            )
        )
