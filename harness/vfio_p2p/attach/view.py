# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU does at this moment, from what it has written so far.

Times are those of arrival, which is good enough for people who watch. The
verdict and the blackout come from the recorded times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vfio_p2p.attach.lines import LogPieces
from vfio_p2p.trace import Kind, Record

_PENDING = "vfio_state_pending"
# What the device has left to send, as far as an event tells.
_LEFT = ("stopcopy", "initial", "dirty")


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
    :param expected_ms: The downtime that it expects; None if it was not told.
    :param remaining_bytes: What its migration has left to send; None if it
        was not told.
    :param devices: Its devices, by name.
    """

    running: bool | None = None
    reason: str = ""
    status: str = ""
    expected_ms: int | None = None
    remaining_bytes: int | None = None
    devices: dict[str, DeviceView] = field(default_factory=dict)
    _pieces: LogPieces = field(default_factory=LogPieces)

    def log(self, data: bytes, now_ns: int) -> Iterator[str]:
        """Take a piece of its log.

        :param data: The piece.
        :param now_ns: The time at which it came.
        :return: What changed, a clause for each change.
        """
        for record in self._pieces.records(data):
            yield from self._take(record, now_ns)

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

    def answer(self, answer: Mapping[str, Any]) -> Iterator[str]:
        """Take its answer to query-migrate.

        :param answer: The answer.
        :return: What changed, a clause for each change.
        """
        match answer:
            case {
                "expected-downtime": int(expected_ms),
                "ram": {"remaining": int(remaining_bytes)},
            } if (expected_ms, remaining_bytes) != (
                self.expected_ms,
                self.remaining_bytes,
            ):
                self.expected_ms = expected_ms
                self.remaining_bytes = remaining_bytes
                yield (
                    f"a downtime of {expected_ms} ms is expected, "
                    f"{remaining_bytes >> 10} KiB of RAM are left to send"
                )

    def _take(self, record: Record, now_ns: int) -> Iterator[str]:
        fields = record.fields
        match record.kind:
            # 9.1 and later tell that a device is asked, and then its state.
            case Kind.CHANGED | Kind.SUCCEEDED:
                device = self.devices.setdefault(record.device, DeviceView())
                state = str(fields["state"])
                if device.state != state:
                    spent = ""
                    if device.state:
                        spent_ns = now_ns - device.since_ns
                        spent = f" after {device.state} of {_ms(spent_ns)}"
                    device.state, device.since_ns = state, now_ns
                    yield f"{record.device} is in {state}{spent}"
            case Kind.STATUS:
                yield from self._told(str(fields["status"]))
            case Kind.NOTIFY:
                reason = str(fields["reason"])
                yield from self._ran(bool(fields["running"]), reason)
            case _ if record.event.startswith(_PENDING):
                device = self.devices.setdefault(record.device, DeviceView())
                device.pending_bytes = sum(
                    int(fields[x]) for x in _LEFT if x in fields
                )

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
