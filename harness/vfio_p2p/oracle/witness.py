# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules that compare QEMU's trace with the devices' own logs."""

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
    Loaded,
    Peer,
    Saved,
    Walked,
)
from vfio_p2p.uapi import DeviceState

_S = DeviceState


def agreement(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that both witnesses show the same requests, results and times.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    for device in side.devices:
        log = side.logs.get(device)
        arcs = side.arcs_of(device)
        unfinished = bool(arcs) and arcs[-1].reached is None
        # Missing or doubled lines are a doubt already.
        if log is None or not log.whole or side.torn(device):
            continue
        walk = _Walk(device, log, side.heard_ns)
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
                    f"{walk.name} was asked for "
                    f"{_name(call.request.target)}, and the trace shows no "
                    "such request",
                    call.entries,
                )


def _name(state: DeviceState | None) -> str:
    return "no state" if state is None else state.name


class _Walk:
    """Follows the traced requests through a device's own log."""

    def __init__(
        self,
        device: str,
        log: DeviceLog,
        heard_ns: tuple[int, int] | None = None,
    ) -> None:
        self.device = device
        self.rest = [
            call
            for call in log.calls
            if heard_ns is None
            or heard_ns[0] <= call.request.time_ns <= heard_ns[1]
        ]
        self.resets = log.of(DeviceReset)

    @property
    def name(self) -> str:
        """The device's name, fit to print."""
        return printable(self.device)

    def broken(
        self, message: str, records: Sequence[EvidenceLine]
    ) -> Violation:
        """Say that the two witnesses disagree."""
        return Violation(message, (self.device,), tuple(records))

    def follow(self, arc: TracedArc) -> Violation | None:
        """Find a traced request in the log; return None if both agree."""
        if arc.done is None:
            return None     # The request was moot: it was there already.
        if arc.attempt is None:
            self.pass_over(arc.requested)
        if not self.rest:
            return self.broken(
                f"QEMU's trace shows a request for {arc.requested.name} "
                f"that {self.name}'s own log lacks",
                arc.records,
            )
        call = self.rest.pop(0)
        records: tuple[EvidenceLine, ...] = (*arc.records, *call.entries)
        if call.request.target is not arc.requested:
            return self.broken(
                f"QEMU asked {self.name} for {arc.requested.name}, but the "
                f"device's log says {_name(call.request.target)}",
                records,
            )
        last, state = self._outcome(call, arc)
        if state is not arc.reached:
            return self.broken(
                f"QEMU's trace says that {self.name} came to "
                f"{_name(arc.reached)}, but the device's log says "
                f"{_name(state)}",
                (*records, *last.entries),
            )
        return self._in_time(arc, call, last)

    def give_up(self, arc: TracedArc) -> None:
        """Skip the request in which QEMU hung or died."""
        if self.rest:
            self._outcome(self.rest.pop(0), arc)

    def pass_over(self, requested: DeviceState | None) -> None:
        """Skip failed requests, and their recovery, in the log.

        Up to 9.0 the trace has no line for either.
        """
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
        """Return the last call of a request, and its final state.

        That includes how QEMU recovered when the request failed.
        """
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
        """Check that the device took its arcs between the trace's lines."""
        times_ns = [call.request.time_ns]
        times_ns += [step.end_ns for step in call.steps]
        if last is not call:
            times_ns += [step.end_ns for step in last.steps]
        if arc.attempt is not None and arc.attempt.time_ns is not None:
            times_ns.insert(0, arc.attempt.time_ns)
        if arc.done is not None and arc.done.time_ns is not None:
            times_ns.append(arc.done.time_ns)
        # The trace's times are whole microseconds.
        times_us = [time_ns // 1000 for time_ns in times_ns]
        if times_us == sorted(times_us):
            return None
        return self.broken(
            f"{self.name} went to {arc.requested.name} outside of the time "
            "that QEMU's trace shows",
            (*arc.records, *call.entries, *call.steps),
        )


def stream_end(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that a device leaves STOP_COPY only with an empty stream.

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
                            "that had not been read",
                            (device,),
                            (saved, entry),
                        )


def _completed(side: Timeline, time_ns: int) -> bool:
    """Return whether the migration that was running then succeeded."""
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
    """Check that each device loads what it saved.

    :param source: The timeline of the source.
    :param destination: The timeline of the destination.
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
        yield from _whole(destination, pair[1], sent)
        if sent:
            # The device that saved a snapshot loads it.  Whatever it loaded
            # before, it loaded when this side was a destination.
            yield from _checked(source, pair[0], sent, sent[0].line)
        yield from _counters(pair, saver, loader)


def _checked(
    side: Timeline, device: str, sent: Sequence[Saved], after: int = 0
) -> Iterator[Objection]:
    """Judge what was loaded after a line of the log."""
    log = side.logs[device]
    known = {entry.crc32 for entry in sent}
    for entry in (*log.of(ChecksumBad), *log.of(ChecksumOk)):
        if entry.line < after:
            continue
        if isinstance(entry, ChecksumOk):
            wrong = entry.crc32 not in known
        else:
            # To refuse such data is right, if the migration then fails.
            wrong = _completed(side, entry.time_ns)
        if wrong:
            yield Violation(
                f"{printable(device)} loaded other data than were saved",
                (device,),
                (*sent[-1:], entry),
            )


def _whole(
    side: Timeline, device: str, sent: Sequence[Saved]
) -> Iterator[Objection]:
    """Judge a device that loads in write(), and so need not look at an end.

    Other devices find out themselves that something is missing.
    """
    log = side.logs[device]
    if any(log.of(ChecksumBad)):
        return
    for entry in log.of(Loaded):
        if not entry.complete and _completed(side, entry.time_ns):
            yield Violation(
                f"{printable(device)} loaded only a part of what was saved",
                (device,),
                (*sent[-1:], entry),
            )


def _counters(
    pair: tuple[str, str], saver: DeviceLog, loader: DeviceLog
) -> Iterator[Objection]:
    """Compare the last counters that were loaded with the last saved ones."""
    saved = {x.peer: x for x in saver.of(Peer) if x.when == "saved"}
    loaded = {x.peer: x for x in loader.of(Peer) if x.when == "loaded"}
    if not loaded:
        # The device loaded no counters.
        return
    for peer in sorted(saved.keys() | loaded.keys()):
        given, taken = saved.get(peer), loaded.get(peer)
        if given is None or taken is None or given.counts != taken.counts:
            yield Violation(
                f"{printable(pair[1])} does not continue the counters of "
                f"{printable(pair[0])} for peer {peer}",
                pair,
                tuple(x for x in (given, taken) if x is not None),
            )
