# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules about single requests: how QEMU asks a device for a state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from vfio_p2p.oracle.model import Criteria, Objection, Unclear, Violation
from vfio_p2p.timeline import Cause, Timeline, TracedArc
from vfio_p2p.trace import Kind, Record, printable
from vfio_p2p.trace.device import Request
from vfio_p2p.uapi import DeviceState

_NAMELESS = "UNKNOWN STATE"

_RECOVER = {
    Cause.PREPARE: DeviceState.ERROR,
    Cause.MAIN: DeviceState.ERROR,
    Cause.SETUP: DeviceState.RUNNING,
    Cause.CLEANUP: DeviceState.ERROR,
    Cause.LOADED: DeviceState.ERROR,
    Cause.NOTIFIER: DeviceState.ERROR,
}


def once(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that no function repeats the request that it just made.

    Missing lines cannot feign this: the second request is announced after
    the first one is known to be done.  Releases that announce nothing are
    believed if the device's own log says the same.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    for device in side.devices:
        for first, second in pairwise(side.arcs_of(device)):
            # vfio_save_complete_precopy() may ask again for the state that
            # the main callback asked for, and if lines are missing, both
            # requests seem to be of one function.
            if second.requested is DeviceState.STOP_COPY:
                continue
            if (
                first.mark is not None
                and first.mark is second.mark
                and first.moved
                and first.requested is second.requested
                and (
                    _heard(side, second)
                    if second.attempt is None
                    else second.done is None
                )
            ):
                yield Violation(
                    f"{printable(device)} was asked twice in a row for "
                    f"{second.requested.name}",
                    (device,),
                    (*first.records, *second.records, first.mark),
                )


def _heard(side: Timeline, arc: TracedArc) -> bool:
    """Whether the device heard the same request twice in a row."""
    log = side.logs.get(arc.device)
    return log is not None and any(
        first.target is second.target is arc.requested
        for first, second in pairwise(log.of(Request))
    )


def sequence(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that each device is asked for the states of its sequence.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    plugged = {mark.device for mark in side.marks_of(Kind.REALIZE)}
    for (where, device), due in criteria.sequences.items():
        if where is not side.side or device not in plugged:
            continue
        arcs = [
            arc
            for arc in side.arcs_of(device)
            if arc.requested is not arc.before
        ]
        asked = tuple(arc.requested for arc in arcs)
        if asked == due:
            continue
        message = (
            f"{printable(device)} was asked for {_states(asked)}; "
            f"{_states(due)} was expected"
        )
        records = tuple(record for arc in arcs for record in arc.records[:1])
        # A run that was cut short may well end within a request.
        damaged = side.has_gap if criteria.ends else side.torn
        if damaged(device):
            yield Unclear(message, records)
        else:
            yield Violation(message, (device,), records)


def _states(states: Sequence[DeviceState]) -> str:
    return ", ".join(state.name for state in states) or "nothing"


def recover(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check which state each request names in case that it fails.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    for arc in side.arcs:
        due = _due(arc)
        # Up to 9.0 there is no line before a request.
        if due is None or arc.attempt is None or side.has_gap(arc.device):
            continue
        said = arc.attempt.fields["recover"]
        if said != due.name:
            yield Violation(
                f"{printable(arc.device)}, asked for {arc.requested.name}, "
                f"would be left in {said} if that failed, not in {due.name}",
                (arc.device,),
                arc.records,
            )


def _due(arc: TracedArc) -> DeviceState | None:
    """Return the right state to recover to; None if it is unknown."""
    match arc.cause:
        case None:
            return None
        case Cause.LOAD:
            return arc.before
        case Cause.COMPLETE:
            if arc.requested is DeviceState.STOP_COPY:
                return DeviceState.STOP
            return DeviceState.ERROR
    return _RECOVER[arc.cause]


def named(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that QEMU has a name for every state that it asks for.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    # A line without the name of a state is a gap in the timeline.
    found = [
        record
        for gap in side.gaps
        for record in gap.records
        if record.fields.get("state") == _NAMELESS
    ]
    for device in dict.fromkeys(record.device for record in found):
        lines: tuple[Record, ...] = tuple(
            record for record in found if record.device == device
        )
        yield Violation(
            f"{printable(device)} was asked for a state that QEMU calls "
            f"{_NAMELESS}",
            (device,),
            lines,
        )
