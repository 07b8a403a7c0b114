# SPDX-License-Identifier: GPL-2.0-or-later
"""What the commands for QEMUs that run already have in common."""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vfio_p2p.attach.process import Process
from vfio_p2p.attach.qemu import AttachedQemu
from vfio_p2p.attach.target import Target, parse_target
from vfio_p2p.attach.view import QemuView
from vfio_p2p.cli.host_where import add_where, where
from vfio_p2p.errors import HarnessError, UsageError
from vfio_p2p.oracle.evidence import QEMU_SAID
from vfio_p2p.oracle.model import Doubt
from vfio_p2p.plans.attach import AttachRequest, JudgingListener
from vfio_p2p.plans.check import JudgedLogs
from vfio_p2p.side import Side
from vfio_p2p.trace import printable, words
from vfio_p2p.verdict.story import ending

_LOWEST = 19
_QEMU = "[unix:]PATH|tcp:HOST:PORT|pid:N|domain:NAME"


def add_targets(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the QEMUs."""
    parser.add_argument(
        "source",
        nargs="?",
        type=target,
        metavar="SOURCE",
        help="the QEMU that is migrated from: the path of a QMP socket, "
        "tcp:HOST:PORT, pid:N, or domain:NAME of libvirt",
    )
    parser.add_argument(
        "--destination",
        type=target,
        metavar=_QEMU,
        help="the QEMU that is migrated to",
    )
    add_where(parser)
    parser.add_argument(
        "--destination-ssh",
        default="",
        metavar="[USER@]HOST[:PORT]",
        help="where the destination runs (default: where the source does)",
    )
    for side in ("", "destination-"):
        parser.add_argument(
            f"--{side}libvirt",
            default="",
            metavar="URI",
            help="the URI of libvirt for the domain of the "
            f"{side.rstrip('-') or 'source'}",
        )


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is recorded, and where it goes."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        metavar="DIR",
        help="the folder of the bundles (default: %(default)s)",
    )
    parser.add_argument(
        "--no-trace",
        action="store_true",
        help="switch no trace events on; those that are on are read",
    )


def add_recording(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what becomes of migrations."""
    add_out(parser)
    parser.add_argument(
        "--count",
        type=_count,
        default=1,
        metavar="N",
        help="end after N migrations; 0 records until it is interrupted "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="wait for QEMUs that have ended, or that are not there yet",
    )
    parser.add_argument(
        "--keep",
        type=_count,
        default=0,
        metavar="N",
        help="keep the last N bundles only (default: keep all)",
    )
    parser.add_argument(
        "--metrics",
        type=Path,
        metavar="FILE",
        help="write figures for Prometheus into FILE after each migration",
    )


def target(text: str) -> Target:
    """Read the name of a QEMU."""
    try:
        return parse_target(text)
    except UsageError as err:
        raise argparse.ArgumentTypeError(f"{err.what}. {err.hint}") from None


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 1_000_000:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a number up to 1000000: {text}")


def one_recording(args: argparse.Namespace) -> AttachRequest:
    """Read the options of `add_targets` and `add_out`."""
    return AttachRequest(
        source=args.source,
        destination=args.destination,
        where=where(args),
        destination_ssh=args.destination_ssh,
        libvirt=args.libvirt,
        destination_libvirt=args.destination_libvirt,
        out=args.out,
        trace=not args.no_trace,
    )


def request(args: argparse.Namespace) -> AttachRequest:
    """Read the options of `add_targets` and `add_recording`."""
    return replace(
        one_recording(args),
        count=args.count,
        follow=args.follow,
        keep=args.keep,
        metrics=args.metrics,
    )


class Lines(JudgingListener):
    """Prints a line for whatever happens.

    :param show: Prints a line.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show
        self._waiting = ""

    def attached(self, side: Side, qemu: AttachedQemu) -> None:
        """Say what was found; see `Listener`.

        From now on QEMU has the processors whenever it wants them.  On a host
        with two of them, listening made the VM's pause 2.3 ms longer.  At the
        lowest priority, the difference is lost in the noise.
        """
        os.nice(_LOWEST)
        self._waiting = ""
        for line in described(side, qemu):
            self._show(line)

    def awaited(self, side: Side, target: Target) -> None:
        """Say what is waited for; see `Listener`."""
        self._show(
            f"{side}: waits for libvirt to start {printable(str(target))} "
            "for a migration"
        )

    def began(self) -> None:
        """Say that a migration has begun; see `Listener`."""
        self._show("a migration has begun")

    def judged(self, bundle: Path, found: JudgedLogs | None) -> None:
        """Show the verdict on a migration; see `JudgingListener`."""
        self._show(f"{bundle}: {said(found)}")

    def lost(self, why: HarnessError) -> None:
        """Say once what is waited for; see `Listener`."""
        if why.what != self._waiting:
            self._waiting = why.what
            self._show(f"waiting: {printable(why.what)}")


class ViewedLines(Lines):
    """Knows what the QEMUs do, and is told of each change.

    :param show: Prints a line.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(show)
        self.views: dict[Side, QemuView] = defaultdict(QemuView)

    def log(self, side: Side, data: bytes) -> None:
        """Take a piece of a log; see `Listener`."""
        for change in self.views[side].log(data, time.time_ns()):
            self.changed(side, change)

    def event(self, side: Side, event: Mapping[str, Any]) -> None:
        """Take an event; see `Listener`."""
        for change in self.views[side].event(event):
            self.changed(side, change)

    def answer(self, side: Side, answer: Mapping[str, Any]) -> None:
        """Take an answer to query-migrate; see `Listener`."""
        for change in self.views[side].answer(answer):
            self.changed(side, change)

    def changed(self, side: Side, change: str) -> None:
        """A QEMU does something else now.

        :param side: The QEMU's side.
        :param change: What changed, a clause.
        """
        self._show(f"{side}: {printable(change)}")


def described(side: Side, qemu: AttachedQemu) -> Iterator[str]:
    """Say what a QEMU is, and how it is listened to."""
    process = qemu.process
    version = qemu.version.removeprefix("QEMU emulator version ")
    what = f"QEMU {version}" if version else process.name
    guest = f", guest {process.guest}" if process.guest else ""
    yield (
        f"{side}: process {process.pid} on {qemu.host.name}, "
        f"{printable(what + guest)}"
    )
    devices = ", ".join(map(printable, process.devices)) or "none"
    yield f"  VFIO devices: {devices}"
    log = process.log
    if not log.path:
        yield f"  log: none that can be read ({printable(log.how)})"
    else:
        yield f"  log: {printable(log.path)} ({printable(log.how)})"
        if not process.timestamps:
            yield (
                "  its lines may have no times: QEMU was started without "
                "-msg timestamp=on"
            )
    if qemu.monitor is None:
        yield f"  monitor: none, {qemu.why}; no event can be switched on"
    elif qemu.arrived:
        yield (
            "  trace events: those of its command line; libvirt passes no "
            "command on until the migration is over"
        )
    elif qemu.tracing:
        yield f"  trace events: {len(qemu.events)} are on"


def said(found: JudgedLogs | None) -> str:
    """Say what became of a migration, on one line."""
    if found is None:
        return "inconclusive, there is no log that can be judged"
    parts = [str(found.verdict)]
    for migration in found.migrations:
        judgement = migration.judgement
        parts.append(ending(migration.migration).sentence)
        blackout = judgement.blackout
        if blackout is not None and blackout.duration_ns is not None:
            parts.append(f"blackout {blackout.duration_ns / 1e6:.3f} ms")
        parts += [f"broken: {x.rule}" for x in judgement.findings]
        parts += [
            f"{doubt.side}: {text}"
            for doubt in judgement.notes
            for text in _texts(doubt)
        ]
    return ", ".join(map(printable, parts))


def _texts(doubt: Doubt) -> Iterator[str]:
    """Say what is unclear, with the words of QEMU if it is about these."""
    if doubt.message != QEMU_SAID:
        yield doubt.message
        return
    for record in doubt.records:
        yield f"{QEMU_SAID} “{words.without_prefix(record.text)}”"


def table(found: list[Process]) -> Iterator[str]:
    """List the QEMUs of a host."""
    for process in found:
        guest = process.guest or "no name"
        yield (
            f"pid:{process.pid}  {printable(guest)}, user {process.user}, "
            f"{len(process.devices)} VFIO devices"
        )
        for monitor in process.monitors:
            state = "taken" if monitor.held else "free"
            yield f"  {monitor.kind}:{printable(monitor.address)}  {state}"
        log = process.log
        where = log.path or f"none ({log.how})"
        yield f"  log: {printable(where)}"
