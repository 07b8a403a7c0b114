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


def contradiction(source: Timeline, destination: Timeline) -> str:
    """Say how the clocks of two logs contradict each other.

    :param source: The timeline of the side that sent the stream.
    :param destination: The timeline of the side that received it.
    :return: A clause that names both lines; empty if the logs agree.
    """
    bound_ns = source.bound_ns + destination.bound_ns
    for sent, received in _orders(source, destination):
        if sent.time_ns is None or received.time_ns is None:
            continue
        early_ns = sent.time_ns - received.time_ns
        if early_ns > bound_ns:
            allowed = ""
            if bound_ns:
                allowed = f", which is more than the {bound_ns / 1e6:.3f} ms "
                allowed += "by which they may be off"
            return (
                "the clocks of the two logs disagree: the destination has "
                f"{_named(received)} (line {received.line}) "
                f"{early_ns / 1e6:.3f} ms before the source has "
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
