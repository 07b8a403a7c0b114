# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p trace-script``: a bpftrace program for a QEMU."""

from __future__ import annotations

import argparse
from pathlib import Path

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.machine.files import write_whole
from vfio_p2p.plans.trace_script import TraceScriptRequest, trace_script


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``trace-script``."""
    parser = commands.add_parser(
        "trace-script",
        help=summary,
        description="Print a bpftrace program for one QEMU's file. Run as "
        "root, it prints a log that 'vfio-p2p check' can judge, without a "
        "monitor and without QEMU's trace events: by uprobes and system "
        "calls. It needs QEMU 10.0 or newer for x86-64 that exports its "
        "functions, as distributions' builds with modules do.",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "binary",
        nargs="?",
        type=Path,
        metavar="BINARY",
        help="the file of QEMU",
    )
    which.add_argument(
        "--pid",
        type=_positive,
        metavar="N",
        help="the process of a QEMU that runs on this machine; the program "
        "is for it alone",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="write the program to a file instead of standard output",
    )
    parser.add_argument(
        "--path",
        default="",
        metavar="PATH",
        help="where that file is on the machine on which the program is run "
        "(default: where it is here)",
    )
    parser.add_argument(
        "--name-offset",
        type=_offset,
        metavar="BYTES",
        help="where struct VFIODevice has the name of a device, if QEMU's "
        "source was changed there",
    )
    parser.set_defaults(request=request, run=run)


def request(
    args: argparse.Namespace,
) -> tuple[TraceScriptRequest, Path | None]:
    """Read the arguments."""
    wanted = TraceScriptRequest(
        args.binary, args.pid, args.path, args.name_offset
    )
    return wanted, args.out


def run(
    wanted: tuple[TraceScriptRequest, Path | None], context: Context
) -> int:
    """Print or write the program."""
    which, out = wanted
    text = trace_script(which)
    if out is None:
        context.show(text.rstrip("\n"))
        return 0
    write_whole(out, text.encode())
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is no process")
    return number


def _offset(text: str) -> int:
    number = int(text)
    if not 0 <= number < 4096 or number % 8:
        raise argparse.ArgumentTypeError(
            f"{text} is not the offset of a pointer"
        )
    return number
