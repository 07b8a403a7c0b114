# SPDX-License-Identifier: GPL-2.0-or-later
"""A blackout taken apart, as values.

The phases are an ordered partition.  Each lasts from the end of all earlier
phases to its own end: it is what this phase *alone* cost.  Whatever the
destination did while the source was still busy cost nothing, and its phase is
short, or empty; an `Interval` has the full length nevertheless.  So the sum of
the phases is the blackout, to the nanosecond.

All times are nanoseconds since 1970 on the clock of the logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from vfio_p2p.timeline import Blackout, Side


class PhaseName(StrEnum):
    """The phases of a blackout, in their order.

    A blackout begins with the source's first stop request and ends with the
    destination's last device RUNNING.  The comments say what ends each phase.
    Before QEMU 11.1 there is no final query.  `VM_STOPPED` is a part of the
    next phase if no line shows where it ends, as in most logs of a QEMU before
    10.0.
    """

    P2P_ARCS = "p2p-arcs"           # the last prepare callback returned
    STOP_ARCS = "stop-arcs"         # the last main callback returned
    VM_STOPPED = "vm-stopped"       # the migration has the status "device"
    DIRTY_SYNC = "dirty-sync"       # QEMU knows the last dirty pages
    FINAL_QUERY = "final-query"     # the last device said what it has left
    RAM = "ram-saved"               # the first device's turn in the stream
    DEVICE_SAVED = "device-data-saved"      # the last device's data is out
    NON_ITERABLE = "non-iterable-state"     # the rest of the VM is out, too
    DEVICE_LOADED = "device-data-loaded"    # the last device has its data
    STREAM_END = "stream-end"       # the stream's last section was loaded
    LOAD_DONE = "load-done"         # the load as a whole is over
    START = "start-request"         # the first request to start a device
    START_P2P_ARCS = "start-p2p-arcs"       # the last prepare callback
    START_ARCS = "start-arcs"       # the last device is RUNNING

    @property
    def side(self) -> Side:
        """The side that is at work in this phase."""
        order = tuple(PhaseName)
        if order.index(self) <= order.index(PhaseName.NON_ITERABLE):
            return Side.SOURCE
        return Side.DESTINATION


# Not all runs have these phases.
OPTIONAL_PHASES = frozenset({PhaseName.VM_STOPPED, PhaseName.FINAL_QUERY})


@dataclass(frozen=True, slots=True)
class BlackoutPhase:
    """One phase of a blackout.

    :param name: Its name.
    :param start_ns: When all earlier phases were over.
    :param end_ns: When it was over.
    """

    name: PhaseName
    start_ns: int
    end_ns: int

    @property
    def side(self) -> Side:
        """The side that is at work in it."""
        return self.name.side

    @property
    def duration_ns(self) -> int:
        """Its cost in nanoseconds."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True, slots=True)
