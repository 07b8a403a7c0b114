# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules about what fails, is cancelled, or must not happen at all."""

from __future__ import annotations

from collections.abc import Iterator

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


def _epoch_at(side: Timeline, line: int) -> Epoch | None:
    """Return the last run-state change before a line."""
    before = [epoch for epoch in side.epochs if _start(epoch) <= line]
    return before[-1] if before else None


def run_state(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that no device moves where the VM's run state forbids it.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    for arc in side.arcs:
        # An arc without a cause may be that of a callback that was cut off.
        if arc.cause in (None, Cause.PREPARE, Cause.MAIN) or not arc.moved:
            continue
        epoch = _epoch_at(side, arc.line)
        if epoch is None or side.has_gap(arc.device):
            continue
        assert arc.reached is not None
        if arc.cause is Cause.NOTIFIER and _starts_next(side, arc):
            continue
        if arc.reached in (_STOPS if epoch.running else _RUNS):
            yield Violation(
                f"{printable(arc.device)} came to {arc.reached.name} after "
                f"{epoch}",
                (arc.device,),
                (*_lines_of(epoch), *arc.records),
            )


def _starts_next(side: Timeline, arc: TracedArc) -> bool:
    """Return whether the VM is started right after a request.

    From QEMU 11.0 on, a migration that fails first starts the devices, then
    the VM, and is then cleaned up.
    """
    after = [epoch for epoch in side.epochs if _start(epoch) > arc.line]
    if not after or not after[0].running:
        return False
    marks = [
        mark
        for mark in side.marks_of(
            Kind.SAVE_SETUP, Kind.SAVE_CLEANUP, Kind.STATUS
        )
        if mark.line < _start(after[0])
    ]
    begun = max(
        (
            mark.line
            for mark in marks
            if mark.line < arc.line
            and (
                mark.kind is Kind.SAVE_SETUP
                or mark.fields.get("status") == "setup"
            )
        ),
        default=0,
    )
    return not any(
        mark.line > begun
        and (
            mark.kind is Kind.SAVE_CLEANUP
            or mark.fields.get("status") in ("cancelled", "failed")
        )
        for mark in marks
    )


def _lines_of(epoch: Epoch) -> tuple[Record, ...]:
    return (epoch.notify or epoch.steps[0].record,)


def cancelled(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that the devices run with their VM after a failed migration.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    migrations = side.migrations
    for number, migration in enumerate(migrations):
        if migration.end is None or migration.completed:
            continue
        after = migrations[number + 1 : number + 2]
        limit = after[0].begin.line if after else None
        end = _checkpoint(side, migration, limit)
        if end is None:
            continue
        epoch = _epoch_at(side, end - 1)
        if epoch is None or not epoch.running:
            continue
        for device in side.devices:
            # QEMU restores its devices right behind that line.
            done = any(
                migration.begin.line < mark.line < end
                for mark in side.marks_of(Kind.SAVE_CLEANUP, device=device)
            )
            if not done or side.has_gap(device):
                continue
            arcs = [a for a in side.arcs_of(device) if a.line < end]
            if arcs and arcs[-1].reached is not _S.RUNNING:
                yield _not_restored(migration, arcs[-1])


def _checkpoint(
    side: Timeline, migration: TracedMigration, limit: int | None
) -> int | None:
    """Return the line by which all devices must be restored.

    That is where the VM stops or migrates again.  Until then QEMU may still
    be at work.
    """
    assert migration.end is not None
    stops = [
        _start(epoch)
        for epoch in side.epochs
        if not epoch.running and _start(epoch) > migration.end.line
    ]
    found = [*stops[:1], *([] if limit is None else [limit])]
    return min(found, default=None)


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
