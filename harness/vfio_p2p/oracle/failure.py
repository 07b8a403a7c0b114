# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules about what fails, is cancelled, or must not happen at all."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate

from vfio_p2p.oracle.model import Criteria, Objection, Violation
from vfio_p2p.timeline import (
    Cause,
    Epoch,
    Timeline,
    TracedArc,
    TracedMigration,
)
from vfio_p2p.trace import Kind, Record, printable
from vfio_p2p.trace.device import Call
from vfio_p2p.uapi import DeviceState

_S = DeviceState
_RUNS = {_S.RUNNING, _S.RUNNING_P2P, _S.PRE_COPY, _S.PRE_COPY_P2P}
_STOPS = {_S.STOP, _S.STOP_COPY, _S.RESUMING}


def _start(epoch: Epoch) -> int:
    """Return the number of its first line."""
    return epoch.notify.line if epoch.notify else epoch.steps[0].line


class _Epochs:
    """Finds run-state changes by lines.

    :param epochs: The run-state changes, in their order.  Their first lines
        are nearly in that order.
    """

    def __init__(self, epochs: Iterable[Epoch]) -> None:
        self._epochs = tuple(epochs)
        starts = [*map(_start, self._epochs)]
        self._latest = [*accumulate(starts, max)]
        self._earliest = [*accumulate(reversed(starts), min)][::-1]

    def at(self, line: int) -> Epoch | None:
        """Return the last one that began by a line."""
        count = bisect_right(self._earliest, line)
        return self._epochs[count - 1] if count else None

    def after(self, line: int) -> Epoch | None:
        """Return the first one that began after a line."""
        count = bisect_right(self._latest, line)
        return self._epochs[count] if count < len(self._epochs) else None


def run_state(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that no device moves where the VM's run state forbids it.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    epochs = _Epochs(side.epochs)
    starts_next = _StartsNext(side, epochs)
    for arc in side.arcs:
        # An arc without a cause may be that of a callback that was cut off.
        if arc.cause in (None, Cause.PREPARE, Cause.MAIN) or not arc.moved:
            continue
        epoch = epochs.at(arc.line)
        if epoch is None or side.has_gap(arc.device):
            continue
        assert arc.reached is not None
        if arc.cause is Cause.NOTIFIER and starts_next.after(arc):
            continue
        if arc.reached in (_STOPS if epoch.running else _RUNS):
            yield Violation(
                f"{printable(arc.device)} came to {arc.reached.name} after "
                f"{epoch}",
                (arc.device,),
                (*_lines_of(epoch), *arc.records),
            )


class _StartsNext:
    """Tells whether the VM is started right after a request.

    From QEMU 11.0 on, a migration that fails first starts the devices, then
    the VM, and is then cleaned up.

    :param side: The timeline of one side.
    :param epochs: Its run-state changes.
    """

    def __init__(self, side: Timeline, epochs: _Epochs) -> None:
        self._epochs = epochs
        marks = side.marks_of(Kind.SAVE_SETUP, Kind.SAVE_CLEANUP, Kind.STATUS)
        # Both are in the order of the log.
        self._begun = [
            mark.line
            for mark in marks
            if mark.kind is Kind.SAVE_SETUP
            or mark.fields.get("status") == "setup"
        ]
        self._over = [
            mark.line
            for mark in marks
            if mark.kind is Kind.SAVE_CLEANUP
            or mark.fields.get("status") in ("cancelled", "failed")
        ]

    def after(self, arc: TracedArc) -> bool:
        """Return whether it is started right after a request."""
        epoch = self._epochs.after(arc.line)
        if epoch is None or not epoch.running:
            return False
        count = bisect_left(self._begun, arc.line)
        begun = self._begun[count - 1] if count else 0
        at = bisect_right(self._over, begun)
        return at == len(self._over) or self._over[at] >= _start(epoch)


def _lines_of(epoch: Epoch) -> tuple[Record, ...]:
    return (epoch.notify or epoch.steps[0].record,)


def cancelled(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that the devices run with their VM after a failed migration.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    migrations = side.migrations
    epochs = _Epochs(side.epochs)
    cleanups = {
        device: [
            mark.line
            for mark in side.marks_of(Kind.SAVE_CLEANUP, device=device)
        ]
        for device in side.devices
    }
    stops = _Epochs(x for x in side.epochs if not x.running)
    for number, migration in enumerate(migrations):
        if migration.end is None or migration.completed:
            continue
        after = migrations[number + 1 : number + 2]
        limit = after[0].begin.line if after else None
        end = _checkpoint(stops, migration, limit)
        if end is None:
            continue
        epoch = epochs.at(end - 1)
        if epoch is None or not epoch.running:
            continue
        for device in side.devices:
            # QEMU restores its devices right behind that line.
            done = cleanups[device]
            begun = bisect_right(done, migration.begin.line)
            if begun >= bisect_left(done, end) or side.has_gap(device):
                continue
            arcs = side.arcs_of(device)
            count = bisect_left(arcs, end, key=lambda arc: arc.line)
            if count and arcs[count - 1].reached is not _S.RUNNING:
                yield _not_restored(migration, arcs[count - 1])


def _checkpoint(
    stops: _Epochs, migration: TracedMigration, limit: int | None
) -> int | None:
    """Return the line by which all devices must be restored.

    That is where the VM stops or migrates again.  Until then QEMU may still
    be at work.
    """
    assert migration.end is not None
    stop = stops.after(migration.end.line)
    found = [] if stop is None else [_start(stop)]
    return min([*found, *([] if limit is None else [limit])], default=None)


def _not_restored(migration: TracedMigration, arc: TracedArc) -> Violation:
    assert migration.end is not None
    state = "no known state" if arc.reached is None else arc.reached.name
    return Violation(
        f"the migration ended as {migration.end.fields['status']}, the VM "
        f"runs, and {printable(arc.device)} is in {state}",
        (arc.device,),
        (migration.end, *arc.records),
    )


def swallowed(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that no migration succeeds in which a device has failed.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    for migration in side.migrations:
        begin, end = migration.begin, migration.end
        if end is None or not migration.completed:
            continue
        if begin.time_ns is None or end.time_ns is None:
            continue
        for device in side.devices:
            log = side.logs.get(device)
            for call in log.calls if log else ():
                if _failed(call) and (
                    begin.time_ns <= call.request.time_ns < end.time_ns
                ):
                    yield Violation(
                        f"{printable(device)} could not go to "
                        f"{_target(call)}, and the migration was completed "
                        "nevertheless",
                        (device,),
                        (*call.entries, end),
                    )


def _failed(call: Call) -> bool:
    return call.result is not None and call.result.ret != 0


def _target(call: Call) -> str:
    target = call.request.target
    return "no state" if target is None else target.name
