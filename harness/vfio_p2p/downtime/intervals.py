# SPDX-License-Identifier: GPL-2.0-or-later
"""What each device was busy with, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vfio_p2p.downtime.model import Interval, NotObservable, PhaseName
from vfio_p2p.timeline import (
    Blackout,
    Cause,
    Epoch,
    Pass,
    Side,
    Timeline,
    TracedArc,
)
from vfio_p2p.timeline.blackout import precopy_queries
from vfio_p2p.trace import Clock, Kind, Record
from vfio_p2p.trace.device import Call

_TURN = (
    "vfio_save_complete_precopy_start",
    # With multifd device state transfer.
    "vfio_save_complete_precopy_thread_start",
)


@dataclass(frozen=True, slots=True)
class SavingTurn:
    """A device's turn to write the rest of its data.

    :param device: Its name.
    :param start_ns: When the turn began; None if no line tells.
    :param end_ns: When it was over.
    """

    device: str
    start_ns: int | None
    end_ns: int | None


def turns(source: Timeline) -> list[SavingTurn]:
    """Return the devices' turns in the order of their ends.

    :param source: The timeline of the side that stopped.
    """
    found = []
    for end in source.marks_of(Kind.COMPLETE):
        begin = _last_before(source, _TURN, end)
        if begin is not None:
            start_ns = begin.time_ns
        elif attempt := _moot(source, end):
            start_ns = attempt.time_ns
        else:
            start_ns = _by_section(source, "vmstate_downtime_save", end)
        found.append(SavingTurn(end.device, start_ns, end.time_ns))
    return found


def _last_before(
    side: Timeline, events: tuple[str, ...], end: Record
) -> Record | None:
    return next(
        (
            r
            for r in reversed(side.others)
            if r.line < end.line
            and r.device == end.device
            and r.event in events
        ),
        None,
    )


def _moot(source: Timeline, end: Record) -> Record | None:
    """Return a turn's first request, which 9.1 prints even if it is moot."""
    return next(
        (
            arc.attempt
            for arc in source.arcs_of(end.device)
            if arc.mark is end and arc.attempt is not None
        ),
        None,
    )


def _by_section(side: Timeline, event: str, end: Record) -> int | None:
    """Return when a line's section began, by QEMU's own figure (8.2)."""
    section = next(
        (r for r in side.others if r.line > end.line and r.event == event),
        None,
    )
    if section is None or section.time_ns is None:
        return None
    return section.time_ns - int(section.fields["downtime"]) * 1000


def intervals(
    source: Timeline,
    destination: Timeline,
    stop: Epoch,
    start: Epoch | None,
    whole: Blackout,
) -> tuple[
    tuple[Interval, ...], tuple[Interval, ...], list[NotObservable]
]:
    """Find all that the devices did for a blackout.

    The devices' own logs are only used for requests before which QEMU did
    not print a line.

    :param source: The timeline of the side that stopped.
    :param destination: The timeline of the side that continued.
    :param stop: The stop with which the blackout began.
    :param start: The start with which it ended, if it ended with one.
    :param whole: The blackout, which has a duration.
    :return: The intervals that count, those that do not, and what the logs
        cannot tell.
    """
    assert whole.start_ns is not None
    assert whole.end_ns is not None
    unseen: list[NotObservable] = []
    timed = _Timed(_calls(source) | _calls(destination), unseen)
    found = [
        *_queried(source, stop),
        *timed.of_epoch(source, stop, PhaseName.P2P_ARCS, PhaseName.STOP_ARCS),
        *_saved(source, timed),
        *_loaded(destination),
    ]
    if start is not None:
        found += timed.of_epoch(
            destination, start, PhaseName.START_P2P_ARCS, PhaseName.START_ARCS
        )
    unseen += [
        NotObservable(
            f"{x.device} {x.activity}", "its log's times go backwards", x.phase
        )
        for x in found
        if x.end_ns < x.start_ns
    ]
    inside = [
        Interval(
            x.side,
            x.device,
            x.activity,
            x.phase,
            max(x.start_ns, whole.start_ns),
            min(x.end_ns, whole.end_ns),
        )
        for x in found
        if x.end_ns > whole.start_ns
        and x.start_ns < whole.end_ns
        and x.start_ns <= x.end_ns
    ]
    outside = [
        made
        for arc in source.arcs
        if arc.cause is Cause.CLEANUP
        for made in timed.of_arc(Side.SOURCE, arc, None)
    ]
    return (
        tuple(sorted(inside, key=lambda x: (x.start_ns, x.end_ns))),
        tuple(outside),
        unseen,
    )


