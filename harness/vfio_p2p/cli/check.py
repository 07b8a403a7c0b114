# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p check``: judge anybody's trace logs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.errors import UsageError
from vfio_p2p.oracle import Criteria, Judgement, judge
from vfio_p2p.report import machine, text
from vfio_p2p.report.model import Report, Row
from vfio_p2p.timeline import Side, Timeline, read_log
from vfio_p2p.trace import printable
from vfio_p2p.verdict.assess import assess

_MANY = 64


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    """Add the command's parser.

    :param commands: Where the commands are.
    """
    parser = commands.add_parser(
        "check",
        help="judge anybody's trace logs",
        description="Judge the P2P order from the files of QEMU's 'log' or "
        "'simple' trace backend, of QEMU 8.1 to 11.1; which one it is they "
        "tell.  Trace with --trace 'vfio_*' --trace vm_state_notify, and "
        "-msg timestamp=on for 'log'.",
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE_LOG",
        help="trace of the source, or a whole bundle (a folder or a zip "
        "file)",
    )
    parser.add_argument(
        "--destination", type=Path, metavar="LOG",
        help="trace of the destination",
    )
    parser.add_argument(
        "--devices", type=_devices, metavar="N",
        help="number of devices that can migrate (default: as many as QEMU "
        "reported)",
    )
    parser.add_argument(
        "--expect-p2p", action="store_true",
        help="fail, if there are no P2P states at all",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document"
    )
    parser.set_defaults(run=run)


def _devices(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= _MANY:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a number from 1 to {_MANY}")


def run(args: argparse.Namespace) -> int:
    """Judge, print, and tell by the exit code.

    :param args: What `add_parser` defines.
    :raise TraceError: When a log cannot be read or is no text.
    :raise BundleError: When a bundle is damaged or newer than we are.
    """
    if args.source.is_dir() or args.source.suffix == ".zip":
        return _check_bundle(args)
    source = read_log(args.source, Side.SOURCE)
    destination = None
    if args.destination is not None:
        destination = read_log(args.destination, Side.DESTINATION)
    judgement = judge(
        source,
        destination,
        Criteria(
            devices=args.devices, p2p=True if args.expect_p2p else None
        ),
    )
    sides = [source] if destination is None else [source, destination]
    if args.json:
        document: dict[str, Any] = judgement.as_json()
        document["logs"] = [_log(side) for side in sides]
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(_text(judgement, sides)))
    return judgement.verdict.exit_code


def _check_bundle(args: argparse.Namespace) -> int:
    if args.destination or args.devices or args.expect_p2p:
        raise UsageError(
            "a bundle says itself what is expected of it",
            "give the bundle alone",
        )
    bundle = open_bundle(args.source)
    qemu = bundle.manifest.inputs.source
    row = Row(
        variant=qemu.variant,
        scenario=bundle.scenario.name,
        seed=bundle.manifest.inputs.seed,
        assessment=assess(bundle),
        bundle=str(args.source),
        digest=bundle.digest,
    )
    report = Report(qemu=qemu.version, base="", origin="", rows=(row,))
    if args.json:
        print(json.dumps(machine.as_json(report), indent=2))
    else:
        print(text.render(report))
    return report.verdict.exit_code


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


def _text(judgement: Judgement, sides: list[Timeline]) -> list[str]:
    found = [f"{judgement.verdict}"]
    for side in sides:
        versions = side.summary.versions
        qemu = f", QEMU {' to '.join(versions)}" if versions else ""
        found.append(
            f"{side.side}: {printable(side.summary.name)}, "
            f"{side.summary.lines} {side.summary.backend.unit}s, "
            f"{len(side.devices)} devices, "
            f"{len(side.epochs)} run-state changes{qemu}"
        )
    for finding in judgement.findings:
        found.append(f"broken: {finding.rule}, {finding.message}")
        found.append(f"  {finding.reason}")
        found += [f"  {line}" for line in finding.lines()]
    for doubt in judgement.notes:
        found.append(f"unclear: {doubt.side}, {doubt.message}")
        found += [f"  {line}" for line in doubt.lines()]
    if judgement.unseen:
        found.append(
            "not observable without the devices' own logs: "
            f"{', '.join(judgement.unseen)}"
        )
    blackout = judgement.blackout
    if blackout is not None:
        length = "unknown"
        if blackout.duration_ns is not None:
            length = f"{blackout.duration_ns / 1e6:.3f} ms"
        note = f" ({blackout.note})" if blackout.note else ""
        found.append(f"blackout: {length}{note}")
    return found
