# SPDX-License-Identifier: GPL-2.0-or-later
"""Watch a migration where there is no terminal: a line for each change."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from vfio_p2p.attach.view import QemuView
from vfio_p2p.cli.attaching import Lines
from vfio_p2p.cli.context import Context
from vfio_p2p.side import Side
from vfio_p2p.trace import printable


class PlainWatch(Lines):
    """Prints a line for each change of a QEMU.

    :param context: Where the lines go.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._views: dict[Side, QemuView] = defaultdict(QemuView)

    def log(self, side: Side, data: bytes) -> None:
        """Show what a piece of a log changes; see `Listener`."""
        for change in self._views[side].log(data, time.time_ns()):
            self._context.show(f"{side}: {printable(change)}")

    def event(self, side: Side, event: Mapping[str, Any]) -> None:
        """Show what an event changes; see `Listener`."""
        for change in self._views[side].event(event):
            self._context.show(f"{side}: {printable(change)}")
