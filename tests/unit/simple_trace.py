# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU's `simple` trace backend: files, right or wrong on purpose.

It was written from trace/simple.c, without looking at the reader.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from vfio_p2p.trace import Record

MAGIC = 0xF2B177CB0AA429B4
DROPPED = 2**64 - 2
_BEGIN_NS = 16_630_790_858_547


def header(
    magic: int = MAGIC, version: int = 4, order: str = "<"
) -> bytes:
    """Return the beginning of a file."""
    return struct.pack(f"{order}QQQ", 2**64 - 1, magic, version)


def mapping(number: int, name: str) -> bytes:
    """Return the mapping of an event's name."""
    return struct.pack("<QQI", 0, number, len(name)) + name.encode()


def event(number: int, time_ns: int, *values: int | str) -> bytes:
    """Return an event."""
    payload = b"".join(
        struct.pack("<Q", value % 2**64)
        if isinstance(value, int)
        else struct.pack("<I", len(value.encode())) + value.encode()
        for value in values
    )
    size = 24 + len(payload)
    return struct.pack("<QQQII", 1, number, time_ns, size, 4242) + payload


@dataclass
class SimpleFile:
    """A file that is being written; events are named when they first occur."""

    data: bytes = header()
    numbers: dict[str, int] = field(default_factory=dict)
    time_ns: int = _BEGIN_NS

    def add(
        self, name: str, *values: int | str, time_ns: int | None = None
    ) -> None:
        """Add one event."""
        if name not in self.numbers:
            # Modules add their events late.
            self.numbers[name] = 4000 + len(self.numbers)
            self.data += mapping(self.numbers[name], name)
        self.time_ns += 250_001
        now_ns = self.time_ns if time_ns is None else time_ns
        self.data += event(self.numbers[name], now_ns, *values)

    def drop(self, count: int) -> None:
        """Note that QEMU lost events."""
        self.data += event(DROPPED, self.time_ns, count)


def as_simple(
    records: Iterable[Record], begin_ns: int = _BEGIN_NS
) -> SimpleFile:
    """Return what the `simple` backend writes for the events of a log."""
    made = SimpleFile(time_ns=begin_ns)
    for record in records:
        made.add(record.event, *record.fields.values())
    return made
