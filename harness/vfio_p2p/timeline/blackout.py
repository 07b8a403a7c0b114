# SPDX-License-Identifier: GPL-2.0-or-later
"""The blackout: from the first stop request to the last device running.

It is measured at the devices, where it is felt.  The `downtime` that QMP
reports is another quantity.

From 11.1 on, QEMU can ask a device for the size of its precopy data before
the request.  The VM's vCPUs are stopped by then, so such a query is part of
the blackout, although it leaves the device's state alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from vfio_p2p.timeline.causality import contradiction
from vfio_p2p.timeline.model import Epoch, Timeline
from vfio_p2p.trace import Clock, Kind, Record
from vfio_p2p.uapi import DeviceState

PRECOPY_QUERY = "vfio_query_precopy_size"

_ONE_HOST = "right only if both QEMUs ran on one host, whose clock this is"


@dataclass(frozen=True, slots=True)
class Blackout:
    """How long no device ran, as far as the logs tell.

    :param duration_ns: Its length in nanoseconds; None if the logs do not
        tell.
    :param exact: Whether both of its ends are as they are defined.
    :param note: Why it is missing or inexact, or what it relies on; else
        empty.
    :param start_ns: Its start, on the clock of both logs; None without a
        duration.
    :param bound_ns: How far its length may be off, in nanoseconds, because
        it began and ended on two hosts whose clocks were compared; None if
        there is one clock.
    """

    duration_ns: int | None
    exact: bool
    note: str
    start_ns: int | None = None
    bound_ns: int | None = None

    @property
    def end_ns(self) -> int | None:
        """Its end, on the clock of both logs; None without a duration."""
        if self.duration_ns is None or self.start_ns is None:
            return None
        return self.start_ns + self.duration_ns


def blackout(source: Timeline, destination: Timeline) -> Blackout:
    """Measure the blackout of a migration.

    Both logs need the same clock: that of one host, or of two hosts whose
    clocks agree.  With the `simple` backend it must be one host.

    :param source: The timeline of the side that stopped.
    :param destination: The timeline of the side that continued.
    """
    for side in (source, destination):
        if not side.devices:
            return _unknown(
                f"the {side.side}'s log has no line about a VFIO device; "
                "trace with --trace 'vfio_*' --trace vm_state_notify"
            )
    epoch = final_stop(source)
    if epoch is None:
        return _unknown("the source shows no stop before its stream's end")
    last = last_running(destination)
    if last is None:
        return _unknown("the destination's devices were not seen to run")
    attempts = [
        arc.attempt
        for step in epoch.steps
        for arc in step.arcs
        if arc.attempt is not None
    ]
    first = min(attempts, key=lambda r: r.line, default=None)
    note = inexact = ""
    if not source.summary.backend.requests:
        # The first device may have no event before its request.
        first = epoch.steps[0].arcs[0].records[0]
        if first.kind is not Kind.ATTEMPT:
            inexact = (
                "QMP tells when a device has come to a state, not when it was "
                "asked to; counted from the first such event of the stop"
            )
    elif first is not None:
        first, note, inexact = _queried(source, epoch, first)
    else:
        first = epoch.notify or min(
            (r for s in epoch.steps for a in s.arcs for r in a.records),
            key=lambda r: r.line,
            default=epoch.steps[0].record,
        )
        inexact = (
            "up to QEMU 9.0 no line is printed before a request; counted "
            f"from {first.event}"
        )
    clock = source.summary.clock
    if clock is not destination.summary.clock:
        return _unknown(
            "the times of the two logs are of different kinds of clocks, or "
            "of two trace backends"
        )
    if first.time_ns is None or last.time_ns is None:
        if source.summary.coarse or destination.summary.coarse:
            return _unknown(
                "the logs' only times are in whole seconds; run QEMU with "
                "-msg timestamp=on"
            )
        return _unknown(
            "the logs have no times; run QEMU with -msg timestamp=on"
        )
    if why := contradiction(source, destination):
        return _unknown(why)
    duration_ns = last.time_ns - first.time_ns
    if duration_ns < 0:
        return _unknown("the clocks of the two logs disagree")
    bound_ns = source.bound_ns + destination.bound_ns
    one_host = _ONE_HOST if clock is Clock.MONOTONIC else ""
    note = "; ".join(filter(None, (note, inexact, one_host)))
    return Blackout(
        duration_ns, not inexact, note, first.time_ns, bound_ns or None
    )


def precopy_queries(
    source: Timeline, epoch: Epoch
) -> tuple[Record, ...]:
    """Return the lines about the precopy data that a stop asked for.

    Each is printed when the device has answered.

    :param source: The timeline of the side that stopped.
    :param epoch: The stop.
    """
    if epoch.notify is None:
        return ()
    return tuple(
        record
        for record in source.others
        if record.event == PRECOPY_QUERY
        and epoch.notify.line < record.line < epoch.steps[-1].record.line
    )


def _queried(
    source: Timeline, epoch: Epoch, request: Record
) -> tuple[Record, str, str]:
    """Return where a blackout begins, given its first request.

    :return: The line; what there is to say; and why it is inexact, if it is.
    """
    asked = [
        r for r in precopy_queries(source, epoch) if r.line < request.line
    ]
    if epoch.notify is not None and asked:
        note = "the VM had stopped before its first device was asked for the "
        note += f"size of its precopy data; counted from {epoch.notify.event}"
        return epoch.notify, note, ""
    able = any(
        record.event == "vfio_migration_init" and record.fields["v2"]
        for record in source.others
    )
    traced = any(r.event == PRECOPY_QUERY for r in source.others)
    if not able or (traced and epoch.notify is not None):
        return request, "", ""
    why = "a device can be asked for the size of its precopy data before the "
    why += "first request, and "
    if epoch.notify is None:
        return request, "", f"{why}vm_state_notify was not traced"
    why += f"{PRECOPY_QUERY} was not traced; "
    return epoch.notify, "", f"{why}counted from {epoch.notify.event}"


def final_stop(source: Timeline) -> Epoch | None:
    """Return the last stop before the devices' part of the stream.

    :param source: The timeline of the side that stopped.
    """
    written = source.marks_of(Kind.COMPLETE)
    if not source.summary.backend.requests:
        # Without such lines, the end of the migration must do.
        ends = [x.end for x in source.migrations if x.completed]
        written = tuple(end for end in ends if end is not None)[-1:]
    if not written:
        return None
    return next(
        (
            epoch
            for epoch in reversed(source.epochs)
            if not epoch.running
            and epoch.steps[-1].record.line < written[0].line
        ),
        None,
    )


def last_running(destination: Timeline) -> Record | None:
    """Return the line that shows the last device running.

    :param destination: The timeline of the side that continued.
    """
    found: list[Record] = []
    for device in destination.devices:
        resumed = False
        for arc in destination.arcs_of(device):
            resumed = resumed or arc.reached is DeviceState.RESUMING
            if resumed and arc.reached is DeviceState.RUNNING:
                found += arc.records[-1:]
                break
        else:
            return None
    return max(found, key=lambda record: record.line, default=None)


def _unknown(note: str) -> Blackout:
    return Blackout(None, False, note)
