# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules about the two passes of vm_state_notify()."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from vfio_p2p.oracle.model import Criteria, Objection, Unclear, Violation
from vfio_p2p.timeline import (
    Callback,
    Cause,
    Epoch,
    Pass,
    Timeline,
    TracedArc,
)
from vfio_p2p.trace import Kind, printable
from vfio_p2p.uapi import DeviceState, MigrationFlags

# In these states a device does not answer the other devices.
_SILENT = frozenset(
    {
        DeviceState.ERROR,
        DeviceState.STOP,
        DeviceState.STOP_COPY,
        DeviceState.RESUMING,
    }
)


def count(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that each pass calls back each device that it concerns once.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    plugged = {m.device: m.line for m in side.marks_of(Kind.REALIZE)}
    heard = _last_heard(side)
    for epoch in side.epochs:
        found = Counter((step.pass_, step.device) for step in epoch.steps)
        for device in side.devices:
            if plugged.get(device, 0) > epoch.steps[-1].record.line:
                continue
            moot = _moot(side, epoch, device)
            p2p = criteria.flags_of(device) & MigrationFlags.P2P
            due = {Pass.PREPARE: bool(criteria.p2p and p2p), Pass.MAIN: True}
            for pass_, wanted in due.items():
                if found[pass_, device] > wanted:
                    yield _too_many(epoch, pass_, device, int(wanted))
                elif found[pass_, device] < wanted and pass_ not in moot:
                    later = heard.get(device, 0)
                    yield _missing(side, epoch, pass_, device, later)


def _last_heard(side: Timeline) -> dict[str, int]:
    """Return the last line in which some function mentions each device."""
    found: dict[str, int] = {}
    told = (
        *((arc.device, arc.line) for arc in side.arcs if arc.cause),
        *((mark.device, mark.line) for mark in side.marks),
    )
    for device, line in told:
        found[device] = max(line, found.get(device, 0))
    return found


def _moot(side: Timeline, epoch: Epoch, device: str) -> set[Pass]:
    """Return the callbacks that may have asked for the device's own state.

    QMP has no event for these.
    """
    if side.summary.backend.requests:
        return set()
    steps = [step for step in epoch.steps if step.device == device]
    if any(step.pass_ is Pass.PREPARE for step in steps):
        return set()
    arcs = side.arcs_of(device)
    # They are in the order of their lines.
    count = bisect_left(arcs, epoch.steps[0].line, key=lambda arc: arc.line)
    if not count:
        return set() if steps else set(Pass)
    rest = {DeviceState.RUNNING}
    if not epoch.running:
        rest = {DeviceState.STOP, DeviceState.STOP_COPY}
    before = arcs[count - 1].reached
    moot = {Pass.MAIN} if before in rest else set()
    if before is DeviceState.RUNNING_P2P:
        moot.add(Pass.PREPARE)
    return moot


def _too_many(
    epoch: Epoch, pass_: Pass, device: str, wanted: int
) -> Objection:
    steps = [step for step in epoch.of(pass_) if step.device == device]
    records = tuple(step.record for step in steps)
    message = (
        f"{epoch}: {len(steps)} {pass_} callbacks of {printable(device)}, "
        f"{wanted} expected"
    )
    if all(len(step.arcs) == 1 for step in steps):
        return Violation(message, (device,), records)
    # A callback without its request is a doubled line, not a second call.
    return Unclear(message, records)


def _missing(
    side: Timeline, epoch: Epoch, pass_: Pass, device: str, heard: int
) -> Objection:
    """Judge a callback that was not seen.

    Either QEMU did not make it, or its line is missing.

    :param heard: The last line in which a function mentions the device.
    """
    message = f"{epoch}: no {pass_} callback of {printable(device)}"
    steps = [step for step in epoch.steps if step.device == device]
    records = tuple(step.record for step in steps)
    # Unless another function mentions the device later, a main callback may
    # be still to come, or the device may have been unplugged.
    end = epoch.steps[-1].record.line
    over = steps if pass_ is Pass.PREPARE else heard > end
    if over and not side.has_gap(device):
        return Violation(message, (device,), records)
    return Unclear(message, records)


def barrier(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that all prepares end before any main begins, on all devices.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    for epoch in side.epochs:
        prepares, mains = epoch.of(Pass.PREPARE), epoch.of(Pass.MAIN)
        last = max((step.record.line for step in prepares), default=0)
        early = [main for main in mains if main.line < last]
        if not early:
            continue
        begin = early[0].line
        late = [step for step in prepares if step.record.line > begin]
        devices = dict.fromkeys(step.device for step in (*early, *late))
        yield Violation(
            f"{epoch}: the main callback of {_names(early)} came before "
            f"the prepare callback of {_names(late)}",
            tuple(devices),
            tuple(
                step.record
                for step in sorted((*early, *late), key=lambda s: s.line)
            ),
        )
    yield from _unframed(side, criteria)


def _unframed(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check the devices that the notifier of a failed migration starts.

    From QEMU 11.0 on it comes before vm_state_notify(), and asks one device
    after the other for RUNNING.
    """
    last: dict[str, TracedArc] = {}
    told = False
    for arc in side.arcs:
        begun = (
            arc.cause is Cause.NOTIFIER
            and arc.before in _SILENT
            and arc.reached is DeviceState.RUNNING
        )
        silent = [
            x
            for x in last.values()
            if x.device != arc.device
            and x.reached in _SILENT
            and MigrationFlags.P2P in criteria.flags_of(x.device)
        ]
        if (
            begun
            and silent
            and not told
            and MigrationFlags.P2P in criteria.flags_of(arc.device)
            and not any(side.has_gap(x.device) for x in (arc, *silent))
        ):
            told = True
            states = ", ".join(
                f"{printable(x.device)} was in {x.reached.name}"
                for x in silent
                if x.reached is not None
            )
            yield Violation(
                f"{Cause.NOTIFIER.value} started {printable(arc.device)} "
                f"while {states}",
                (arc.device, *(x.device for x in silent)),
                tuple(r for x in (*silent, arc) for r in x.records[-1:]),
            )
        told = told and arc.cause is Cause.NOTIFIER
        last[arc.device] = arc


def order(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that passes go forward on a start and in reverse on a stop.

    Which order is the forward one depends on the devices' depth in the qdev
    tree.  All passes must agree on one order.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    reference: Sequence[Callback] = ()
    origin = ""
    for epoch in side.epochs:
        for pass_ in Pass:
            steps = epoch.of(pass_)
            devices = [step.device for step in steps]
            if len(devices) < 2 or len(set(devices)) < len(devices):
                continue
            forward = steps if epoch.running else steps[::-1]
            if not reference:
                reference, origin = forward, f"{epoch}, {pass_} pass"
                if criteria.same_depth:
                    plugged = sorted(
                        side.plugged, key=lambda name: name in criteria.deep
                    )
                    yield from _plugged_order(plugged, epoch, pass_, forward)
                continue
            pair = _swapped([s.device for s in reference], forward)
            if pair is not None:
                first, second = pair
                yield Violation(
                    f"{epoch}, {pass_} pass: the order of "
                    f"{printable(first.device)} and "
                    f"{printable(second.device)} contradicts {origin}",
                    (first.device, second.device),
                    tuple(
                        step.record
                        for step in (*reference, *steps)
                        if step.device in (first.device, second.device)
                    ),
                )


def _plugged_order(
    plugged: Sequence[str],
    epoch: Epoch,
    pass_: Pass,
    forward: Sequence[Callback],
) -> Iterator[Objection]:
    pair = _swapped(plugged, forward)
    if pair is not None:
        first, second = pair
        yield Violation(
            f"{epoch}, {pass_} pass: {printable(first.device)} and "
            f"{printable(second.device)} are not in the order of their depth "
            f"and of their plugging, as a {_way(epoch)} requires",
            (first.device, second.device),
            (first.record, second.record),
        )


def _way(epoch: Epoch) -> str:
    return "start" if epoch.running else "stop (reversed)"


def _swapped(
    reference: Sequence[str], steps: Sequence[Callback]
) -> tuple[Callback, Callback] | None:
    """Return the first two callbacks that are in the wrong order.

    :param reference: The devices in the right order.
    :param steps: The callbacks to compare with it.
    """
    rank = {device: i for i, device in enumerate(reference)}
    known = [step for step in steps if step.device in rank]
    for first, second in pairwise(known):
        if rank[first.device] > rank[second.device]:
            return first, second
    return None


def _names(steps: Sequence[Callback]) -> str:
    return ", ".join(
        dict.fromkeys(printable(step.device) for step in steps)
    )
