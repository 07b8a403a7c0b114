# SPDX-License-Identifier: GPL-2.0-or-later
"""From the records of a log to a timeline.

QEMU handles one device at a time: the lines of a request come first, then
the line of the function that made the request.  A record that does not fit
this grammar is a gap: a line is missing or doubled, or is not QEMU's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from vfio_p2p.errors import TraceError
from vfio_p2p.side import Side
from vfio_p2p.timeline.events import build_events
from vfio_p2p.timeline.model import (
    Callback,
    Cause,
    Epoch,
    Gap,
    Pass,
    Timeline,
    TracedArc,
)
from vfio_p2p.trace import (
    EventReader,
    Kind,
    Record,
    Summary,
    TraceReader,
    is_events,
    printable,
)
from vfio_p2p.trace.formats import FORMATS
from vfio_p2p.uapi import DeviceState

# No run prints nearly as much; a log beyond it is an attack or a mistake.
_MOST_RECORDS = 150_000
# More than any QEMU has slots for.
_MOST_DEVICES = 256

_CAUSES = {
    Kind.PREPARE: Cause.PREPARE,
    Kind.MAIN: Cause.MAIN,
    Kind.COMPLETE: Cause.COMPLETE,
    Kind.SAVE_CLEANUP: Cause.CLEANUP,
}
# The states that only one function asks for.
_ASKED_BY = {
    DeviceState.PRE_COPY: Cause.SETUP,
    DeviceState.RESUMING: Cause.LOAD,
}
# Only the follow-up resuming-left-when-loaded asks for this while it loads.
_LOADED = (DeviceState.RESUMING, DeviceState.STOP)
# What the other functions ask for, if they ask at all; a callback's line names
# the state itself.  The series takes away the last one of COMPLETE.
_REQUESTS = {
    Kind.SAVE_SETUP: ([],),
    Kind.COMPLETE: (
        [DeviceState.STOP_COPY],
        [DeviceState.STOP_COPY, DeviceState.STOP],
    ),
    Kind.SAVE_CLEANUP: ([], [DeviceState.STOP]),
    Kind.LOAD_CLEANUP: ([],),
}
# Further events that tell how a downtime is made up.
_TELLING = frozenset(
    {
        "vfio_save_complete_precopy_start",
        "vfio_save_complete_precopy_thread_start",
        "vfio_save_device_config_state",
        "vfio_load_state",
        "vfio_load_state_device_data",
        "vfio_load_device_config_state",
        "vfio_load_device_config_state_end",
        "vfio_load_bufs_thread_start",
        "vfio_load_bufs_thread_end",
        "vmstate_downtime_save",
        "vmstate_downtime_load",
        "vmstate_downtime_checkpoint",
        "process_incoming_migration_co_end",
        "vfio_migration_init",
        "vfio_state_pending",
        "vfio_query_precopy_size",
        "migration_bitmap_sync_end",
        # Not of a downtime, but a witness of the other handlers.
        "virtio_set_status",
    }
)
# The most frequent events, which tell nothing here.
MUTE = {fmt.event for fmt in FORMATS if fmt.kind is Kind.OTHER} - _TELLING
# What a migration that fails is called, by its status and, before 9.0, by the
# notifier as well.
_FAILING = frozenset({"cancelling", "cancelled", "failing", "failed"})
# The notifier's MIG_EVENT_PRECOPY_FAILED is 2 from 9.0 on and 3 in 11.1, where
# 2 is MIG_EVENT_PRECOPY_DONE.
_FAILED_OR_DONE = 2
_FAILED = 3
# What it asks for then.  With a follow-up of this project, that depends on
# whether the VM runs.
_AFTER_FAILURE = (DeviceState.RUNNING, DeviceState.STOP)


def read_log(path: Path, side: Side) -> Timeline:
    """Read a log file into a timeline.

    :param path: The file: a trace, or a log of QMP events.
    :param side: The side whose log it is.
    :raise TraceError: When it cannot be read, or is no trace.
    """
    try:
        with path.open("rb") as stream:
            if is_events(stream.peek()):
                return build_events(EventReader(stream, str(path)), side)
            return build(TraceReader(stream, str(path)), side)
    except OSError as err:
        raise TraceError(
            f"{printable(str(path))}: {err.strerror}",
            "Give a trace log that can be read.",
        ) from err


def build(reader: TraceReader, side: Side) -> Timeline:
    """Make the timeline of a log.

    :param reader: The log's reader, not yet iterated.
    :param side: The side whose log it is.
    :raise TraceError: When the log is no trace, or larger than any run's.
    """
    return build_of(
        reader.without(MUTE), reader.name, lambda: reader.summary, side
    )


def build_of(
    records: Iterable[Record],
    name: str,
    summary: Callable[[], Summary],
    side: Side,
) -> Timeline:
    """Make the timeline of the records of one QEMU.

    :param records: The records, without those of `MUTE`.
    :param name: The name of their log.
    :param summary: Returns what that log is like as a whole; called when the
        records are over.
    :param side: The side whose log it is.
    :raise TraceError: When there are more records than any run has.
    """
    builder = _Builder()
    count = 0
    for record in records:
        if builder.ignores(record):
            continue
        count += 1
        if count > _MOST_RECORDS:
            raise TraceError(
                f"{printable(name)}: more than {_MOST_RECORDS} "
                f"lines about VFIO states and times",
                "Give the log of one run.",
            )
        builder.add(record)
        if len(builder.devices) > _MOST_DEVICES:
            # Each run-state change concerns each device.
            raise TraceError(
                f"{printable(name)}: more than {_MOST_DEVICES} devices",
                "Give the log of one QEMU, which cannot have so many.",
            )
    builder.finish()
    return Timeline(
        side=side,
        summary=summary(),
        plugged=tuple(builder.plugged),
        devices=tuple(builder.devices),
        epochs=tuple(builder.epochs),
        arcs=tuple(sorted(builder.arcs, key=lambda arc: arc.line)),
        marks=tuple(builder.marks),
        end={
            name: device.state
            for name, device in builder.devices.items()
            if device.state is not None
        },
        gaps=tuple(builder.gaps),
        others=tuple(builder.others),
        dropped=tuple(builder.dropped),
    )


@dataclass(slots=True)
class _Device:
    """What is known of a device so far.

    :param state: The state that QEMU has cached.
    :param attempt: A request whose outcome was not seen yet.
    :param pending: Finished requests that no function has claimed yet.
    :param failed: Whether the notifier told it that the migration failed.
    :param event: The name of the last event about it.
    :param realized: Whether QEMU has said that it can migrate.
    """

    state: DeviceState | None = None
    attempt: Record | None = None
    pending: list[TracedArc] = field(default_factory=list)
    failed: bool = False
    event: str = ""
    realized: bool = False


@dataclass(slots=True)
class _Builder:
    plugged: list[str] = field(default_factory=list)
    devices: dict[str, _Device] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    arcs: list[TracedArc] = field(default_factory=list)
    marks: list[Record] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    others: list[Record] = field(default_factory=list)
    dropped: list[Record] = field(default_factory=list)
    steps: list[Callback] = field(default_factory=list)
    notify: Record | None = None
    status: str = ""
    queried: bool = False

    def ignores(self, record: Record) -> bool:
        """Return whether a record is one of the many queries in precopy.

        Only those after the stop are part of a downtime, and only those that
        ask for an acknowledgement have to be waited for.  The first one shows
        that they are traced at all.
        """
        if record.event == "vfio_state_pending":
            return not (
                record.fields.get("final") or record.fields.get("ack")
            )
        if record.event != "vfio_query_precopy_size":
            return False
        first, self.queried = not self.queried, True
        stop = self.notify is not None and not self.notify.fields["running"]
        return not (first or stop)

    def add(self, record: Record) -> None:
        """Take the next record."""
        if record.kind is Kind.OTHER:
            self.others.append(record)
        elif record.kind is Kind.DROPPED:
            self.dropped.append(record)
        elif record.kind is Kind.NOTIFY:
            self._end_epoch()
            self._end_complete()
            # The notifier makes its request at once, or makes none.
            for device in self.devices.values():
                device.failed = False
            self.notify = record
        elif record.kind is Kind.UNKNOWN:
            self._gap("a trace line is damaged, or of a newer QEMU", record)
        elif not record.device:
            if record.kind is Kind.STATUS:
                self.status = str(record.fields["status"])
            self.marks.append(record)
        else:
            self._add_device(record)

    def finish(self) -> None:
        """End the log."""
        self._end_epoch()
        for name, device in self.devices.items():
            self._settle(name, device)
            self.arcs += device.pending
            device.pending = []

    def _add_device(self, record: Record) -> None:
        name = record.device
        device = self.devices.setdefault(name, _Device())
        match record.kind:
            case Kind.ATTEMPT:
                self._settle(name, device)
                device.attempt = record
                if self._state(record) == device.state:
                    self._settle(name, device)
            case Kind.CHANGED | Kind.SUCCEEDED:
                self._reached(name, device, record)
            case Kind.REALIZE:
                if device.realized:
                    self._gap("this is the log of more than one run", record)
                else:
                    device.realized = True
                    self.plugged.append(name)
                    # vfio_migration_init() sets it without printing a line.
                    device.state = DeviceState.RUNNING
                self.marks.append(record)
            case Kind.PREPARE | Kind.MAIN:
                self._step(record, self._claim(name, device, record))
            case Kind.NOTIFIER:
                device.failed = self._tells_failure(record)
                self.marks.append(record)
            case _:
                if record.event == device.event:
                    self._gap("the same line occurs twice", record)
                self._claim(name, device, record)
                self.marks.append(record)
        device.event = record.event

    def _tells_failure(self, record: Record) -> bool:
        """Return whether a notifier tells its device of a failure."""
        event = record.fields.get("type")
        if event is None:
            return record.fields["status"] in _FAILING
        if event == _FAILED_OR_DONE:
            # A log without any status may well be of a release before 11.1.
            return not self.status or self.status in _FAILING
        return event == _FAILED

    def _reached(self, name: str, device: _Device, record: Record) -> None:
        """Note a state that was reached, with or without an attempt."""
        state = self._state(record)
        if state is None:
            self._gap("the uAPI does not have this state", record)
            return
        requested = state
        if device.attempt is not None:
            asked = self._state(device.attempt)
            requested = state if asked is None else asked
        elif record.kind is Kind.CHANGED:
            self._gap("a state was reached that nothing asked for", record)
        arc = TracedArc(
            name, device.state, requested, state, device.attempt, record
        )
        device.attempt = None
        self._put(device, arc)

    def _settle(self, name: str, device: _Device) -> None:
        """Settle an attempt without outcome: moot, or its line is missing."""
        record = device.attempt
        if record is None:
            return
        device.attempt = None
        state = self._state(record)
        if state is None:
            self._gap("the uAPI does not have this state", record)
            return
        reached: DeviceState | None = state
        if device.state not in (None, state):
            self._gap("the outcome of this request is missing", record)
            reached = None
        self._put(
            device, TracedArc(name, device.state, state, reached, record, None)
        )

    def _put(self, device: _Device, arc: TracedArc) -> None:
        """File a finished request, under its cause if that is known."""
        device.state = arc.reached
        if arc.requested in _ASKED_BY:
            if arc.before is arc.requested:
                self._gap(
                    "the device was in this state already", arc.records[-1]
                )
            self.arcs.append(replace(arc, cause=_ASKED_BY[arc.requested]))
        elif (arc.before, arc.requested) == _LOADED:
            self.arcs.append(replace(arc, cause=Cause.LOADED))
        elif device.failed and arc.requested in _AFTER_FAILURE:
            device.failed = False
            self.arcs.append(replace(arc, cause=Cause.NOTIFIER))
        else:
            device.pending.append(arc)

    def _claim(
        self, name: str, device: _Device, record: Record
    ) -> tuple[TracedArc, ...]:
        """Return the requests of the function that printed `record`."""
        self._settle(name, device)
        device.failed = False
        cause = _CAUSES.get(record.kind)
        claimed = tuple(
            replace(arc, cause=cause, mark=record) for arc in device.pending
        )
        device.pending = []
        self.arcs += claimed
        wanted = _REQUESTS.get(record.kind)
        if wanted is None:
            return claimed
        if [arc.requested for arc in claimed] not in wanted:
            self._gap(
                "the function of this line made other requests than these",
                record,
            )
        return claimed

    def _step(self, record: Record, arcs: tuple[TracedArc, ...]) -> None:
        running = bool(record.fields["running"])
        reason = str(record.fields["reason"])
        state = self._state(record)
        if state is None:
            self._gap("the uAPI does not have this state", record)
            return
        if [arc.requested for arc in arcs] != [state]:
            self._gap(
                f"there is no single request for {state.name} before it",
                record,
            )
        if self.steps or self.notify:
            known = self.steps[-1].record if self.steps else self.notify
            assert known is not None
            now = (bool(known.fields["running"]), known.fields["reason"])
            if now != (running, reason):
                if not self.steps:
                    self._gap("vm_state_notify announced another one", record)
                self._end_epoch()
        pass_ = Pass.PREPARE if record.kind is Kind.PREPARE else Pass.MAIN
        self.steps.append(Callback(record.device, pass_, state, arcs, record))

    def _end_epoch(self) -> None:
        if self.steps:
            fields = self.steps[0].record.fields
            self.epochs.append(
                Epoch(
                    len(self.epochs) + 1,
                    bool(fields["running"]),
                    str(fields["reason"]),
                    tuple(self.steps),
                    self.notify,
                )
            )
        elif self.notify is not None and self.plugged:
            self._gap("a run-state change without any callback", self.notify)
        self.steps = []
        self.notify = None

    def _end_complete(self) -> None:
        """Settle what vfio_save_complete_precopy() hides when it fails."""
        for device in self.devices.values():
            if [a.requested for a in device.pending] == [
                DeviceState.STOP_COPY
            ]:
                self.arcs.append(
                    replace(device.pending.pop(), cause=Cause.COMPLETE)
                )

    def _gap(self, why: str, record: Record) -> None:
        self.gaps.append(Gap(why, (record,)))

    @staticmethod
    def _state(record: Record) -> DeviceState | None:
        name = str(record.fields["state"])
        return DeviceState.__members__.get(name)
