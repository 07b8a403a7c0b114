# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules that hold QEMU's trace against the devices' own logs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vfio_p2p.oracle.model import Criteria, EvidenceLine, Objection, Violation
from vfio_p2p.timeline import Timeline, TracedArc
from vfio_p2p.trace import DeviceLog, printable
from vfio_p2p.trace.device import (
    Call,
    ChecksumBad,
    ChecksumOk,
    DeviceReset,
    Peer,
    Saved,
    Walked,
)
from vfio_p2p.uapi import DeviceState

_S = DeviceState


def agreement(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Both witnesses tell of the same requests, results and times.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    for device in side.devices:
        log = side.logs.get(device)
        arcs = side.arcs_of(device)
        unfinished = bool(arcs) and arcs[-1].reached is None
        # Lines that are missing or doubled are in doubt already.
        if log is None or not log.whole or side.torn(device):
            continue
        walk = _Walk(device, log)
        for arc in arcs[: len(arcs) - unfinished]:
            outcome = walk.follow(arc)
            if outcome is not None:
                yield outcome
                break
        else:
            if unfinished:
                walk.give_up(arcs[-1])
            elif arcs and arcs[0].attempt is None:
                walk.pass_over(None)
            if walk.rest:
                call = walk.rest[0]
                yield walk.broken(
                    f"was asked for {_name(call.request.target)}, of which "
                    "the trace says nothing",
                    call.entries,
                )


def _name(state: DeviceState | None) -> str:
    return "no state" if state is None else state.name


class _Walk:
    """Goes through a device's log as the trace of its requests says."""

    def __init__(self, device: str, log: DeviceLog) -> None:
        self.device = device
        self.rest = list(log.calls)
        self.resets = log.of(DeviceReset)

    def broken(self, what: str, records: Sequence[EvidenceLine]) -> Violation:
        """The two disagree."""
        return Violation(
            f"{printable(self.device)} {what}",
            (self.device,),
            tuple(records),
        )

    def follow(self, arc: TracedArc) -> Violation | None:
        """Find a traced request in the log; None if all is well."""
        if arc.done is None:
            return None     # moot: it was there already
        if arc.attempt is None:
            self.pass_over(arc.requested)
        if not self.rest:
            return self.broken(
                f"was never asked for {arc.requested.name}, it says",
                arc.records,
            )
        call = self.rest.pop(0)
        records: tuple[EvidenceLine, ...] = (*arc.records, *call.entries)
        if call.request.target is not arc.requested:
            return self.broken(
                f"was asked for {_name(call.request.target)}, it says, not "
                f"for {arc.requested.name}",
                records,
            )
        last, state = self._outcome(call, arc)
        if state is not arc.reached:
            return self.broken(
                f"came to {_name(state)}, it says, not to "
                f"{_name(arc.reached)}",
                (*records, *last.entries),
            )
        return self._in_time(arc, call, last)

    def give_up(self, arc: TracedArc) -> None:
        """Leave out what QEMU did not live to see the end of."""
        if self.rest:
            self._outcome(self.rest.pop(0), arc)

    def pass_over(self, requested: DeviceState | None) -> None:
        """Up to 9.0 a request that fails has no line, nor what follows."""
        failed = False
        while self.rest:
            call = self.rest[0]
            ret = call.result.ret if call.result else 0
            if not ret and not (
                failed and call.request.target is not requested
            ):
                return
            failed = bool(ret)
            self.rest.pop(0)

    def _outcome(
        self, call: Call, arc: TracedArc
    ) -> tuple[Call, DeviceState | None]:
        """Where a request ended, with what QEMU did when it failed."""
        if call.result is None:
            return call, None
        if not call.result.ret:
            return call, call.result.state
        recover = arc.attempt.fields["recover"] if arc.attempt else ""
        if self.rest and recover == _name(self.rest[0].request.target):
            call = self.rest.pop(0)
            if call.result is not None and not call.result.ret:
                return call, call.result.state
        end = self.rest[0].request.line if self.rest else None
        for reset in self.resets:
            if reset.line > call.request.line and (
                end is None or reset.line < end
            ):
                return call, _S.RUNNING
        return call, call.result.state if call.result else None

    def _in_time(
        self, arc: TracedArc, call: Call, last: Call
    ) -> Violation | None:
        """The device was at it between the two lines of the trace."""
        times_ns = [call.request.time_ns]
        times_ns += [step.end_ns for step in call.steps]
        if last is not call:
            times_ns += [step.end_ns for step in last.steps]
        if arc.attempt is not None and arc.attempt.time_ns is not None:
            times_ns.insert(0, arc.attempt.time_ns)
        if arc.done is not None and arc.done.time_ns is not None:
            times_ns.append(arc.done.time_ns)
        # The trace has whole microseconds.
        times_us = [time_ns // 1000 for time_ns in times_ns]
        if times_us == sorted(times_us):
            return None
        return self.broken(
            f"went to {arc.requested.name} at another time, it says",
            (*arc.records, *call.entries, *call.steps),
        )


def stream_end(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """STOP_COPY ends with a stream that was read to its end.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    for device in side.devices:
        log = side.logs.get(device)
        saved: Saved | None = None
        for entry in log.entries if log else ():
            match entry:
                case Saved():
                    saved = entry
                case Walked(before=_S.STOP_COPY, target=_S.STOP, ret=0):
                    if (
                        saved is not None
                        and not saved.complete
                        and _completed(side, entry.time_ns)
                    ):
                        yield Violation(
                            f"{printable(device)} left STOP_COPY with data "
                            "that nobody had read",
                            (device,),
                            (saved, entry),
                        )


def _completed(side: Timeline, time_ns: int) -> bool:
    """Whether the migration to which a time belongs was a success."""
    found = [
        migration
        for migration in side.migrations
        if migration.begin.time_ns is not None
        and migration.begin.time_ns <= time_ns
    ]
    return bool(found) and found[-1].completed


def checksum(
    source: Timeline, destination: Timeline, criteria: Criteria
) -> Iterator[Objection]:
    """What was loaded is what was saved.

    :param source: The source's timeline.
    :param destination: The destination's.
    :param criteria: What they are judged by.
    """
    sides = (source, destination)
    for pair in zip(source.plugged, destination.plugged, strict=False):
        saver, loader = (
            side.logs.get(device)
            for side, device in zip(sides, pair, strict=True)
        )
        if saver is None or loader is None:
            continue
        if not (saver.whole and loader.whole):
            continue
        sent = [entry for entry in saver.of(Saved) if entry.complete]
        yield from _checked(destination, pair[1], sent)
        if sent:
            # A snapshot is loaded by the device that saved it. What came
            # before was loaded when this side was a destination.
            yield from _checked(source, pair[0], sent, sent[0].line)
        yield from _counters(pair, saver, loader)


def _checked(
    side: Timeline, device: str, sent: Sequence[Saved], after: int = 0
) -> Iterator[Objection]:
    """Judge what was loaded, after some line of the log."""
    log = side.logs[device]
    known = {entry.crc32 for entry in sent}
    for entry in (*log.of(ChecksumBad), *log.of(ChecksumOk)):
        if entry.line < after:
            continue
        if isinstance(entry, ChecksumOk):
            wrong = entry.crc32 not in known
        else:
            # It is well to refuse such data, if the migration fails then.
            wrong = _completed(side, entry.time_ns)
        if wrong:
            yield Violation(
                f"{printable(device)} was given other data than were saved",
                (device,),
                (*sent[-1:], entry),
            )


def _counters(
    pair: tuple[str, str], saver: DeviceLog, loader: DeviceLog
) -> Iterator[Objection]:
    """The last that were loaded, against the last that were saved."""
    saved = {x.peer: x for x in saver.of(Peer) if x.when == "saved"}
    loaded = {x.peer: x for x in loader.of(Peer) if x.when == "loaded"}
    if not loaded:
        # Nothing was taken over.
        return
    for peer in sorted(saved.keys() | loaded.keys()):
        given, taken = saved.get(peer), loaded.get(peer)
        if given is None or taken is None or given.counts != taken.counts:
            yield Violation(
                f"{printable(pair[1])} does not count on where "
                f"{printable(pair[0])} stopped, for peer {peer}",
                pair,
                tuple(x for x in (given, taken) if x is not None),
            )
