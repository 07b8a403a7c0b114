# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p check``: judge trace logs from any machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.errors import UsageError
from vfio_p2p.plans.check import (
    JudgedLogs,
    LogsRequest,
    check_bundle,
    check_logs,
)
from vfio_p2p.report.document import to_json
from vfio_p2p.report.formats import render
from vfio_p2p.timeline import Timeline
from vfio_p2p.trace import printable

_MANY = 64


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``check``."""
    parser = commands.add_parser(
        "check",
        help=summary,
        description="Judge the P2P order from the files of QEMU's 'log' or "
        "'simple' trace backend, of QEMU 8.1 to 11.1. The backend is "
        "detected automatically. Trace with --trace 'vfio_*' --trace "
        "vm_state_notify, and -msg timestamp=on for 'log'.",
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE_LOG",
        help="the trace of the source, or a whole bundle (a folder or a zip "
        "file)",
    )
    parser.add_argument(
        "--destination",
        type=Path,
        metavar="LOG",
        help="the trace of the destination",
    )
    parser.add_argument(
        "--devices",
        type=_devices,
        metavar="N",
        help="the number of devices that can migrate (default: as many as "
        "QEMU reported)",
    )
    parser.add_argument(
        "--expect-p2p",
        action="store_true",
        help="fail if there are no P2P states at all",
    )
    options.add_json(parser)
    parser.set_defaults(request=request, run=run)


def _devices(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= _MANY:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a number from 1 to {_MANY}")


def request(args: argparse.Namespace) -> LogsRequest | Path:
    """Read the arguments; a path alone is that of a bundle.

    :raise UsageError: When a bundle comes with options for logs.
    """
    if not (args.source.is_dir() or args.source.suffix == ".zip"):
        return LogsRequest(
            args.source, args.destination, args.devices, args.expect_p2p
        )
    if args.destination or args.devices or args.expect_p2p:
        raise UsageError(
            "these options have no effect on a bundle: its scenario says what "
            "is expected",
            "Give the bundle without options.",
        )
    path: Path = args.source
    return path


def run(wanted: LogsRequest | Path, context: Context) -> int:
    """Judge, and print the verdict."""
    if isinstance(wanted, Path):
        document = check_bundle(wanted)
        if context.json:
            context.show(to_json(document).rstrip())
        else:
            context.show(render("table", document).rstrip())
        return document.verdict.exit_code
    found = check_logs(wanted)
    if context.json:
        values: dict[str, Any] = found.judgement.as_json()
        values["logs"] = [_log(side) for side in found.sides]
        context.show_json(values)
    else:
        context.show("\n".join(_text(found)))
    return found.judgement.verdict.exit_code


def _log(side: Timeline) -> dict[str, Any]:
    summary = side.summary
    return {
        "side": str(side.side),
        "file": printable(summary.name),
        "backend": str(summary.backend),
        "clock": str(summary.backend.clock),
        "lines": summary.lines,
        "cut": summary.cut,
        "qemu": summary.versions and list(summary.versions),
        "devices": [printable(device) for device in side.devices],
        "epochs": [str(epoch) for epoch in side.epochs],
    }


def _text(found: JudgedLogs) -> Iterator[str]:
    judgement = found.judgement
    yield f"{judgement.verdict}"
    for side in found.sides:
        versions = side.summary.versions
        qemu = f", QEMU {' to '.join(versions)}" if versions else ""
        yield (
            f"{side.side}: {printable(side.summary.name)}, "
            f"{side.summary.lines} {side.summary.backend.unit}s, "
            f"{len(side.devices)} devices, "
            f"{len(side.epochs)} run-state changes{qemu}"
        )
    for finding in judgement.findings:
        yield f"broken: {finding.rule}, {finding.message}"
        yield f"  {finding.reason}"
        yield from (f"  {line}" for line in finding.lines())
    for doubt in judgement.notes:
        yield f"unclear: {doubt.side}, {doubt.message}"
        yield from (f"  {line}" for line in doubt.lines())
    if judgement.unseen:
        yield (
            "not observable without the devices' own logs: "
            f"{', '.join(judgement.unseen)}"
        )
    if judgement.untraced:
        yield (
            "not observable from QMP events: what a device was asked for, "
            "when, and by which function; requests that failed or changed "
            f"nothing; the rules {', '.join(judgement.untraced)}"
        )
    blackout = judgement.blackout
    if blackout is not None:
        length = "unknown"
        if blackout.duration_ns is not None:
            length = f"{blackout.duration_ns / 1e6:.3f} ms"
        note = f" ({blackout.note})" if blackout.note else ""
        yield f"blackout: {length}{note}"
