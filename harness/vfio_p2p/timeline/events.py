# SPDX-License-Identifier: GPL-2.0-or-later
"""From QMP events to a timeline.

An event tells that a device *has come* to a state.  What it was asked for,
when, and by which function of QEMU is not in the events, and follows from
the VM's run state, the migration's status and the device's state before:

* RESUME is sent before the devices are started, and STOP after they were
  stopped (system/cpus.c, vm_prepare_start() and do_vm_stop()).
* A stop at QEMU's end has no STOP.
* The states of a migration come in the order of its statuses.

A request that failed, or that was for the state that the device had, leaves
no event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from vfio_p2p.errors import TraceError
from vfio_p2p.side import Side
from vfio_p2p.timeline.model import (
    Callback,
    Cause,
    Epoch,
    Gap,
    Pass,
    Timeline,
    TracedArc,
)
from vfio_p2p.trace import EventReader, Kind, Record, printable
from vfio_p2p.uapi import P2P_STATES, DeviceState

_S = DeviceState
_MOST_EVENTS = 150_000

_FAILING = frozenset({"cancelling", "cancelled", "failing", "failed"})
_OVER = frozenset({"completed", "cancelled", "failed"})
_STOPPED = frozenset({_S.STOP, _S.STOP_COPY, _S.RESUMING})
# What a request is for, by the state that the device came to.
_ASKED_BY = {_S.PRE_COPY: Cause.SETUP, _S.RESUMING: Cause.LOAD}


def build_events(reader: EventReader, side: Side) -> Timeline:
    """Make the timeline of a log of QMP events.

    :param reader: The log's reader, not yet iterated.
    :param side: The side whose log it is.
    :raise TraceError: When the log is larger than any run's.
    """
    records = list(islice(reader, _MOST_EVENTS + 1))
    if len(records) > _MOST_EVENTS:
        raise TraceError(
            f"{printable(reader.name)}: more than {_MOST_EVENTS} events",
            "Give the log of one run.",
        )
    builder = _Builder(_first_followers(records))
    for record in records:
        builder.add(record)
    builder.finish()
    return Timeline(
        side=side,
        summary=reader.summary,
        plugged=(),
        devices=tuple(builder.states),
        epochs=tuple(builder.epochs),
        arcs=tuple(builder.arcs),
        marks=tuple(builder.marks),
        end={
            name: state
            for name, state in builder.states.items()
            if state is not None
        },
        gaps=tuple(builder.gaps),
        others=tuple(builder.others),
    )


def _first_followers(records: Sequence[Record]) -> dict[str, DeviceState]:
    """Return the second state of each device, that is not its first one."""
    first: dict[str, str] = {}
    found: dict[str, DeviceState] = {}
    for record in records:
        if record.kind is Kind.CHANGED and record.device not in found:
            name = str(record.fields["state"])
            if name != first.setdefault(record.device, name):
                found[record.device] = DeviceState[name]
    return found


@dataclass(slots=True)
class _Open:
    """A run-state change that may go on.

    :param running: Whether the VM is started.
    :param reason: The name of the new run state, as far as events tell.
    :param notify: The event at its begin, if it has one.
    :param steps: What was done so far.
    """

    running: bool
    reason: str
    notify: Record | None = None
    steps: list[Callback] = field(default_factory=list)

    def passes(self, device: str) -> set[Pass]:
        """Return the passes that a device was part of."""
        return {step.pass_ for step in self.steps if step.device == device}


@dataclass(slots=True)
class _Builder:
    second: Mapping[str, DeviceState]
    states: dict[str, DeviceState | None] = field(default_factory=dict)
    attempts: dict[str, Record] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    arcs: list[TracedArc] = field(default_factory=list)
    marks: list[Record] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    others: list[Record] = field(default_factory=list)
    open: _Open | None = None
    status: str = ""
    why: str = ""
    notified: bool = False

    def add(self, record: Record) -> None:
        """Take the next event."""
        match record.kind:
            case Kind.NOTIFY:
                self._end_epoch()
                self.why = ""
                self.notified = True
                if record.fields["running"]:
                    self.open = _Open(True, "running", record)
            case Kind.STATUS:
                self.status = str(record.fields["status"])
                self.marks.append(record)
            case Kind.OTHER:
                self.why = str(record.fields["reason"])
                self.others.append(record)
            case Kind.ATTEMPT:
                self.states.setdefault(record.device, None)
                self.attempts[record.device] = record
            case Kind.CHANGED:
                self._changed(record)
            case _:
                self._gap("an event is damaged, or of a newer QEMU", record)

    def finish(self) -> None:
        """End the log."""
        self._end_epoch()
        statuses = {str(x.fields["status"]) for x in self.marks}
        if not self.notified and "completed" in statuses:
            self._never_ran()

    def _never_ran(self) -> None:
        """Take back the stops of a VM that was migrated and never ran.

        QEMU sends STOP for each stop of a VM that ran, after its devices were
        asked.  Where it never did, a device without prepare was asked by the
        function that reads its data.
        """
        taken = [
            epoch
            for epoch in self.epochs
            if not epoch.running
            and all(step.pass_ is Pass.MAIN for step in epoch.steps)
        ]
        arcs = {
            id(arc) for x in taken for step in x.steps for arc in step.arcs
        }
        self.arcs = [
            replace(arc, cause=Cause.COMPLETE) if id(arc) in arcs else arc
            for arc in self.arcs
        ]
        left = [x for x in self.epochs if x not in taken]
        self.epochs = [
            replace(x, number=number) for number, x in enumerate(left, 1)
        ]

    def _changed(self, record: Record) -> None:
        device = record.device
        state = DeviceState[str(record.fields["state"])]
        before = self.states.get(device)
        attempt = self.attempts.pop(device, None)
        if attempt is not None and state is not _S.PRE_COPY_P2P:
            attempt = None
        self.states[device] = state
        if state is before:
            self._gap(
                "a device came twice in a row to one state: two devices have "
                "this name, an event is doubled, or a request failed",
                record,
            )
            return
        arc = TracedArc(device, before, state, state, attempt, record)
        pass_ = self._pass(arc)
        if pass_ is None:
            self._end_epoch()
            cause = self._cause(arc)
            if cause is None and state is _S.RUNNING and before is not None:
                self._gap("no event tells why this device runs", record)
        else:
            cause = Cause.PREPARE if pass_ is Pass.PREPARE else Cause.MAIN
        arc = TracedArc(
            device, before, state, state, attempt, record, cause, record
        )
        self.arcs.append(arc)
        if pass_ is not None:
            assert self.open is not None
            self.open.steps.append(
                Callback(device, pass_, state, (arc,), record)
            )

    def _pass(self, arc: TracedArc) -> Pass | None:
        """Open the run-state change that an arc is a part of, if any."""
        before, state = arc.before, arc.requested
        now = self.open
        done = now.passes(arc.device) if now is not None else set()
        if state in P2P_STATES:
            if now is None or done:
                # The next one has begun, without any event of its own.
                starts = before in _STOPPED
                if before is None:
                    # A log that begins here may lack the RESUME before it.
                    starts = self.second.get(arc.device) is _S.RUNNING
                self._begin(starts)
            return Pass.PREPARE
        if state is _S.RUNNING:
            if now is not None and now.running and Pass.MAIN not in done:
                return Pass.MAIN
            if now is None and before is _S.RUNNING_P2P:
                self._begin(True)
                return Pass.MAIN
            return None
        if state not in (_S.STOP, _S.STOP_COPY) or before in _STOPPED:
            return None
        if now is None or now.running or Pass.MAIN in done:
            self._begin(False)
        return Pass.MAIN

    def _begin(self, running: bool) -> None:
        self._end_epoch()
        reason = "running"
        if not running:
            saving = self.status and self.status not in _OVER | _FAILING
            reason = self.why or ("finish-migrate" if saving else "paused")
        self.open = _Open(running, reason)

    def _cause(self, arc: TracedArc) -> Cause | None:
        """Return which function made a request outside of a change."""
        before, state = arc.before, arc.requested
        if state in _ASKED_BY:
            return _ASKED_BY[state]
        failing = self.status in _FAILING
        if state is _S.RUNNING and failing:
            return Cause.NOTIFIER
        if state is _S.RUNNING and self.status == "completed":
            # A device that cannot leave STOP_COPY is reset.
            return Cause.CLEANUP if before is _S.STOP_COPY else None
        if state is _S.STOP_COPY and before is _S.STOP:
            return Cause.COMPLETE
        if state is not _S.STOP:
            return None
        if before is _S.RESUMING:
            return Cause.LOADED
        if before is not _S.STOP_COPY or not self.status:
            return None
        # The cleanup comes after the last status; from 11.0 on, it comes
        # before that of a failure.
        over = failing or self.status in _OVER
        return Cause.CLEANUP if over else Cause.COMPLETE

    def _end_epoch(self) -> None:
        now, self.open = self.open, None
        if now is not None and now.steps:
            self.epochs.append(
                Epoch(
                    len(self.epochs) + 1,
                    now.running,
                    now.reason,
                    tuple(now.steps),
                    now.notify,
                )
            )

    def _gap(self, why: str, record: Record) -> None:
        self.gaps.append(Gap(why, (record,)))
