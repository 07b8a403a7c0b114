# SPDX-License-Identifier: GPL-2.0-or-later
"""Watch a migration on a terminal: a table that is drawn anew."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from vfio_p2p.attach.qemu import AttachedQemu
from vfio_p2p.attach.recorder import Listener
from vfio_p2p.attach.view import DeviceView, QemuView
from vfio_p2p.cli.attaching import described, said
from vfio_p2p.errors import HarnessError
from vfio_p2p.plans.attach import judged
from vfio_p2p.side import Side
from vfio_p2p.trace import printable

_PER_SECOND = 8


class LiveWatch(Listener):
    """Draws what two QEMUs do.

    :param console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._views: dict[Side, QemuView] = defaultdict(QemuView)

    def attached(self, side: Side, qemu: AttachedQemu) -> None:
        """Say what was found; see `Listener`."""
        for line in described(side, qemu):
            self._print(line)
        for name in qemu.process.devices:
            self._views[side].devices.setdefault(name, DeviceView())

    def log(self, side: Side, data: bytes) -> None:
        """Take a piece of a log; see `Listener`."""
        for _ in self._views[side].log(data, time.time_ns()):
            pass    # the table shows it

    def event(self, side: Side, event: Mapping[str, Any]) -> None:
        """Take an event; see `Listener`."""
        for _ in self._views[side].event(event):
            pass    # the table shows it

    def recorded(self, bundle: Path) -> None:
        """Show the verdict on a migration; see `Listener`."""
        self._print(f"{bundle}: {said(judged(bundle))}")

    def lost(self, why: HarnessError) -> None:
        """Say what is waited for; see `Listener`."""
        self._print(f"waiting: {printable(why.what)}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)

    def __rich__(self) -> Table:
        """Draw the table."""
        table = Table(box=None, pad_edge=False)
        for name in ("side", "guest", "migration", "device", "state",
                     "for", "left to send"):
            table.add_column(name)
        now_ns = time.time_ns()
        for side, view in self._views.items():
            guest = {None: "-", True: "runs", False: "stopped"}[view.running]
            first = (str(side), guest, printable(view.status) or "-")
            rows = list(view.devices.items()) or [("-", DeviceView())]
            for name, device in rows:
                table.add_row(*first, printable(name), *_cells(device, now_ns))
                first = ("", "", "")
        return table


def _cells(device: DeviceView, now_ns: int) -> tuple[str, str, str]:
    spent = left = "-"
    if device.state:
        spent = f"{(now_ns - device.since_ns) / 1e9:.1f} s"
    if device.pending_bytes is not None:
        left = f"{device.pending_bytes / 1024:.0f} KiB"
    return device.state or "-", spent, left


@contextmanager
def live() -> Iterator[LiveWatch]:
    """Draw for as long as the block lasts."""
    console = Console(soft_wrap=True)
    watch = LiveWatch(console)
    with Live(watch, console=console, refresh_per_second=_PER_SECOND):
        yield watch
