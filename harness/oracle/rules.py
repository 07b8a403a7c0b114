# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules: what the series promises, each as one pure check.

Every check gets the timeline of one side and yields what speaks against
its promise.  Whether there is enough to check at all is for `evidence`.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.oracle.model import Broken, Expectation, Outcome, Rule, Unclear
from harness.oracle.order import barrier, count, order
from harness.oracle.requests import named, once, recover, sequence
from harness.timeline import Arc, Cause, Epoch, Phase, Side, Step, Timeline
from harness.trace import Kind, Record, printable
from harness.trace.formats import FAILURE_MESSAGES
from harness.uapi import P2P_STATES, DeviceState, MigrationFlags, path

_S = DeviceState
_BOTH = (Side.SOURCE, Side.DESTINATION)
# Only in these run states does a stop lead on to the device's data.
_SAVING_REASONS = {"finish-migrate", "paused"}


def _p2p(side: Timeline, expect: Expectation) -> Iterator[Outcome]:
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


def _prepare_target(
    side: Timeline, expect: Expectation
) -> Iterator[Outcome]:
    yield from _target(side, Phase.PREPARE)


def _main_target(side: Timeline, expect: Expectation) -> Iterator[Outcome]:
    yield from _target(side, Phase.MAIN)


def _legal(side: Timeline, expect: Expectation) -> Iterator[Outcome]:
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


def _reached(side: Timeline, expect: Expectation) -> Iterator[Outcome]:
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


def _stop_late(side: Timeline, expect: Expectation) -> Iterator[Outcome]:
    """STOP_COPY to STOP in the right function, after the stream."""
    yield from _stopped_elsewhere(side)
    if expect.stop_in_cleanup is None:
        return
    right = Cause.CLEANUP if expect.stop_in_cleanup else Cause.COMPLETE
    for arc in side.arcs:
        if (arc.before, arc.requested) != (_S.STOP_COPY, _S.STOP):
            continue
        name = printable(arc.device)
        records = arc.records + ((arc.mark,) if arc.mark else ())
        if arc.cause is None:
            yield Unclear(
                f"no line tells who stopped {name}", arc.records
            )
        elif arc.cause is not right:
            yield Broken(
                f"{name} left STOP_COPY in {arc.cause.value}, "
                f"not in {right.value}",
                (arc.device,),
                records,
            )
        elif right is Cause.CLEANUP:
            late = _stream_after(side, arc)
            if late is not None:
                both = dict.fromkeys((arc.device, late.device))
                yield Broken(
                    f"{name} left STOP_COPY before the stream was complete",
                    tuple(device for device in both if device),
                    (*records, late),
                )


def _stopped_elsewhere(side: Timeline) -> Iterator[Outcome]:
    """The cleanup follows failed migrations too, where the VM runs on."""
    for arc in side.arcs:
        if (
            arc.cause is Cause.CLEANUP
            and arc.before not in (None, _S.STOP_COPY, _S.STOP)
            and not side.has_gap(arc.device)
        ):
            assert arc.before is not None
            yield Broken(
                f"{printable(arc.device)}, in {arc.before.name}, was asked "
                f"for {arc.requested.name} in {Cause.CLEANUP.value}",
                (arc.device,),
                arc.records,
            )


def _stream_after(side: Timeline, arc: Arc) -> Record | None:
    """The first sign that the stream went on after an arc."""
    told = [m for m in side.marks_of(Kind.STATUS) if m.line < arc.line]
    # A snapshot is never active, and completed after the cleanup.
    snapshot = bool(told) and told[-1].fields.get("status") == "setup"
    for mark in side.marks:
        if mark.line < arc.line:
            continue
        status = mark.fields.get("status")
        if mark.kind is Kind.SAVE_SETUP:
            return None
        if mark.kind is Kind.COMPLETE or (
            mark.kind is Kind.STATUS
            and status == "completed"
            and not snapshot
        ):
            return mark
    return None


def _destination(side: Timeline, expect: Expectation) -> Iterator[Outcome]:
    """RESUMING, RUNNING_P2P, RUNNING; then whatever comes later: a stop,
    or the way back.
    """
    if expect.p2p is None:
        return
    for device in side.devices:
        arcs = [arc for arc in side.arcs_of(device) if arc.moved]
        begin = next(
            (i for i, a in enumerate(arcs) if a.reached is _S.RESUMING), None
        )
        if begin is None or side.has_gap(device):
            continue
        stops = {
            arc.line
            for epoch in side.epochs
            if not epoch.running
            for step in epoch.steps
            for arc in step.arcs
        }
        walked = []
        for arc in arcs[begin:]:
            if arc.line in stops or arc.cause is Cause.SETUP:
                break
            walked.append(arc)
        p2p = expect.p2p and expect.flags_of(device) & MigrationFlags.P2P
        wanted = [_S.RESUMING, _S.RUNNING_P2P, _S.RUNNING]
        if not p2p:
            wanted.remove(_S.RUNNING_P2P)
        states = [arc.reached for arc in walked if arc.reached is not None]
        if states == wanted:
            continue
        names = ", ".join(state.name for state in states)
        if states == wanted[: len(states)] and not stops:
            # So far, so good; `_left` says what is wrong with the end.
            continue
        yield Broken(
            f"{printable(device)} went {names}; "
            f"{', '.join(state.name for state in wanted)} is due",
            (device,),
            tuple(record for arc in walked for record in arc.records[-1:]),
        )