@dataclass(frozen=True, slots=True)
class _Timed:
    """Requests and their durations."""

    calls: Mapping[str, tuple[Call, ...]]
    unseen: list[NotObservable]

    def of_epoch(
        self, side: Timeline, epoch: Epoch, prepare: PhaseName, main: PhaseName
    ) -> Iterator[Interval]:
        """Yield what a run-state change asked the devices for."""
        for step in epoch.steps:
            phase = prepare if step.pass_ is Pass.PREPARE else main
            for arc in step.arcs:
                yield from self.of_arc(side.side, arc, phase)

    def of_arc(
        self, side: Side, arc: TracedArc, phase: PhaseName | None
    ) -> Iterator[Interval]:
        """Yield the interval of a request, if the request took any time."""
        if arc.done is None or arc.done.time_ns is None or not arc.moved:
            return
        begin = f"{arc.before.name}>" if arc.before is not None else ""
        activity = f"{begin}{arc.requested.name}"
        start_ns = self._start_ns(arc, arc.done.time_ns)
        if start_ns is None:
            self.unseen.append(
                NotObservable(
                    f"{arc.device} {activity}",
                    "up to QEMU 9.0 no line is printed before a request",
                    phase,
                )
            )
            return
        yield Interval(
            side, arc.device, activity, phase, start_ns, arc.done.time_ns
        )

    def _start_ns(self, arc: TracedArc, done_ns: int) -> int | None:
        if arc.attempt is not None:
            return arc.attempt.time_ns
        return next(
            (
                call.request.time_ns
                for call in reversed(self.calls.get(arc.device, ()))
                # The times of traces are whole microseconds.
                if call.result is not None
                and call.result.time_ns < done_ns + 1000
                and call.result.state == arc.reached
            ),
            None,
        )


def _calls(side: Timeline) -> dict[str, tuple[Call, ...]]:
    # Only the log backend has the devices' clock.
    if side.summary.backend.clock is not Clock.REALTIME:
        return {}
    return {name: log.calls for name, log in side.logs.items()}


def _queried(source: Timeline, stop: Epoch) -> Iterator[Interval]:
    """Yield the queries about precopy data that came before requests."""
    if stop.notify is None:
        return
    for record in precopy_queries(source, stop):
        before = max(
            (
                x
                for x in (stop.notify, *(step.record for step in stop.steps))
                if x.line < record.line
            ),
            key=lambda x: x.line,
        )
        if before.time_ns is not None and record.time_ns is not None:
            yield Interval(
                Side.SOURCE,
                record.device,
                "precopy-query",
                PhaseName.P2P_ARCS,
                before.time_ns,
                record.time_ns,
            )


def _saved(source: Timeline, timed: _Timed) -> Iterator[Interval]:
    """Yield the reading of the devices' data, and the requests within it."""
    for turn, end in zip(
        turns(source), source.marks_of(Kind.COMPLETE), strict=True
    ):
        arcs = [
            made
            for arc in source.arcs_of(turn.device)
            if arc.mark is end
            for made in timed.of_arc(
                Side.SOURCE, arc, PhaseName.DEVICE_SAVED
            )
        ]
        yield from arcs
        at_ns = turn.start_ns
        if at_ns is None or turn.end_ns is None:
            continue
        for until_ns, next_ns in (
            *((x.start_ns, x.end_ns) for x in arcs),
            (turn.end_ns, turn.end_ns),
        ):
            if until_ns > at_ns:
                yield Interval(
                    Side.SOURCE,
                    turn.device,
                    "save",
                    PhaseName.DEVICE_SAVED,
                    at_ns,
                    until_ns,
                )
            at_ns = max(at_ns, next_ns)
    turn_ends = {x.device: x.line for x in source.marks_of(Kind.COMPLETE)}
    for record in source.others:
        if record.event != "vfio_save_device_config_state":
            continue
        if record.line < turn_ends.get(record.device, 0):
            # With multifd device state transfer, it is a part of the turn.
            continue
        start_ns = _by_section(source, "vmstate_downtime_save", record)
        if start_ns is not None and record.time_ns is not None:
            yield Interval(
                Side.SOURCE,
                record.device,
                "save-config",
                PhaseName.NON_ITERABLE,
                start_ns,
                record.time_ns,
            )


def _loaded(destination: Timeline) -> Iterator[Interval]:
    """Yield the writing of the devices' data."""
    begun: dict[str, Record] = {}
    for record in destination.others:
        match record.event:
            case "vfio_load_state" | "vfio_load_bufs_thread_start":
                begun[record.device] = record
                continue
            case "vfio_load_state_device_data" | "vfio_load_bufs_thread_end":
                activity, phase = "load", PhaseName.DEVICE_LOADED
            case (
                "vfio_load_device_config_state"
                | "vfio_load_device_config_state_end"
            ):
                activity, phase = "load-config", PhaseName.STREAM_END
            case _:
                continue
        begin = begun.pop(record.device, None)
        if begin and begin.time_ns is not None and record.time_ns is not None:
            yield Interval(
                Side.DESTINATION,
                record.device,
                activity,
                phase,
                begin.time_ns,
                record.time_ns,
            )
