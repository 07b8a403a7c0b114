# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the command, run it, and turn every error into an exit code."""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from vfio_p2p.cli.context import Context, Printer
from vfio_p2p.errors import HarnessError, InputError, NoSpaceError
from vfio_p2p.names import suggest
from vfio_p2p.trace import printable

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from vfio_p2p.plans.workshop import Workshop

COMMANDS = {
    "validate": "build, run the matrix, verdict, report (the main job)",
    "demo": "show why the series matters, in ten lines and one picture",
    "build": "build QEMU variants into the store",
    "run": "run one scenario and keep its bundle",
    "reproduce": "repeat the run of a bundle and require the same bytes",
    "compare": "compare A with B: which is slower, by how much, and where",
    "check": "judge trace logs from any machine",
    "watch": "see a migration of QEMUs that run already",
    "record": "keep the migrations of QEMUs that run already",
    "migrate": "migrate a QEMU that runs already, and record it",
    "trace-script": "a bpftrace program that witnesses a QEMU's migrations",
    "report": "report on runs: text, HTML, JUnit, JSON, Perfetto",
    "scenario": "the scenarios that come with the tool: list, show",
    "rules": "list the rules that runs are checked against",
    "findings": "the defects found in QEMU: list, show, mail",
    "series": "the patches: list, apply, verify, export",
    "b4-check": "an external check for b4: a patch on stdin, JSON on stdout",
    "history": "keep results, and follow a metric over revisions",
    "bisect": "find the commit or the QEMU that changed a downtime",
    "testbed": "the outer VM: its image, its selftest, a shell in it",
    "lab": "virtual hosts with SR-IOV devices: up, status, shell, down",
    "host": "machines with real devices: list, check",
    "doctor": "what this machine can do, and what it lacks",
    "cache": "the cache: list, prune",
}

_INTERRUPTED = 130
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class _Parser(argparse.ArgumentParser):
    """A parser that prints an error as two lines: the error and a hint."""

    def _print_message(
        self, message: str, file: SupportsWrite[str] | None = None
    ) -> None:
        """Print help and version; errors of stdout are not ignored."""
        if message and file in (None, sys.stdout):
            Printer().show(message.removesuffix("\n"))
        else:
            super()._print_message(message, file)

    def error(self, message: str) -> None:  # type: ignore[override]
        """Print the error and exit with the code of bad usage."""
        print(
            f"vfio-p2p: {printable(message)}\n"
            f"  '{self.prog} --help' shows the usage.",
            file=sys.stderr,
        )
        raise SystemExit(InputError.exit_code)


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Make the parser of the command line.

    :param command: The command whose options are wanted; the modules of the
        others are not imported.
    """
    parser = _Parser(
        prog="vfio-p2p",
        description="A companion and patch test harness for QEMU's VFIO live "
        "migration.",
        epilog="Exit codes: 0 pass, 1 fail, 2 bad usage or input, "
        "3 inconclusive, 4 skip, 5 infrastructure error.",
    )
    parser.add_argument(
        "--version", action="version", version=f"vfio-p2p {_version()}"
    )
    _add_verbose(parser, "verbose")
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="COMMAND",
        parser_class=_Parser,
    )
    for name, summary in COMMANDS.items():
        if name == command:
            path = "vfio_p2p.cli." + name.replace("-", "_")
            module = importlib.import_module(path)
            module.add_parser(commands, summary)
            for depth, each in _with_actions(commands.choices[name], 1):
                _add_verbose(each, f"verbose_{depth}")
        else:
            commands.add_parser(name, help=summary)
    return parser


def _with_actions(
    parser: argparse.ArgumentParser, depth: int
) -> Iterator[tuple[int, argparse.ArgumentParser]]:
    """Yield a parser and those of its actions, each with its depth."""
    yield depth, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _with_actions(each, depth + 1)


def _version() -> str:
    try:
        return version("vfio-p2p")
    except PackageNotFoundError:
        # A checkout need not be installed.
        return "(not installed)"


def _add_verbose(parser: argparse.ArgumentParser, dest: str) -> None:
    parser.add_argument(
        "-v",
        "--verbose",
        dest=dest,
        action="count",
        default=0,
        help="say more: -v shows messages and tracebacks, -vv also details",
    )


def _start_logging(verbose: int) -> None:
    """Show the messages of the library, if that is wanted."""
    if not verbose:
        return
    from rich.logging import RichHandler

    from vfio_p2p.cli.progress import console

    # On the console of the progress bars, which the lines would break.
    handler = RichHandler(console=console(), show_path=False)
    logging.basicConfig(
        format="%(name)s: %(message)s",
        level=_LEVELS[min(verbose, len(_LEVELS) - 1)],
        handlers=[handler],
    )


def trap_signals() -> None:
    """Make the signals that end a program clean up as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    """End like on Ctrl-C, which cleans up."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # The shell of a script makes its background jobs ignore SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGINT)


def main(
    argv: Sequence[str] | None = None, workshop: Workshop | None = None
) -> int:
    """Run one command.

    :param argv: The arguments without the program's name; None takes those
        of the process.
    :param workshop: The workshop that builds and runs; None is this machine.
    :return: The exit code.
    """
    _fill_standard_descriptors()
    args = list(sys.argv[1:] if argv is None else argv)
    command = next((arg for arg in args if not arg.startswith("-")), None)
    return guarded(lambda: _run(args, command, workshop), _wants_more(args))


def _fill_standard_descriptors() -> None:
    """Open /dev/null in place of each standard descriptor that is closed.

    Otherwise a file that is opened later would take its number, and what a
    child prints would end in that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Much that prints to standard error takes standard output without it.
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _wants_more(args: Sequence[str]) -> bool:
    """Whether tracebacks are wanted, even if the arguments do not parse."""
    return any(
        arg == "--verbose" or (arg.startswith("-v") and not arg.strip("-v"))
        for arg in args
    )


