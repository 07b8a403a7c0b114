# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of each device as stretches of time, from a timeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vfio_p2p.report.document import Arc, Lane, Mark, State
from vfio_p2p.timeline import Timeline
from vfio_p2p.timeline import TracedArc as Request
from vfio_p2p.trace import Kind, Record

# Far above any run's: a log can name as many as it likes.
_MOST_LANES = 64
_MOST_ARCS = 512

_RUNNING = "RUNNING"


def first_ns(sides: Iterable[Timeline]) -> int | None:
    """Wall-clock time of the first line; None when no line has any.

    :param sides: Of one run.
    """
    times = [time for side in sides for time in _times(side)]
    return min(times, default=None)


def lanes(side: Timeline, zero_ns: int) -> tuple[Lane, ...]:
    """One lane for each device of a side.

    :param side: Its timeline.
    :param zero_ns: Wall-clock time to count from.
    """
    end_ns = max(_times(side), default=zero_ns) - zero_ns
    return tuple(
        _lane(side, device, zero_ns, end_ns)
        for device in side.devices[:_MOST_LANES]
    )


def marks(side: Timeline, zero_ns: int) -> tuple[Mark, ...]:
    """Run-state changes, and those of the migration.

    :param side: Its timeline.
    :param zero_ns: Wall-clock time to count from.
    """
    found = []
    for epoch in side.epochs[:_MOST_ARCS]:
        begin = epoch.notify or epoch.steps[0].record
        if begin.time_ns is not None:
            what = "start" if epoch.running else "stop"
            found.append(
                Mark(
                    side=side.side,
                    time_ns=begin.time_ns - zero_ns,
                    kind="run state",
                    text=f"{what} ({epoch.reason})",
                )
            )
    for record in side.marks_of(Kind.STATUS)[:_MOST_ARCS]:
        if record.time_ns is not None:
            found.append(
                Mark(
                    side=side.side,
                    time_ns=record.time_ns - zero_ns,
                    kind="migration",
                    text=str(record.fields["status"]),
                )
            )
    return tuple(sorted(found, key=lambda mark: mark.time_ns))


def _lane(side: Timeline, device: str, zero_ns: int, end_ns: int) -> Lane:
    states: list[State] = []
    arcs: list[Arc] = []
    state, since = "", None
    for record in side.marks_of(Kind.REALIZE, device=device):
        # vfio_migration_init() takes it for running without a line.
        state, since = _RUNNING, _relative(record, zero_ns)

    def stay(until: int) -> None:
        if state and since is not None and until > since:
            states.append(State(start_ns=since, end_ns=until, state=state))

    for request in _moves(side.arcs_of(device)):
        begin = _relative(request.records[0], zero_ns)
        end = _relative(request.records[-1], zero_ns)
        if begin is None or end is None:
            continue
        if not states and request.before is not None and since is None:
            # The log begins later than the device.
            state, since = request.before.name, begin
        stay(begin)
        reached = request.reached
        if request.attempt is not None:
            arcs.append(
                Arc(
                    start_ns=begin,
                    end_ns=max(begin, end),
                    before=request.before.name if request.before else "",
                    requested=request.requested.name,
                    reached=reached.name if reached is not None else "",
                )
            )
        state = reached.name if reached is not None else ""
        since = max(begin, end)
    stay(end_ns)
    return Lane(
        side=side.side,
        device=device,
        states=tuple(states),
        arcs=tuple(arcs),
    )


def _moves(requests: Iterable[Request]) -> Iterator[Request]:
    """Those that moved the device, or should have."""
    count = 0
    for request in requests:
        if request.moved or request.reached is not request.requested:
            count += 1
            if count > _MOST_ARCS:
                return
            yield request


def _relative(record: Record, zero_ns: int) -> int | None:
    return None if record.time_ns is None else record.time_ns - zero_ns


def _times(side: Timeline) -> Iterator[int]:
    records = [
        *side.marks,
        *(record for arc in side.arcs for record in arc.records),
        *(step.record for epoch in side.epochs for step in epoch.steps),
        *(epoch.notify for epoch in side.epochs if epoch.notify),
    ]
    return (r.time_ns for r in records if r.time_ns is not None)