class Interval:
    """What one device was busy with for a time.

    :param side: The side of the device.
    :param device: Its name.
    :param activity: A request, as ``BEFORE>REQUESTED`` in the uAPI's names,
        or ``precopy-query``, ``save``, ``save-config``, ``load``,
        ``load-config``.
    :param phase: The phase that it belongs to, which need not be the one
        that it lies in; see the module's docstring.  None if nothing waited
        for it.
    :param start_ns: When it began.
    :param end_ns: When it was over.
    """

    side: Side
    device: str
    activity: str
    phase: PhaseName | None
    start_ns: int
    end_ns: int

    @property
    def duration_ns(self) -> int:
        """Its duration in nanoseconds."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True, slots=True)
class CriticalLink:
    """A piece of the critical path, during which only one thing was awaited.

    :param phase: The phase that it lies in.
    :param interval: The device's work that was awaited; None if QEMU itself
        was busy, or the log does not tell.
    :param start_ns: When it began.
    :param end_ns: When it was over.
    """

    phase: PhaseName
    interval: Interval | None
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class NotObservable:
    """Something that these logs cannot tell.

    :param what: The name of a phase, or whatever else is missing.
    :param why: The reason.
    :param within: The phase that contains its time, if there is one.
    """

    what: str
    why: str
    within: PhaseName | None = None


# What stands for a device where the guest's console took the beats.
CONSOLE = "console"


@dataclass(frozen=True, slots=True)
class GuestGap:
    """How long the guest was gone; see `vfio_p2p.downtime.guest`.

    All times are nanoseconds since 1970, and all durations nanoseconds.

    :param device: The destination's device that heard nothing the longest, or
        `CONSOLE`.
    :param period_ns: The mean time between two beats at the source.
    :param start_ns: The last beat at the source.
    :param begin_ns: When QEMU began to stop the VM, or the last beat if that
        came later.
    :param stop_ns: The run-state change, with which the vCPU was stopped.
    :param request_ns: The start of the blackout.
    :param running_ns: The end of the blackout.
    :param end_ns: The first beat at the destination.
    :param slowest_beat_ns: The longest time from one beat to the next at the
        source.
    :param longest_ns: The longest time between two beats on any side.  It
        exceeds the gap if the guest stalled for longer elsewhere.
    :param bound_ns: How far the length may be off, since it began and ended
        on two hosts whose clocks were compared; None if there is one clock.
    """

    device: str
    period_ns: int
    start_ns: int
    begin_ns: int
    stop_ns: int
    request_ns: int
    running_ns: int
    end_ns: int
    slowest_beat_ns: int
    longest_ns: int
    bound_ns: int | None = None

    @property
    def duration_ns(self) -> int:
        """The length of the gap in nanoseconds."""
        return self.end_ns - self.start_ns

    @property
    def rest_ns(self) -> int:
        """From the last beat until QEMU begins to stop the VM."""
        return self.begin_ns - self.start_ns

    @property
    def pause_ns(self) -> int:
        """From there to the run-state change."""
        return self.stop_ns - self.begin_ns

    @property
    def stop_request_ns(self) -> int:
        """From the run-state change to the start of the blackout."""
        return self.request_ns - self.stop_ns

    @property
    def after_ns(self) -> int:
        """From the end of the blackout to the first beat."""
        return self.end_ns - self.running_ns

    @property
    def in_order(self) -> bool:
        """Whether its times are in the only possible order."""
        times = (
            self.start_ns, self.begin_ns, self.stop_ns, self.request_ns,
            self.running_ns, self.end_ns,
        )  # fmt: skip
        return list(times) == sorted(times)

    @property
    def explained(self) -> bool:
        """Whether the guest's own part is as short as it has to be.

        It is less than two periods, or than what the guest took before for
        its slowest beat, e.g. while it dirtied memory.
        """
        return self.rest_ns < max(2 * self.period_ns, self.slowest_beat_ns)


@dataclass(frozen=True, slots=True)
class Beside:
    """Other figures of the same migration; none of them is the blackout.

    :param qmp_downtime_ms: ``downtime`` of query-migrate, in milliseconds.
    :param expected_downtime_ms: What QEMU expected it to be, when it was
        last asked before the VM stopped, in milliseconds.
    :param stop_to_resume_ns: From the source's QMP event STOP to the
        destination's RESUME, in nanoseconds.
    :param stop_request_ns: From the start of the run-state change to the
        first request to a device, in nanoseconds.  It precedes the blackout.
    :param guest_gap: How long the guest was gone.
    """

    qmp_downtime_ms: int | None = None
    expected_downtime_ms: int | None = None
    stop_to_resume_ns: int | None = None
    stop_request_ns: int | None = None
    guest_gap: GuestGap | None = None


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A blackout and its parts.

    :param blackout: The blackout; if it is unknown there are no phases.
    :param phases: All phases that can be told apart, in order and without a
        gap.
    :param intervals: What the devices did, in the order of its starts.
    :param outside: What they did for this migration without prolonging the
        blackout, e.g. the STOP that the series moves.
    :param critical_path: What was waited for, from start to end.
    :param not_observable: What the logs cannot tell.
    :param beside: Other figures.
    """

    blackout: Blackout
    phases: tuple[BlackoutPhase, ...] = ()
    intervals: tuple[Interval, ...] = ()
    outside: tuple[Interval, ...] = ()
    critical_path: tuple[CriticalLink, ...] = ()
    not_observable: tuple[NotObservable, ...] = ()
    beside: Beside = Beside()

    def __post_init__(self) -> None:
        if self.blackout.duration_ns is not None or self.phases:
            self._check("phases", self.phases)
        if self.critical_path:
            self._check("critical path", self.critical_path)

    def _check(
        self, what: str, parts: Sequence[BlackoutPhase | CriticalLink]
    ) -> None:
        at_ns = self.blackout.start_ns
        for part in parts:
            if part.start_ns != at_ns or part.end_ns < part.start_ns:
                raise ValueError(f"{what}: there is a gap before {part}")
            at_ns = part.end_ns
        if at_ns != self.blackout.end_ns:
            raise ValueError(f"{what}: they do not add up to the blackout")

    def phase(self, name: PhaseName) -> BlackoutPhase | None:
        """Return one phase, or None if it cannot be told apart.

        :param name: Its name.
        """
        return next((x for x in self.phases if x.name is name), None)
