# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules about the states that devices are asked for, and reach."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from vfio_p2p.oracle.model import Criteria, Objection, Violation
from vfio_p2p.timeline import Callback, Epoch, Pass, Timeline
from vfio_p2p.trace import Kind, Record, printable
from vfio_p2p.trace.formats import FAILURE_MESSAGES
from vfio_p2p.uapi import P2P_STATES, DeviceState, MigrationFlags, path

# Runs make the same few requests again and again.
_path = cache(path)

_S = DeviceState
# Only in these run states is a stop followed by the devices' data.
_SAVING_REASONS = {"finish-migrate", "paused"}


def p2p(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check for P2P states with the series, and for none without it.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    asked = [arc for arc in side.arcs if arc.requested in P2P_STATES]
    if criteria.p2p is False and asked:
        arc = asked[0]
        yield Violation(
            f"{printable(arc.device)} was asked for {arc.requested.name}",
            (arc.device,),
            arc.records,
        )
    capable = [
        d for d in side.devices if criteria.flags_of(d) & MigrationFlags.P2P
    ]
    if criteria.p2p and side.epochs and capable and not asked:
        names = ", ".join(printable(device) for device in capable)
        yield Violation(
            f"none of {names} was ever asked for a P2P state",
            tuple(capable),
            tuple(step.record for step in side.epochs[0].steps),
        )


def _targets(
    side: Timeline, pass_: Pass
) -> Iterator[tuple[Epoch, Callback, DeviceState]]:
    """Yield callbacks with the state that they should have asked for."""
    for epoch in side.epochs:
        for step in epoch.of(pass_):
            if step.before is None:
                continue
            saving = step.before in (_S.PRE_COPY, _S.PRE_COPY_P2P)
            if pass_ is Pass.PREPARE:
                precopy = step.before is _S.PRE_COPY
                yield (
                    epoch,
                    step,
                    _S.PRE_COPY_P2P if precopy else _S.RUNNING_P2P,
                )
            elif epoch.running:
                yield epoch, step, _S.RUNNING
            elif saving and epoch.reason in _SAVING_REASONS:
                yield epoch, step, _S.STOP_COPY
            else:
                yield epoch, step, _S.STOP


def _target(side: Timeline, pass_: Pass) -> Iterator[Objection]:
    for epoch, step, target in _targets(side, pass_):
        assert step.before is not None
        if step.requested is not target:
            yield Violation(
                f"{epoch}: {printable(step.device)}, in {step.before.name},"
                f" was asked for {step.requested.name}, not {target.name}",
                (step.device,),
                _step_records(step),
            )


def prepare_target(
    side: Timeline, criteria: Criteria
) -> Iterator[Objection]:
    """Check which state the prepare callback asks for.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    yield from _target(side, Pass.PREPARE)


def main_target(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check which state the main callback asks for.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    yield from _target(side, Pass.MAIN)


def legal(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that the uAPI allows every request.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    for arc in side.arcs:
        if arc.before is None:
            continue
        flags = criteria.flags_of(arc.device)
        if _path(arc.before, arc.requested, flags) is None:
            yield Violation(
                f"{printable(arc.device)}: {arc.before.name} to "
                f"{arc.requested.name} is not a legal transition",
                (arc.device,),
                arc.records,
            )


def reached(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that every device reached the state that was asked for.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    for arc in side.arcs:
        if arc.reached not in (None, arc.requested):
            assert arc.reached is not None
            yield Violation(
                f"{printable(arc.device)} was asked for "
                f"{arc.requested.name} and is in {arc.reached.name}",
                (arc.device,),
                arc.records,
            )
    for mark in side.marks_of(Kind.MESSAGE):
        if any(text in mark.text for text in FAILURE_MESSAGES):
            named = tuple(d for d in side.devices if d in mark.text)
            names = ", ".join(printable(d) for d in named) or "a device"
            yield Violation(f"QEMU says that {names} failed", named, (mark,))


def _step_records(step: Callback) -> tuple[Record, ...]:
    return (*(r for arc in step.arcs for r in arc.records), step.record)
