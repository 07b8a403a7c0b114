# SPDX-License-Identifier: GPL-2.0-or-later
"""What devices write to the guest's memory, and the rule about it.

A simulated device writes numbered records, each to the next page of a part of
the guest's memory, around and around.  After a migration, the device that was
loaded looks at that memory: the newest record alone tells which record every
page must have.
"""

from __future__ import annotations

from collections.abc import Iterator

from vfio_p2p.oracle.model import Criteria, Objection, Unclear, Violation
from vfio_p2p.timeline import Timeline
from vfio_p2p.trace import DeviceLog, printable
from vfio_p2p.trace.device import Dma, DmaMemory


def dma_memory(
    source: Timeline, destination: Timeline, criteria: Criteria
) -> Iterator[Objection]:
    """Check that the guest has all that devices wrote before they stopped.

    :param source: The timeline of the source.
    :param destination: The timeline of the destination.
    :param criteria: What they are judged by.
    """
    if not any(x.completed for x in source.migrations):
        return
    for pair in zip(source.plugged, destination.plugged, strict=False):
        writer, reader = (
            side.logs.get(device)
            for side, device in zip((source, destination), pair, strict=True)
        )
        if not criteria.dma & set(pair) or writer is None or reader is None:
            continue
        if writer.whole and reader.whole:
            yield from _compared(pair, writer, reader)


def _compared(
    pair: tuple[str, str], writer: DeviceLog, reader: DeviceLog
) -> Iterator[Objection]:
    """Compare what one device wrote with what the other one found."""
    wrote, found = map(printable, pair)
    seen = reader.of(DmaMemory)[-1:]
    if not seen:
        yield Unclear(f"{found} has not looked at the guest's memory")
        return
    written = [
        entry
        for entry in writer.of(Dma)
        if entry.when == "stop" and entry.time_ns <= seen[0].time_ns
    ][-1:]
    if not written or not written[0].seq:
        yield Unclear(f"{wrote} has written nothing to the guest's memory")
        return
    last, memory = written[0], seen[0]
    if memory.error or last.failed:
        error = memory.error or last.error
        yield Unclear(
            f"the kernel has refused DMA of {wrote} or {found}: {error}",
            (last, memory),
        )
    elif memory.stale or memory.last != last.seq:
        what = f"{memory.stale} of {memory.pages} pages are older"
        if memory.last != last.seq:
            what = f"the newest record is {memory.last} of {last.seq}"
        yield Violation(
            f"the guest's memory lacks what {wrote} wrote to it: {what}",
            pair,
            (last, memory),
        )
