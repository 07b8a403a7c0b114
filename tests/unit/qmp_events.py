# SPDX-License-Identifier: GPL-2.0-or-later
"""The QMP events that belong to what `qemu_log.FakeQemu` prints."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

from qemu_log import FakeQemu
from vfio_p2p.timeline import Side, Timeline, build_events
from vfio_p2p.trace import EventReader, Kind

_CALLS = {
    Kind.ATTEMPT, Kind.CHANGED, Kind.PREPARE, Kind.MAIN
}  # fmt: skip


DATA = Path(__file__).with_name("data") / "events"


def file(release: str, scenario: str, side: Side = Side.SOURCE) -> Path:
    """Return the path of the events of a sealed run."""
    tail = ".transcript.jsonl" if release == "10.0.13" else ".jsonl"
    return DATA / f"qemu-{release}-{scenario}.{side}{tail}"


def event(name: str, time_ns: int, **data: str) -> dict[str, object]:
    """Return one event as QEMU sends it."""
    us = time_ns // 1000
    return {
        "timestamp": {"seconds": us // 10**6, "microseconds": us % 10**6},
        "event": name,
        **({"data": data} if data else {}),
    }


def device_event(device: str, state: str, time_ns: int) -> dict[str, object]:
    """Return the event about a device's state."""
    return event(
        "VFIO_MIGRATION", time_ns,
        **{
            "device-id": device,
            "qom-path": f"/machine/peripheral/{device}",
            "device-state": state.lower().replace("_", "-"),
        },
    )  # fmt: skip


def events_of(qemu: FakeQemu) -> Iterator[dict[str, object]]:
    """Yield the events of all that was printed, in QEMU's order."""
    stops = False
    side = qemu.timeline()
    records = {
        record.line: record
        for record in (
            *(x for arc in side.arcs for x in arc.records),
            *(step.record for e in side.epochs for step in e.steps),
            *(e.notify for e in side.epochs if e.notify),
            *side.marks,
        )
    }
    for line, kind in enumerate(qemu.kinds, 1):
        record = records.get(line)
        if record is None or record.time_ns is None:
            continue
        if stops and kind not in _CALLS:
            stops = False
            yield event("STOP", record.time_ns - 1000)
        if kind is Kind.NOTIFY:
            if record.fields["running"]:
                yield event("RESUME", record.time_ns)
            elif record.fields["reason"] == "shutdown":
                yield event("SHUTDOWN", record.time_ns, reason="host-qmp-quit")
            else:
                stops = True
        elif kind is Kind.STATUS:
            status = str(record.fields["status"])
            yield event("MIGRATION", record.time_ns, status=status)
        elif kind is Kind.CHANGED:
            state = str(record.fields["state"])
            yield device_event(record.device, state, record.time_ns)


def log(events: Iterator[dict[str, object]] | list[dict[str, object]]) -> (
    bytes
):
    """Return events as a file."""
    return "".join(f"{json.dumps(x)}\n" for x in events).encode()


def timeline_of(data: bytes, side: Side = Side.SOURCE) -> Timeline:
    """Return the timeline of a log of events."""
    return build_events(EventReader(io.BytesIO(data), f"{side}.jsonl"), side)
