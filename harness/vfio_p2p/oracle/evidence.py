# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a log holds enough to show that the rules hold.

Every ordering rule holds on an empty log, on one whose end is missing, and on
that of a QEMU that never started.  A log with a doubt can never pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from vfio_p2p.oracle.model import Criteria, Doubt
from vfio_p2p.timeline import Side, Timeline
from vfio_p2p.trace import Kind, Record, printable, words
from vfio_p2p.trace.device import Dropped
from vfio_p2p.trace.formats import FAILURE_MESSAGES, VERSIONS
from vfio_p2p.uapi import P2P_STATES, DeviceState

_SHOWN_GAPS = 5
# The message of a doubt that is a line of QEMU's own.
QEMU_SAID = "QEMU said"
_THREAD_END = "vfio_save_complete_precopy_thread_end"
_ADVICE = "trace with --trace 'vfio_*' --trace vm_state_notify"
_EVENTS_ADVICE = (
    "give each device the property migration-events=on (QEMU 9.1 or newer), "
    "and the migration the capability 'events'"
)


def doubts(side: Timeline, criteria: Criteria) -> Iterator[Doubt]:
    """Yield why the log of one side cannot show that the rules hold.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    for message, records in _doubts(side, criteria):
        yield Doubt(side.side, message, side.summary.name, records)


def unseen(side: Timeline, criteria: Criteria) -> Iterator[Doubt]:
    """Yield what is missing of the devices' own logs.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    for device in side.devices:
        name = printable(device)
        log = side.logs.get(device)
        if log is None:
            if criteria.logs:
                why = f"there is no log of {name} itself"
                yield Doubt(side.side, why, side.summary.name)
        elif not log.whole:
            why = f"{name} had more to say than its log holds"
            yield Doubt(
                side.side, why, side.summary.name, log.of(Dropped)[-1:]
            )


def older(side: Timeline) -> Doubt | None:
    """Say if a log is of a QEMU that is older than all that is judged.

    :param side: The timeline of one side.
    """
    what = side.summary.older
    numbers = [
        record
        for gap in side.gaps
        for record in gap.records
        if str(record.fields.get("state")).isdigit()
    ]
    if numbers and not what:
        what = f"{numbers[0].event} with a number for a state"
    if not what:
        return None
    return Doubt(
        side.side,
        f"this log is of an older QEMU, before {VERSIONS[0]}, as it has "
        f"{what}; logs are judged from QEMU {VERSIONS[0]} on",
        side.summary.name,
        tuple(numbers[:1]),
    )


def unloaded(source: Timeline, destination: Timeline) -> Iterator[Doubt]:
    """Yield the devices that wrote data which nobody is seen to load.

    :param source: The timeline of the source.
    :param destination: The timeline of the destination.
    """
    for device, partner in partners(source, destination):
        written = source.amounts.get(device)
        loaded = destination.amounts.get(partner)
        if not written or not written.written_bytes or not loaded:
            continue
        if loaded.loaded_bytes or loaded.buffers or not loaded.announced:
            continue
        size = f"{written.written_bytes / (1 << 20):.1f} MiB"
        why = (
            "this log has other lines about its load, and no "
            "vfio_load_state_device_data"
        )
        if loaded.loads:
            why = "each vfio_load_state_device_data of it is empty or failed"
        yield Doubt(
            destination.side,
            f"{printable(partner)} is not seen to load anything, while the "
            f"source wrote {size} of {printable(device)}: {why}",
            destination.summary.name,
            (loaded.refused,) if loaded.refused else (),
        )


def partners(
    source: Timeline, destination: Timeline
) -> Iterator[tuple[str, str]]:
    """Yield each device of the source with the one that it became.

    They have one name, or else one place in the order of their plugging.

    :param source: The timeline of the source.
    :param destination: The timeline of the destination.
    """
    first = source.plugged or source.devices
    second = destination.plugged or destination.devices
    if set(first) == set(second):
        second = first
    if len(first) == len(second):
        yield from zip(first, second, strict=True)


def regular_end(side: Timeline, message: Record) -> bool:
    """Return whether QEMU was ended after its migrations were over.

    libvirt ends every source that has migrated by SIGTERM, for example.

    :param side: The timeline of one side.
    :param message: What QEMU said.
    """
    if words.SIGNAL not in message.text or not side.devices:
        return False
    last = side.migrations[-1:]
    if last and (last[0].end is None or last[0].end.line > message.line):
        return False
    return side.cleaned is not None and side.cleaned < message.line


_Found = Iterator[tuple[str, tuple[Record, ...]]]


