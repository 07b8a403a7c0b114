# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules about the states that devices are asked for, and reach."""

from __future__ import annotations

from collections.abc import Iterator

from vfio_p2p.oracle.model import Broken, Expectation, Outcome
from vfio_p2p.timeline import Epoch, Phase, Step, Timeline
from vfio_p2p.trace import Kind, Record, printable
from vfio_p2p.trace.formats import FAILURE_MESSAGES
from vfio_p2p.uapi import P2P_STATES, DeviceState, MigrationFlags, path

_S = DeviceState
# Only in these run states does a stop lead on to the device's data.
_SAVING_REASONS = {"finish-migrate", "paused"}


def p2p(side: Timeline, expect: Expectation) -> Iterator[Outcome]:
    """P2P states with the series, none without.

    :param side: The timeline.
    :param expect: What it is measured against.
    """
    asked = [arc for arc in side.arcs if arc.requested in P2P_STATES]
    if expect.p2p is False and asked:
        arc = asked[0]
        yield Broken(
            f"{printable(arc.device)} was asked for {arc.requested.name}",
            (arc.device,),
            arc.records,
        )
    capable = [
        d for d in side.devices if expect.flags_of(d) & MigrationFlags.P2P
    ]
    if expect.p2p and side.epochs and capable and not asked:
        names = ", ".join(printable(device) for device in capable)
        yield Broken(
            f"none of {names} was ever asked for a P2P state",
            tuple(capable),
            tuple(step.record for step in side.epochs[0].steps),
        )


def _targets(
    side: Timeline, phase: Phase
) -> Iterator[tuple[Epoch, Step, DeviceState]]:
    """Steps with the state that they should have asked for."""
    for epoch in side.epochs:
        for step in epoch.of(phase):
            if step.before is None:
                continue
            saving = step.before in (_S.PRE_COPY, _S.PRE_COPY_P2P)
            if phase is Phase.PREPARE:
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


def _target(side: Timeline, phase: Phase) -> Iterator[Outcome]:
    for epoch, step, target in _targets(side, phase):
        assert step.before is not None
        if step.requested is not target:
            yield Broken(
                f"{epoch}: {printable(step.device)}, in {step.before.name},"
                f" was asked for {step.requested.name}, not {target.name}",
                (step.device,),
                _step_records(step),
            )


def prepare_target(
    side: Timeline, expect: Expectation
) -> Iterator[Outcome]:
    """The prepare callback asks for the right state.

    :param side: The timeline.
    :param expect: What it is measured against.
    """
    yield from _target(side, Phase.PREPARE)


def main_target(side: Timeline, expect: Expectation) -> Iterator[Outcome]:
    """The main callback asks for the right state.

    :param side: The timeline.
    :param expect: What it is measured against.
    """
    yield from _target(side, Phase.MAIN)


def legal(side: Timeline, expect: Expectation) -> Iterator[Outcome]:
    """Every request is one that the uAPI allows.

    :param side: The timeline.
    :param expect: What it is measured against.
    """
    for arc in side.arcs:
        if arc.before is None:
            continue
        flags = expect.flags_of(arc.device)
        if path(arc.before, arc.requested, flags) is None:
            yield Broken(
                f"{printable(arc.device)}: {arc.before.name} to "
                f"{arc.requested.name} is no legal transition",
                (arc.device,),
                arc.records,
            )


def reached(side: Timeline, expect: Expectation) -> Iterator[Outcome]:
    """Every device came to where it was sent.

    :param side: The timeline.
    :param expect: What it is measured against.
    """
    for arc in side.arcs:
        if arc.reached not in (None, arc.requested):
            assert arc.reached is not None
            yield Broken(
                f"{printable(arc.device)} was asked for "
                f"{arc.requested.name} and is in {arc.reached.name}",
                (arc.device,),
                arc.records,
            )
    for mark in side.marks_of(Kind.MESSAGE):
        if any(text in mark.text for text in FAILURE_MESSAGES):
            named = tuple(d for d in side.devices if d in mark.text)
            names = ", ".join(printable(d) for d in named) or "a device"
            yield Broken(f"QEMU says that {names} failed", named, (mark,))


def _step_records(step: Step) -> tuple[Record, ...]:
    return (*(r for arc in step.arcs for r in arc.records), step.record)