def _left(side: Timeline, expect: Expectation) -> Iterator[Outcome]:
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
            yield Broken(f"{name} is left in {state.name}", (device,), records)
        elif state not in (_S.STOP, _S.RUNNING):
            # A VM that never starts, or was killed, is not the series' fault.
            yield Unclear(f"the log ends with {name} in {state.name}", records)


def _passed_by(side: Timeline, device: str, after: int) -> bool:
    """Whether what should have moved the device came and went."""
    cleanups = side.marks_of(Kind.SAVE_CLEANUP, device=device)
    ends = [mark.line for mark in cleanups]
    ends += [e.steps[-1].record.line for e in side.epochs if e.running]
    return max(ends, default=0) > after


def _step_records(step: Step) -> tuple[Record, ...]:
    return (*(r for arc in step.arcs for r in arc.records), step.record)


RULES: tuple[Rule, ...] = (
    Rule(
        "p2p",
        "With the series every P2P device passes a P2P state when the VM "
        "starts or stops; without it none does.",
        "patch 5, vfio_vmstate_change_prepare()",
        _BOTH,
        _p2p,
    ),
    Rule(
        "count",
        "A device that is left out of a pass sends to, or is sent to by, "
        "devices that are stopped.",
        "patch 2, vm_state_notify(): each callback once per change",
        _BOTH,
        count,
    ),
    Rule(
        "barrier",
        "A device that still sends to one that is already stopped loses "
        "its transaction.",
        "patch 2, vm_state_notify(): every prepare before every main",
        _BOTH,
        barrier,
    ),
    Rule(
        "order",
        "What a device depends on has to start before it and to stop "
        "after it.",
        "patch 2, vm_state_notify(): both passes are reversed on stop",
        _BOTH,
        order,
    ),
    Rule(
        "prepare-target",
        "PRE_COPY must go on to PRE_COPY_P2P: any other state would end "
        "the device's data stream.",
        "patch 5, vfio_vmstate_change_prepare()",
        _BOTH,
        _prepare_target,
    ),
    Rule(
        "main-target",
        "Only STOP_COPY after precopy, STOP otherwise and RUNNING at a "
        "start keep device and VM in the same state.",
        "hw/vfio/migration.c, vfio_vmstate_change()",
        _BOTH,
        _main_target,
    ),
    Rule(
        "arcs",
        "A request that the uAPI forbids fails, or hangs an unfixed kernel.",
        "<linux/vfio.h>, enum vfio_device_mig_state",
        _BOTH,
        _legal,
    ),
    Rule(
        "reached",
        "A device that is not where it was sent breaks the barrier for all "
        "others.",
        "hw/vfio/migration.c, vfio_migration_set_state()",
        _BOTH,
        _reached,
    ),
    Rule(
        "once",
        "The second of two equal requests in a row was meant for another "
        "state, or is one too many.",
        "hw/vfio/migration.c: one request for each change of state",
        _BOTH,
        once,
    ),
    Rule(
        "sequence",
        "Each path of a migration has one sequence of states; any other is "
        "a request too many, too few, or elsewhere.",
        "docs/devel/migration/vfio.rst; the scenario, by version",
        _BOTH,
        sequence,
    ),
    Rule(
        "recover",
        "A device that fails half way may be in any state: without a reset, "
        "or the right way back, it does not do what the VM does.",
        "hw/vfio/migration.c, recover states of vfio_migration_set_state()",
        _BOTH,
        recover,
    ),
    Rule(
        "named",
        "Whoever reads a trace or an error message has nothing else to "
        "tell states by.",
        "patch 5, mig_state_to_str()",
        _BOTH,
        named,
    ),
    Rule(
        "stop-copy",
        "Leaving STOP_COPY takes time, which must not be part of the "
        "downtime, and ends the stream, which must be complete.",
        "patch 1, vfio_save_cleanup()",
        (Side.SOURCE,),
        _stop_late,
    ),
    Rule(
        "destination",
        "A device that runs before all are in RUNNING_P2P may send to one "
        "that is still loading.",
        "patch 5; docs/devel/vfio-migration.rst, resume flow",
        (Side.DESTINATION,),
        _destination,
    ),
    Rule(
        "left",
        "A device left in such a state does no work and cannot be migrated "
        "again.",
        "docs/devel/vfio-migration.rst, save and resume flows",
        _BOTH,
        _left,
    ),
)
