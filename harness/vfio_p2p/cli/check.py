# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p check``: judge trace logs from any machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

from vfio_p2p.cli import options
from vfio_p2p.cli.context import Context
from vfio_p2p.downtime.phases import phases
from vfio_p2p.errors import UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.check import (
    JudgedLogs,
    JudgedMigration,
    LogsRequest,
    check_bundle,
    check_logs,
    has_logs,
)
from vfio_p2p.report.document import to_json
from vfio_p2p.report.formats import render
from vfio_p2p.timeline import Timeline
from vfio_p2p.trace import VERSIONS, printable
from vfio_p2p.uapi import P2P_STATES
from vfio_p2p.verdict.story import amounts, ending, explain, quotes

_MANY = 64
_COLUMNS = 79


def add_parser(commands: options.Commands, summary: str) -> None:
    """Add the command ``check``."""
    parser = commands.add_parser(
        "check",
        help=summary,
        description="Judge the P2P order from the files of QEMU's 'log' or "
        "'simple' trace backend, of QEMU 8.1 to 11.1, or from QMP events "
        "(one JSON document per line) of devices with migration-events=on. "
        "The format is detected automatically. Trace with --trace 'vfio_*' "
        "--trace vm_state_notify, and -msg timestamp=on for 'log'. Prefixes "
        "of syslog, journals, containers and the like are taken off, and "
        "compressed files are unpacked; the output says so.",
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE_LOG",
        help="the trace of the source or of both sides, a folder with both "
        "traces, or a whole bundle (a folder or a zip file)",
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
    parser.add_argument(
        "--explain",
        action="store_true",
        help="tell each migration in a paragraph: what happened, how long it "
        "took and where, and what QEMU said",
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
    path: Path = args.source
    logs = has_logs(path)
    if logs or not (path.is_dir() or path.suffix == ".zip"):
        return LogsRequest(
            path,
            args.destination,
            args.devices,
            args.expect_p2p,
            args.explain,
        )
    if args.destination or args.devices or args.expect_p2p or args.explain:
        raise UsageError(
            "these options have no effect on a bundle: its scenario says what "
            "is expected",
            "Give the bundle without options.",
        )
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
        context.show_json(_as_json(found))
    else:
        context.show("\n".join(_text(found, explained=wanted.explain)))
    return found.verdict.exit_code


def _as_json(found: JudgedLogs) -> dict[str, Any]:
    """Return the verdict as plain values.

    With several migrations, these are under a key of their own.
    """
    every = [_migration(x) for x in found.migrations]
    if len(every) == 1:
        return {**every[0], "log_notes": list(found.notes)}
    return {
        "format": every[0]["format"],
        "verdict": str(found.verdict),
        "log_notes": list(found.notes),
        "migrations": every,
    }


def _migration(found: JudgedMigration) -> dict[str, Any]:
    ended = ending(found.migration)
    return {
        **found.judgement.as_json(),
        "logs": [_log(side) for side in found.sides],
        "ended": {"status": ended.word, "told": ended.sentence},
        "amounts": amounts(found.migration),
        "said": [
            {
                "side": str(side.side),
                "line": record.line,
                "text": printable(record.text),
            }
            for side, record in quotes(found.migration)
        ],
        "qmp_downtime_ms": found.beside.qmp_downtime_ms,
        "expected_downtime_ms": found.beside.expected_downtime_ms,
        "explained": _explained(found),
    }


def _explained(found: JudgedMigration) -> str:
    return explain(found.migration, found.judgement, found.beside)


def _log(side: Timeline) -> dict[str, Any]:
    summary = side.summary
    return {
        "side": str(side.side),
        "file": printable(summary.name),
        "backend": str(summary.backend),
        "clock": str(summary.clock),
        "behind": summary.wrapped,
        "lines": summary.lines,
        "cut": summary.cut,
        "qemu": summary.versions and list(summary.versions),
        "devices": [printable(device) for device in side.devices],
        "epochs": [str(epoch) for epoch in side.epochs],
    }


def _text(found: JudgedLogs, *, explained: bool) -> Iterator[str]:
    yield f"{found.verdict}"
    yield from (f"note: {note}" for note in found.notes)
    for number, one in enumerate(found.migrations, 1):
        if len(found.migrations) > 1:
            yield f"migration {number}: {one.judgement.verdict}"
        yield from _judged(one, explained=explained)


def _judged(found: JudgedMigration, *, explained: bool) -> Iterator[str]:
    judgement = found.judgement
    for side in found.sides:
        yield _side(side)
    ended = ending(found.migration)
    yield f"ended: {ended.sentence}"
    if judgement.verdict is Verdict.PASS and not _has_p2p(found):
        yield "P2P: no P2P state was asked for; one device needs none"
    for finding in judgement.findings:
        yield f"broken: {finding.rule}, {finding.message}"
        yield f"  {finding.reason}"
        yield from (f"  {line}" for line in finding.lines())
    for doubt in judgement.notes:
        yield f"unclear: {doubt.side}, {doubt.message}"
        yield from (f"  {line}" for line in doubt.lines())
    if judgement.verdict is not Verdict.PASS or not ended.completed:
        shown = {
            (doubt.side, x.line)
            for doubt in judgement.notes
            for x in doubt.records
        }
        for side, record in quotes(found.migration):
            if (side.side, record.line) not in shown:
                yield (
                    f"QEMU said: {printable(side.summary.name)}:"
                    f"{record.line}: {printable(record.text)}"
                )
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
        yield from _longest(found)
    if explained:
        yield ""
        yield fill(_explained(found), _COLUMNS)


def _has_p2p(found: JudgedMigration) -> bool:
    return any(
        arc.requested in P2P_STATES
        for side in found.sides
        for arc in side.arcs
    )


def _longest(found: JudgedMigration) -> Iterator[str]:
    """Name the phase that took most of the blackout, if one did."""
    source, destination = found.migration.source, found.migration.destination
    if destination is None:
        return
    parts = phases(source, destination)
    whole_ns = parts.blackout.duration_ns
    for phase in parts.phases:
        if whole_ns and phase.duration_ns * 2 > whole_ns:
            yield f"most of it: {phase.name}, {phase.duration_ns / 1e6:.3f} ms"


def _side(side: Timeline) -> str:
    summary = side.summary
    qemu = ""
    if summary.versions:
        qemu = f", QEMU {' to '.join(summary.versions)}"
    elif summary.older:
        qemu = f", QEMU older than {VERSIONS[0]}"
    count, changes = len(side.devices), len(side.epochs)
    text = (
        f"{side.side}: {printable(summary.name)}, "
        f"{summary.lines} {summary.backend.unit}s, "
        f"{count} device{'s' * (count != 1)}, "
        f"{changes} change{'s' * (changes != 1)} of the run state{qemu}"
    )
    if summary.wrapped:
        text += f", read behind {summary.wrapped}"
    return text