def _run(
    args: Sequence[str], command: str | None, workshop: Workshop | None
) -> int:
    if command is not None and command not in COMMANDS:
        raise InputError(
            f"there is no command {command!r}",
            suggest(command, COMMANDS, "vfio-p2p --help"),
        )
    parsed = make_parser(command).parse_args(args)
    _start_logging(
        sum(
            count
            for name, count in vars(parsed).items()
            if name.startswith("verbose")
        )
    )
    trap_signals()
    context = Context(
        Printer(), workshop, json=getattr(parsed, "json", False)
    )
    request = parsed.request(parsed)
    run: Callable[[object, Context], int] = parsed.run
    try:
        return run(request, context)
    except SystemExit:
        # rich ends the program when nobody reads our progress any more.
        return HarnessError.exit_code


def guarded(run: Callable[[], int], verbose: bool = False) -> int:
    """Run a command; every error becomes an exit code and two lines.

    :param run: The command.
    :param verbose: Show the traceback of an error, too.
    """
    try:
        return run()
    except HarnessError as err:
        return _report(err, verbose)
    except KeyboardInterrupt:
        print("vfio-p2p: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Nobody reads our progress on stderr any more.
        return HarnessError.exit_code
    except OSError as err:
        if err.errno == errno.ENOSPC:
            return _report(
                NoSpaceError(err.filename or "the disk"), verbose
            )
        return _report(
            InputError(
                f"{err.filename or 'I/O'}: {err.strerror or err}",
                "Check the path and its permissions.",
            ),
            verbose,
        )
    except Exception as err:
        hint = "Please report it, with the output of -v."
        if verbose:
            hint = "Please report it, with the traceback above."
        mistake = HarnessError(f"a mistake in vfio-p2p: {err!r}", hint)
        return _report(mistake, verbose)


def _report(err: HarnessError, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    lines = [
        f"vfio-p2p: {err.what}",
        *getattr(err, "tail", "").split("\n"),
        f"  {err.hint}",
    ]
    # Files that we read, and compilers, may say anything.
    for line in lines:
        if line.strip():
            print(printable(line.expandtabs()), file=sys.stderr)
    return err.exit_code
