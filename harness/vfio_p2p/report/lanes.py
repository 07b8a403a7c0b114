# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of each device, and its losses, from the timelines of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from vfio_p2p.oracle.traffic import Flow, flows
from vfio_p2p.report.run import Lane, Loss, Mark, Move, PairTraffic, Stay
from vfio_p2p.timeline import Epoch, Timeline, TracedArc
from vfio_p2p.trace import Kind, Record
from vfio_p2p.trace.device import Lost

# Far more than any run has: a log can name as many as it likes.
_MOST_LANES = 64
_MOST_ARCS = 512
_MOST_LOSSES = 1000

_RUNNING = "RUNNING"


def first_ns(sides: Iterable[Timeline]) -> int | None:
    """The wall-clock time of the first line; None if no line has a time.

    :param sides: The timelines of one run.
    """
    times = [time for side in sides for time in _times(side)]
    return min(times, default=None)


def lanes(side: Timeline, zero_ns: int) -> tuple[Lane, ...]:
    """Make a lane for each device of a side.

    :param side: The side's timeline.
    :param zero_ns: The wall-clock time to count from.
    """
    end_ns = max(_times(side), default=zero_ns) - zero_ns
    return tuple(
        _lane(side, device, zero_ns, end_ns)
        for device in side.devices[:_MOST_LANES]
    )


def marks(side: Timeline, zero_ns: int) -> tuple[Mark, ...]:
    """Collect the changes of the VM's run state and of the migration.

    :param side: The side's timeline.
    :param zero_ns: The wall-clock time to count from.
    """
    found = []
    for epoch in side.epochs[:_MOST_ARCS]:
        begin_ns = _begin_ns(epoch)
        if begin_ns is not None:
            what = "start" if epoch.running else "stop"
            found.append(
                Mark(
                    side=side.side,
                    time_ns=begin_ns - zero_ns,
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


def pairs(
    sides: Sequence[Timeline], counted: Iterable[Flow], zero_ns: int
) -> tuple[PairTraffic, ...]:
    """Collect what each device sent to each other one, and lost.

    :param sides: The timelines of both sides.
    :param counted: The traffic as the devices counted it in the end.
    :param zero_ns: The wall-clock time to count from.
    """
    lost: dict[tuple[int, int], list[Loss]] = {}
    for side in sides:
        for flow in flows(side):
            lost.setdefault(_numbers([side], flow), []).extend(
                _loss(side, entry, zero_ns)
                for entry in islice(flow.lost, _MOST_LOSSES)
            )
    found = []
    for flow in counted:
        if not any(flow.sender in side.devices for side in sides):
            continue
        pair = _numbers(sides, flow)
        found.append(
            PairTraffic(
                sender=pair[0],
                receiver=pair[1],
                sent=flow.told.sent,
                lost=flow.told.lost,
                losses=tuple(lost.get(pair, ())),
            )
        )
    return tuple(found)


def _numbers(sides: Iterable[Timeline], flow: Flow) -> tuple[int, int]:
    """The devices' numbers, which are the same on both sides."""
    devices = next(x.devices for x in sides if flow.sender in x.devices)
    return devices.index(flow.sender), devices.index(flow.receiver)


def _loss(side: Timeline, entry: Lost, zero_ns: int) -> Loss:
    before = [
        epoch
        for epoch in side.epochs
        if (begin_ns := _begin_ns(epoch)) is not None
        and begin_ns <= entry.time_ns
    ]
    during = "runs"
    if before:
        during = "starts" if before[-1].running else "stops"
        during += f" ({before[-1].reason})"
    # The state ERROR has the value zero.
    state = "CLOSED" if entry.to_state is None else entry.to_state.name
    return Loss(
        side=side.side,
        time_ns=entry.time_ns - zero_ns,
        sender_state=entry.from_state.name,
        receiver_state=state,
        during=during,
    )


def _begin_ns(epoch: Epoch) -> int | None:
    return (epoch.notify or epoch.steps[0].record).time_ns


def _lane(side: Timeline, device: str, zero_ns: int, end_ns: int) -> Lane:
    states: list[Stay] = []
    arcs: list[Move] = []
    state, since = "", None
    for record in side.marks_of(Kind.REALIZE, device=device):
        # vfio_migration_init() assumes RUNNING and prints no line.
        state, since = _RUNNING, _relative(record, zero_ns)

    def stay(until: int) -> None:
        if state and since is not None and until > since:
            states.append(Stay(start_ns=since, end_ns=until, state=state))

    for request in _moves(side.arcs_of(device)):
        begin = _relative(request.records[0], zero_ns)
        end = _relative(request.records[-1], zero_ns)
        if begin is None or end is None:
            continue
        if not states and request.before is not None and since is None:
            # The log begins after the device's realization.
            state, since = request.before.name, begin
        stay(begin)
        reached = request.reached
        if request.attempt is not None:
            arcs.append(
                Move(
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


def _moves(requests: Iterable[TracedArc]) -> Iterator[TracedArc]:
    """The requests that moved the device, or should have moved it."""
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
