# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules about a device's way through a migration."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from vfio_p2p.oracle.model import Criteria, Objection, Unclear, Violation
from vfio_p2p.timeline import Cause, Timeline, TracedArc
from vfio_p2p.trace import Kind, Record, printable
from vfio_p2p.uapi import DeviceState, MigrationFlags

_S = DeviceState


def stop_late(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that the right function leaves STOP_COPY, after the stream.

    The notifier of a failure may leave it, too: there is no downtime then and
    no stream that has to be complete.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    yield from _stopped_elsewhere(side)
    if criteria.stop_in_cleanup is None:
        return
    right = Cause.CLEANUP if criteria.stop_in_cleanup else Cause.COMPLETE
    stream = _Stream(side)
    for arc in side.arcs:
        if (arc.before, arc.requested) != (_S.STOP_COPY, _S.STOP):
            continue
        name = printable(arc.device)
        records = arc.records + ((arc.mark,) if arc.mark else ())
        if arc.cause is None:
            yield Unclear(
                f"no line tells which function stopped {name}", arc.records
            )
        elif arc.cause is Cause.NOTIFIER:
            continue
        elif arc.cause is not right:
            yield Violation(
                f"{name} left STOP_COPY in {arc.cause.value}, "
                f"not in {right.value}",
                (arc.device,),
                records,
            )
        elif right is Cause.CLEANUP:
            late = stream.after(arc)
            if late is not None:
                both = dict.fromkeys((arc.device, late.device))
                yield Violation(
                    f"{name} left STOP_COPY before the stream was complete",
                    tuple(device for device in both if device),
                    (*records, late),
                )


def _stopped_elsewhere(side: Timeline) -> Iterator[Objection]:
    """Check what the cleanup asks for after a failed migration.

    The VM runs on after such a migration, so its devices must, too.
    """
    for arc in side.arcs:
        if (
            arc.cause is Cause.CLEANUP
            and arc.before not in (None, _S.STOP_COPY, _S.STOP)
            and not side.has_gap(arc.device)
        ):
            assert arc.before is not None
            yield Violation(
                f"{printable(arc.device)}, in {arc.before.name}, was asked "
                f"for {arc.requested.name} in {Cause.CLEANUP.value}",
                (arc.device,),
                arc.records,
            )


class _Stream:
    """Tells how the stream of a migration went on.

    :param side: The timeline of one side.
    """

    def __init__(self, side: Timeline) -> None:
        self._statuses = side.statuses
        # All of these are in the order of their lines.
        self._parts = side.marks_of(Kind.SAVE_SETUP, Kind.COMPLETE)
        self._completed = tuple(
            x for x in side.statuses if x.fields.get("status") == "completed"
        )

    def after(self, arc: TracedArc) -> Record | None:
        """Return the first sign that the stream went on after an arc."""
        told = bisect_left(self._statuses, arc.line, key=_line)
        # A snapshot is never active, and completes after the cleanup.
        snapshot = bool(told) and (
            self._statuses[told - 1].fields.get("status") == "setup"
        )
        found = _first_from(self._parts, arc.line)
        if not snapshot:
            found += _first_from(self._completed, arc.line)
        first = min(found, key=_line, default=None)
        if first is None or first.kind is Kind.SAVE_SETUP:
            return None
        return first


def _line(record: Record) -> int:
    return record.line


def _first_from(records: Sequence[Record], line: int) -> list[Record]:
    at = bisect_left(records, line, key=_line)
    return [*records[at : at + 1]]


def destination(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check for RESUMING, RUNNING_P2P and RUNNING on the destination.

    A stop, or the way back to the source, may follow.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    if criteria.p2p is None:
        return
    stops = {
        arc.line
        for epoch in side.epochs
        if not epoch.running
        for step in epoch.steps
        for arc in step.arcs
    }
    for device in side.devices:
        arcs = [arc for arc in side.arcs_of(device) if arc.moved]
        begin = next(
            (i for i, a in enumerate(arcs) if a.reached is _S.RESUMING), None
        )
        if begin is None or side.has_gap(device):
            continue
        walked = []
        for arc in arcs[begin:]:
            if arc.line in stops or arc.cause is Cause.SETUP:
                break
            walked.append(arc)
        p2p = criteria.p2p and criteria.flags_of(device) & MigrationFlags.P2P
        wanted = [_S.RESUMING, _S.RUNNING_P2P, _S.RUNNING]
        if not p2p:
            wanted.remove(_S.RUNNING_P2P)
        states = [arc.reached for arc in walked if arc.reached is not None]
        # STOP is on the way from RESUMING, and to ask for it harms nobody.
        if states[:2] == [_S.RESUMING, _S.STOP]:
            del states[1]
        if states == wanted:
            continue
        names = ", ".join(state.name for state in states)
        if states == wanted[: len(states)] and not stops:
            # The way is right so far; `left` judges where it ends.
            continue
        yield Violation(
            f"{printable(device)} went {names}; "
            f"{', '.join(state.name for state in wanted)} was expected",
            (device,),
            tuple(record for arc in walked for record in arc.records[-1:]),
        )


def left(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that no device is left in a state in which it cannot stay.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    if side.summary.cut:
        return
    for device, state in side.end.items():
        name = printable(device)
        arcs = [arc for arc in side.arcs_of(device) if arc.moved]
        records = arcs[-1].records if arcs else ()
        if state is _S.ERROR or (
            state in (_S.STOP_COPY, _S.RESUMING)
            and _passed_by(side, device, after=arcs[-1].line)
        ):
            yield Violation(
                f"{name} is left in {state.name}", (device,), records
            )
        elif state not in (_S.STOP, _S.RUNNING):
            # A VM that never starts, or was killed, is no fault of the
            # series.
            yield Unclear(f"the log ends with {name} in {state.name}", records)


def _passed_by(side: Timeline, device: str, after: int) -> bool:
    """Return whether the function that should move a device is over."""
    cleanups = side.marks_of(Kind.SAVE_CLEANUP, device=device)
    ends = [mark.line for mark in cleanups]
    ends += [e.steps[-1].record.line for e in side.epochs if e.running]
    return max(ends, default=0) > after
