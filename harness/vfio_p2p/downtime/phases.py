# SPDX-License-Identifier: GPL-2.0-or-later
"""From the timelines of both sides to a breakdown of the blackout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from vfio_p2p.downtime.intervals import intervals, turns
from vfio_p2p.downtime.model import (
    Beside,
    BlackoutPhase,
    Breakdown,
    CriticalLink,
    Interval,
    NotObservable,
    PhaseName,
)
from vfio_p2p.timeline import Blackout, Epoch, Pass, Timeline, blackout
from vfio_p2p.timeline.blackout import final_stop, last_running
from vfio_p2p.trace import VERSIONS, Kind, Record
from vfio_p2p.uapi import P2P_STATES

_CHECKPOINT = "vmstate_downtime_checkpoint"
# The last of these lines is printed within the blackout.
_PENDING = "vfio_state_pending"
_SYNCED = "migration_bitmap_sync_end"
# Before, only a migration with pause-before-switchover has the status
# "device".
_DEVICE_SINCE = "10.0"
_QUERIED_SINCE = "11.1"
_LOADED = (
    "vfio_load_state_device_data",
    # With multifd device state transfer.
    "vfio_load_bufs_thread_end",
)


@dataclass(frozen=True, slots=True)
class _Milestone:
    """The end of a phase.

    :param time_ns: When it was; None if the logs do not tell.
    :param why: In that case, the reason.
    """

    time_ns: int | None
    why: str = ""


def phases(
    source: Timeline,
    destination: Timeline,
    beside: Beside | None = None,
) -> Breakdown:
    """Take a blackout apart.

    :param source: The timeline of the side that stopped.
    :param destination: The timeline of the side that continued.
    :param beside: Other figures, to which `stop_request_ns` is added.
    """
    whole = blackout(source, destination)
    beside = beside or Beside()
    stop = final_stop(source)
    last = last_running(destination)
    if whole.start_ns is None or stop is None or last is None:
        missing = NotObservable("blackout", whole.note)
        return Breakdown(whole, not_observable=(missing,), beside=beside)
    start = _epoch_of(destination, last)
    parts, blind = _partition(
        whole, _milestones(source, destination, stop, start, whole)
    )
    work, outside, unseen = intervals(
        source, destination, stop, start, whole
    )
    if not whole.exact:
        unseen.append(NotObservable("stop-request", whole.note))
    if stop.notify and stop.notify.time_ns is not None and whole.exact:
        beside = replace(
            beside, stop_request_ns=whole.start_ns - stop.notify.time_ns
        )
    return Breakdown(
        blackout=whole,
        phases=parts,
        intervals=work,
        outside=outside,
        critical_path=tuple(
            link for part in parts for link in _links(part, work)
        ),
        not_observable=(*blind, *unseen),
        beside=beside,
    )


def _epoch_of(destination: Timeline, last: Record) -> Epoch | None:
    """Return the run-state change that started the last device."""
    return next(
        (
            epoch
            for epoch in destination.epochs
            if any(
                last in arc.records
                for step in epoch.steps
                for arc in step.arcs
            )
        ),
        None,
    )


def _partition(
    whole: Blackout, milestones: Mapping[PhaseName, _Milestone]
) -> tuple[tuple[BlackoutPhase, ...], tuple[NotObservable, ...]]:
    """Make phases without a gap; an unknown one is part of the next one."""
    assert whole.start_ns is not None
    assert whole.end_ns is not None
    at_ns = whole.start_ns
    parts: list[BlackoutPhase] = []
    blind: list[NotObservable] = []
    unsettled: list[tuple[PhaseName, str]] = []
    for name in PhaseName:
        milestone = milestones.get(name)
        if milestone is None:
            continue
        if milestone.time_ns is None:
            unsettled.append((name, milestone.why))
            continue
        end_ns = min(max(at_ns, milestone.time_ns), whole.end_ns)
        parts.append(BlackoutPhase(name, at_ns, end_ns))
        blind += [NotObservable(x, why, name) for x, why in unsettled]
        unsettled = []
        at_ns = end_ns
    return tuple(parts), tuple(blind)


def _milestones(
    source: Timeline,
    destination: Timeline,
    stop: Epoch,
    start: Epoch | None,
    whole: Blackout,
) -> dict[PhaseName, _Milestone]:
    begin = _Milestone(whole.start_ns)
    first_turn = _first_turn(source)
    requested = _requested(start, destination)
    # Later lines are of the devices' next stop, or of another run.
    until = start.steps[0].record.line if start else None
    loaded = [
        r for r in destination.others if until is None or r.line < until
    ]
    return {
        PhaseName.P2P_ARCS: _prepared(stop) or begin,
        PhaseName.STOP_ARCS: _last(_pass(stop, Pass.MAIN)) or begin,
        **_while_stopped(source, stop, first_turn.time_ns),
        PhaseName.RAM: first_turn,
        PhaseName.DEVICE_SAVED: _told(
            _last(source.marks_of(Kind.COMPLETE)), "no device was saved"
        ),
        PhaseName.NON_ITERABLE: _told(
            _last(_checkpoints(source, "src-non-iterable-saved")),
            _why(source, f"{_CHECKPOINT} src-non-iterable-saved", "8.2"),
        ),
        PhaseName.DEVICE_LOADED: _told(
            _last(r for r in loaded if r.event in _LOADED),
            _why(destination, "vfio_load_state_device_data", "8.1"),
        ),
        PhaseName.STREAM_END: _told(
            _last(r for r in loaded if r.event == "vmstate_downtime_load"),
            _why(destination, "vmstate_downtime_load", "8.2"),
        ),
        PhaseName.LOAD_DONE: _told(
            _last(_checkpoints(destination, "dst-precopy-loadvm-completed"))
            or _last(
                r
                for r in loaded
                if r.event == "process_incoming_migration_co_end"
            ),
            _why(destination, "process_incoming_migration_co_end", "8.1"),
        ),
        PhaseName.START: requested,
        PhaseName.START_P2P_ARCS: (_prepared(start) if start else None)
        or requested,
        PhaseName.START_ARCS: _Milestone(whole.end_ns),
    }


def _last(records: Iterable[Record]) -> _Milestone | None:
    times = [r.time_ns for r in records if r.time_ns is not None]
    return _Milestone(max(times)) if times else None


def _told(milestone: _Milestone | None, why: str) -> _Milestone:
    return milestone or _Milestone(None, why)


def _pass(epoch: Epoch, which: Pass) -> list[Record]:
    return [step.record for step in epoch.of(which)]


def _prepared(epoch: Epoch) -> _Milestone | None:
    """Return when the last prepare callback returned.

    If those were not traced, the last P2P state that was reached tells.
    """
    return _last(_pass(epoch, Pass.PREPARE)) or _last(
        arc.records[-1]
        for step in epoch.steps
        for arc in step.arcs
        if arc.requested in P2P_STATES
    )


def _checkpoints(side: Timeline, name: str) -> list[Record]:
    return [
        r
        for r in side.others
        if r.event == _CHECKPOINT and r.fields["checkpoint"] == name
    ]


def _while_stopped(
    source: Timeline, stop: Epoch, turn_ns: int | None
) -> dict[PhaseName, _Milestone]:
    """Return the phases between the stop and the rest of the RAM."""
    stopped = stop.steps[-1].record.line
    after = [r for r in source.others if r.line > stopped]
    # With postcopy, QEMU 8.1 asks once more when the devices are saved.
    saved = [x.line for x in source.marks_of(Kind.COMPLETE)]
    syncs = [
        r
        for r in after
        if r.event == _SYNCED and (not saved or r.line < saved[-1])
    ]
    queries = [
        r for r in after if r.event == _PENDING and r.fields.get("final")
    ]
    found = {PhaseName.DIRTY_SYNC: _synced(source, syncs, turn_ns)}
    asks = _is_since(source, _QUERIED_SINCE)
    if queries or asks:
        found[PhaseName.FINAL_QUERY] = _told(
            _last(queries), _why(source, _PENDING, _QUERIED_SINCE)
        )
    if syncs or queries or asks:
        told = min((r.line for r in syncs[-1:] + queries[-1:]), default=None)
        begun = [
            mark
            for mark in source.marks_of(Kind.STATUS)
            if mark.fields["status"] == "device"
            and mark.line > stopped
            and (told is None or mark.line < told)
        ]
        if begun or _is_since(source, _DEVICE_SINCE):
            found[PhaseName.VM_STOPPED] = _told(
                _last(begun[-1:]), _why(source, "migrate_set_state", "8.1")
            )
    return found


def _synced(
    source: Timeline, syncs: list[Record], turn_ns: int | None
) -> _Milestone:
    """Return when the last sync of dirty pages after the stop was over."""
    if not syncs:
        if any(r.event == _SYNCED for r in source.others):
            return _Milestone(
                None, f"no {_SYNCED} after the stop in the source's log"
            )
        return _Milestone(None, _why(source, _SYNCED, "8.1"))
    end_ns = syncs[-1].time_ns
    if end_ns is not None and turn_ns is not None and turn_ns < end_ns:
        return _Milestone(
            None, "devices were saved already while QEMU asked for dirty pages"
        )
    return _Milestone(end_ns)


def _first_turn(source: Timeline) -> _Milestone:
    """Return when the first device began to write its part of the stream."""
    begins = [turn.start_ns for turn in turns(source)]
    told = [x for x in begins if x is not None]
    if not told or begins[0] is None:
        return _Milestone(
            None, _why(source, "vmstate_downtime_save", "8.2")
        )
    return _Milestone(min(told))


def _requested(start: Epoch | None, destination: Timeline) -> _Milestone:
    """Return when the first request to start a device was made."""
    if start is None:
        return _Milestone(
            None, "the last device was not started by a run-state change"
        )
    attempts = [
        arc.attempt.time_ns
        for step in start.steps
        for arc in step.arcs
        if arc.attempt and arc.attempt.time_ns is not None
    ]
    if attempts:
        return _Milestone(min(attempts))
    if start.notify and start.notify.time_ns is not None:
        return _Milestone(start.notify.time_ns)
    return _Milestone(None, _why(destination, "vm_state_notify", "8.1"))


def _is_since(side: Timeline, version: str) -> bool:
    """Return whether a log is surely of this version or a newer one."""
    versions = side.summary.versions
    index = VERSIONS.index
    return versions is not None and index(versions[0]) >= index(version)


def _why(side: Timeline, event: str, since: str) -> str:
    """Return why a line is missing."""
    versions = side.summary.versions
    index = VERSIONS.index
    if versions and index(versions[1]) < index(since):
        return f"QEMU {versions[1]} does not print {event}"
    return (
        f"no {event} in the {side.side}'s log; QEMU prints it with "
        f"--trace {event.split()[0]}"
    )


def _links(
    part: BlackoutPhase, work: tuple[Interval, ...]
) -> list[CriticalLink]:
    """Return what was waited for in a phase, found from its end backwards."""
    if not part.duration_ns:
        return []
    own = [x for x in work if x.phase is part.name]
    links: list[CriticalLink] = []
    at_ns = part.end_ns
    while at_ns > part.start_ns:
        before = [
            x for x in own if x.start_ns < at_ns and x.end_ns > part.start_ns
        ]
        # Of the intervals that ended last, the longest explains the most.
        busy = max(
            before,
            key=lambda x: (min(x.end_ns, at_ns), -x.start_ns),
            default=None,
        )
        if busy is None or busy.end_ns < at_ns:
            idle_ns = part.start_ns if busy is None else busy.end_ns
            links.append(CriticalLink(part.name, None, idle_ns, at_ns))
            at_ns = idle_ns
        if busy is not None:
            begin_ns = max(busy.start_ns, part.start_ns)
            links.append(CriticalLink(part.name, busy, begin_ns, at_ns))
            at_ns = begin_ns
    return links[::-1]
