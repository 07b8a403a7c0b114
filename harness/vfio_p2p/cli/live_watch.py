# SPDX-License-Identifier: GPL-2.0-or-later
"""Watch a migration on a terminal: a table that is drawn anew."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.live import Live
from rich.table import Table

from vfio_p2p.attach.qemu import AttachedQemu
from vfio_p2p.attach.view import DeviceView
from vfio_p2p.cli.attaching import ViewedLines
from vfio_p2p.side import Side
from vfio_p2p.trace import printable

_PER_SECOND = 8


class LiveWatch(ViewedLines):
    """Draws what two QEMUs do, below the lines about everything else.

    :param console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(
            partial(console.print, markup=False, highlight=False)
        )

    def attached(self, side: Side, qemu: AttachedQemu) -> None:
        """Say what was found; see `Listener`."""
        super().attached(side, qemu)
        for name in qemu.process.devices:
            self.views[side].devices.setdefault(name, DeviceView())

    def began(self) -> None:
        """Show nothing, since the table does."""

    def changed(self, side: Side, change: str) -> None:
        """Show nothing, since the table does."""

    def __rich__(self) -> Table:
        """Draw the table."""
        table = Table(box=None, pad_edge=False)
        for name in ("side", "guest", "migration", "device", "state",
                     "for", "left to send", "expected downtime"):
            table.add_column(name)
        now_ns = time.time_ns()
        for side, view in self.views.items():
            guest = {None: "-", True: "runs", False: "stopped"}[view.running]
            first = (str(side), guest, printable(view.status) or "-")
            rows = list(view.devices.items()) or [("-", DeviceView())]
            expected = "-"
            if view.expected_ms is not None:
                expected = f"{view.expected_ms} ms"
            for name, device in rows:
                cells = _cells(device, now_ns)
                table.add_row(*first, printable(name), *cells, expected)
                first, expected = ("", "", ""), ""
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
