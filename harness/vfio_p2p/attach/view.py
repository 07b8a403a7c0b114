# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU does at this moment, from what it has written so far.

Times are those of arrival, which is good enough for people who watch. The
verdict and the blackout come from the recorded times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_NOTIFY = re.compile(rb"vm_state_notify running (\d+) reason \d+ \(([\w-]+)\)")
_STATUS = re.compile(rb"migrate_set_state new state ([\w-]+)")
# 9.1 and later tell that a device is asked, and then its state; older
# versions tell the state only, in the event of the other name.
_DEVICE = re.compile(
    rb"vfio_migration_set_(?:device_state|state)  \(([^)]+)\) state (\w+)"
)
_PENDING = re.compile(
    rb"vfio_state_pending\w*  \(([^)]+)\).*?"
    rb"stopcopy size (0x[0-9a-f]+|\d+).*?"
    rb"precopy initial size (0x[0-9a-f]+|\d+).*?"
    rb"precopy dirty size (0x[0-9a-f]+|\d+)"
)
_LONGEST = 4096


@dataclass
class DeviceView:
    """A device.

    :param state: Its state, by the uAPI's name.
    :param since_ns: When it got there.
    :param pending_bytes: What is left to send; None if it was not told.
    """

    state: str = ""
    since_ns: int = 0
    pending_bytes: int | None = None


@dataclass
class QemuView:
    """A QEMU.

    :param running: Whether its guest runs; None if it was not told.
    :param reason: Why its guest runs or not, by QMP's name.
    :param status: The status of its migration.
    :param devices: Its devices, by name.
    """

    running: bool | None = None
    reason: str = ""
    status: str = ""
    devices: dict[str, DeviceView] = field(default_factory=dict)
    _line: bytes = b""

    def log(self, data: bytes, now_ns: int) -> Iterator[str]:
        """Take a piece of its log.

        :param data: The piece.
        :param now_ns: The time at which it came.
        :return: What changed, a clause for each change.
        """
        *lines, self._line = (self._line + data).split(b"\n")
        self._line = self._line[-_LONGEST:]
        for line in lines:
            yield from self._take(line, now_ns)

    def event(self, event: Mapping[str, Any]) -> Iterator[str]:
        """Take a QMP event.

        :param event: The event.
        :return: What changed, a clause for each change.
        """
        match event:
            case {"event": "MIGRATION", "data": {"status": str(status)}}:
                yield from self._told(status)
            case {"event": "STOP"}:
                yield from self._ran(False, self.reason or "stop")
            case {"event": "RESUME"}:
                yield from self._ran(True, "running")

    def _take(self, line: bytes, now_ns: int) -> Iterator[str]:
        if found := _DEVICE.search(line):
            name, state = found[1].decode(), found[2].decode()
            device = self.devices.setdefault(name, DeviceView())
            if device.state != state:
                spent = f" after {device.state} of " + _ms(
                    now_ns - device.since_ns
                ) if device.state else ""
                device.state, device.since_ns = state, now_ns
                yield f"{name} is in {state}{spent}"
        elif found := _STATUS.search(line):
            yield from self._told(found[1].decode())
        elif found := _NOTIFY.search(line):
            yield from self._ran(found[1] != b"0", found[2].decode())
        elif found := _PENDING.search(line):
            device = self.devices.setdefault(found[1].decode(), DeviceView())
            device.pending_bytes = sum(int(x, 0) for x in found.groups()[1:])

    def _told(self, status: str) -> Iterator[str]:
        if status != self.status:
            self.status = status
            yield f"the migration is {status}"

    def _ran(self, running: bool, reason: str) -> Iterator[str]:
        if running is not self.running:
            self.running, self.reason = running, reason
            word = "runs" if running else "is stopped"
            yield f"the guest {word} ({reason})"


def _ms(span_ns: int) -> str:
    return f"{span_ns / 1e6:.0f} ms"
