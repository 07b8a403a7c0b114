# SPDX-License-Identifier: GPL-2.0-or-later
"""What must come before what: a check of the clocks of the two sides.

Nothing arrives before it was sent.  If two logs say otherwise, their clocks
differ by more than is allowed for, and no duration from one side to the other
is known.
"""

from __future__ import annotations

from collections.abc import Iterator

from vfio_p2p.timeline.model import Timeline
from vfio_p2p.trace import Kind, Record
from vfio_p2p.uapi import DeviceState

_CHECKPOINT = "vmstate_downtime_checkpoint"
_STARTS = (DeviceState.RUNNING, DeviceState.RUNNING_P2P)


def contradiction(source: Timeline, destination: Timeline) -> str:
    """Say how the clocks of two logs contradict each other.

    :param source: The timeline of the side that sent the stream.
    :param destination: The timeline of the side that received it.
    :return: A clause that names both lines; empty if the logs agree.
    """
    bound_ns = source.bound_ns + destination.bound_ns
    pairs = [(x, y, "before") for x, y in _orders(source, destination)]
    pairs += [(x, y, "after") for x, y in _ends(source, destination)]
    for sent, received, when in pairs:
        if sent.time_ns is None or received.time_ns is None:
            continue
        early_ns = sent.time_ns - received.time_ns
        if when == "after":
            early_ns = -early_ns
        if early_ns > bound_ns:
            allowed = ""
            if bound_ns:
                allowed = f", which is more than the {bound_ns / 1e6:.3f} ms "
                allowed += "by which they may be off"
            return (
                "the clocks of the two logs disagree: the destination has "
                f"{_named(received)} (line {received.line}) "
                f"{early_ns / 1e6:.3f} ms {when} the source has "
                f"{_named(sent)} (line {sent.line}){allowed}"
            )
    return ""


def _orders(
    source: Timeline, destination: Timeline
) -> Iterator[tuple[Record, Record]]:
    """Yield lines of the source, each with a line that it must precede."""
    begun = source.migrations[-1:]
    loading = [
        arc.records[-1]
        for arc in destination.arcs
        if arc.reached is DeviceState.RESUMING
    ]
    if begun and loading:
        yield begun[0].begin, loading[-1]
    # This line is printed before the last bytes of the stream are flushed
    # (QEMU's migration/savevm.c, since 8.2).
    saved = _checkpoints(source, "src-non-iterable-saved")
    loaded = _checkpoints(destination, "dst-precopy-loadvm-completed")
    if saved and loaded:
        yield saved[-1], loaded[-1]
    # No device is started before the last one's data were sent.
    written = source.marks_of(Kind.COMPLETE)
    started = _started(destination)
    if written and started:
        yield written[-1], started


def _started(destination: Timeline) -> Record | None:
    """Return the last first request to start a device that was loaded."""
    loading = False
    found = None
    for arc in destination.arcs:
        if arc.reached is DeviceState.RESUMING:
            loading, found = True, None
        elif loading and arc.requested in _STARTS and arc.records:
            loading, found = False, arc.records[-1]
    return found


def _ends(
    source: Timeline, destination: Timeline
) -> Iterator[tuple[Record, Record]]:
    """Yield lines of the source, each with a line that it must follow.

    A source is only done when its destination has begun to load.
    """
    loading = [
        arc.records[0]
        for arc in destination.arcs
        if arc.reached is DeviceState.RESUMING
    ]
    done = [x.end for x in source.migrations[-1:] if x.completed]
    # Without those lines, this one comes last of a migration that succeeds.
    if not source.migrations and source.marks_of(Kind.COMPLETE):
        done += source.marks_of(Kind.SAVE_CLEANUP)[-1:]
    if loading and done and done[-1] is not None:
        yield done[-1], loading[-1]


def _checkpoints(side: Timeline, name: str) -> list[Record]:
    return [
        record
        for record in side.others
        if record.event == _CHECKPOINT and record.fields["checkpoint"] == name
    ]


def _named(record: Record) -> str:
    if record.event == _CHECKPOINT:
        return f"{_CHECKPOINT} {record.fields['checkpoint']}"
    if record.kind is Kind.STATUS:
        return f"{record.event} {record.fields['status']}"
    return record.event