def _doubts(side: Timeline, criteria: Criteria) -> _Found:
    summary = side.summary
    for message in side.marks_of(Kind.MESSAGE):
        if not any(
            text in message.text for text in FAILURE_MESSAGES
        ) and not regular_end(side, message):
            yield QEMU_SAID, (message,)
    if not summary.size_bytes:
        yield "the log is empty", ()
        return
    if summary.cut:
        yield f"the log is cut: its last {summary.backend.unit} has no end", ()
    if side.dropped:
        yield (
            "events are missing, as QEMU's trace buffer was full: trace less",
            side.dropped[:_SHOWN_GAPS],
        )
    if not side.devices and not summary.backend.requests:
        yield (
            f"no {summary.backend.unit} in {summary.lines} is the QMP event "
            f"VFIO_MIGRATION: {_EVENTS_ADVICE}, or {_ADVICE}",
            (),
        )
        return
    if not side.devices:
        yield (
            f"no {summary.backend.unit} in {summary.lines} is about a VFIO "
            f"device's migration: {_ADVICE}, with the 'log' or the 'simple' "
            "backend",
            (),
        )
        return
    yield from _meanings(side)
    yield from _gaps(side)
    yield from _devices(side, criteria)
    if criteria.p2p is None:
        yield _no_p2p(side)
    if criteria.migrates:
        if side.side is Side.SOURCE and not summary.backend.requests:
            yield from _left(side)
        elif side.side is Side.SOURCE:
            yield from _saved(side)
        else:
            yield from _loaded(side)


def _meanings(side: Timeline) -> _Found:
    """Yield a doubt if two versions' texts, that no build mixes, occur.

    Distributions do mix many other texts of several versions.
    """
    old = [a for a in side.arcs if a.done and a.done.kind is Kind.SUCCEEDED]
    new = [a for a in side.arcs if a.attempt]
    if old and new:
        yield (
            "vfio_migration_set_state means 'done' in some lines and 'about "
            "to try' in others: more than one QEMU wrote this log",
            (*old[0].records, *new[0].records),
        )


def _gaps(side: Timeline) -> _Found:
    asked = [arc for arc in side.arcs if arc.attempt is not None]
    if side.gaps and not asked and side.summary.backend.requests:
        changed = [a.done for a in side.arcs if a.done is not None]
        if not changed or changed[0].kind is Kind.CHANGED:
            yield f"vfio_migration_set_state was not traced: {_ADVICE}", ()
            return
    for gap in side.gaps[:_SHOWN_GAPS]:
        yield f"lines are missing or doubled: {gap.why}", gap.records
    more = len(side.gaps) - _SHOWN_GAPS
    if more > 0:
        yield f"lines are missing or doubled in {more} more places", ()


def _devices(side: Timeline, criteria: Criteria) -> _Found:
    wanted = criteria.devices
    if wanted is None:
        wanted = len(side.plugged)
        if not wanted:
            how = "give --devices"
            if side.summary.backend.requests:
                how += ", or trace vfio_migration_realize"
            yield f"the number of devices is unknown: {how}", ()
            return
    if len(side.devices) != wanted:
        names = ", ".join(printable(name) for name in side.devices)
        yield f"{wanted} devices expected, the log shows {names}", ()
    if not side.epochs and (criteria.runs or side.side is not Side.SOURCE):
        advice = _ADVICE if side.summary.backend.requests else _EVENTS_ADVICE
        yield f"no run-state change was traced: {advice}", ()


def _saved(side: Timeline) -> _Found:
    """Yield what is missing of saving each device's state to its end."""
    written = {
        mark.device
        for mark in side.marks_of(Kind.COMPLETE)
        # The thread's line says if it succeeded, the other one has an errno.
        if bool(mark.fields["ret"]) == (mark.event == _THREAD_END)
    }
    for device in side.devices:
        reached = [arc.reached for arc in side.arcs_of(device)]
        if DeviceState.STOP_COPY not in reached or device not in written:
            hint = ""
            if DeviceState.RESUMING in reached:
                hint = "; this looks like the log of a destination"
            yield (
                f"no migration of {printable(device)} to its end is in "
                f"this log{hint}",
                (),
            )
        elif not side.marks_of(Kind.SAVE_CLEANUP, device=device):
            yield (
                f"the log ends before vfio_save_cleanup of "
                f"{printable(device)}",
                (),
            )


def _left(side: Timeline) -> _Found:
    """Yield what is missing of the migration's end, by QMP events."""
    if not any(migration.completed for migration in side.migrations):
        yield (
            "no MIGRATION event tells that a migration was completed: "
            f"{_EVENTS_ADVICE}",
            (),
        )
    for device in side.devices:
        reached = [arc.reached for arc in side.arcs_of(device)]
        if DeviceState.STOP_COPY not in reached:
            hint = ""
            if DeviceState.RESUMING in reached:
                hint = "; this looks like the log of a destination"
            yield (
                f"{printable(device)} did not come to STOP_COPY in this "
                f"log{hint}",
                (),
            )


def _loaded(side: Timeline) -> _Found:
    """Yield the devices that were not asked to load."""
    for device in side.devices:
        reached = [arc.reached for arc in side.arcs_of(device)]
        if DeviceState.RESUMING not in reached:
            yield f"{printable(device)} was never asked for RESUMING", ()


def _no_p2p(side: Timeline) -> tuple[str, tuple[Record, ...]]:
    """Return why it is unknown whether the tree has the series at all."""
    for arc in side.arcs:
        if arc.requested in P2P_STATES:
            return (
                "P2P states without a prepare callback: trace "
                "vfio_vmstate_change_prepare",
                arc.records,
            )
    return "no device was ever asked for a P2P state", ()
