# SPDX-License-Identifier: GPL-2.0-or-later
"""A blackout taken apart, as values.

The phases are an ordered partition.  Each lasts from when all before it
were over to when it was over itself: it is what that phase cost *alone*.
What the destination did while the source was still busy cost nothing, and
its phase is short, or zero; `Interval` has its full length all the same.
So the sum of the phases is the blackout, to the nanosecond.

All times are nanoseconds since 1970 on the clock of the logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from vfio_p2p.timeline import Blackout, Side


class PhaseName(StrEnum):
    """What a blackout consists of, in this order.

    It begins with the source's first stop request and ends with the
    destination's last device RUNNING; the comments say how each phase ends.
    """

    P2P_ARCS = "p2p-arcs"           # the last prepare callback returned
    STOP_ARCS = "stop-arcs"         # the last main callback returned
    RAM = "ram-saved"               # the first device's turn in the stream
    DEVICE_SAVED = "device-data-saved"      # the last device's data is out
    NON_ITERABLE = "non-iterable-state"     # so is the rest of the VM
    DEVICE_LOADED = "device-data-loaded"    # the last device has its data
    STREAM_END = "stream-end"       # the stream's last section was loaded
    LOAD_DONE = "load-done"         # the load as a whole is over
    START = "start-request"         # the first request to start a device
    START_P2P_ARCS = "start-p2p-arcs"       # the last prepare callback
    START_ARCS = "start-arcs"       # the last device is RUNNING

    @property
    def side(self) -> Side:
        """Whose work it is."""
        order = tuple(PhaseName)
        if order.index(self) <= order.index(PhaseName.NON_ITERABLE):
            return Side.SOURCE
        return Side.DESTINATION


@dataclass(frozen=True, slots=True)
class BlackoutPhase:
    """One part of a blackout.

    :param name: Which.
    :param start_ns: When all before it were over.
    :param end_ns: When it was over.
    """

    name: PhaseName
    start_ns: int
    end_ns: int

    @property
    def side(self) -> Side:
        """Whose work it is."""
        return self.name.side

    @property
    def duration_ns(self) -> int:
        """What it cost, in nanoseconds."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True, slots=True)
class Interval:
    """What one device was busy with for a time.

    :param side: Which side's device.
    :param device: Its name.
    :param activity: A request, as ``BEFORE>REQUESTED`` in the uAPI's names,
        or ``save``, ``save-config``, ``load``, ``load-config``.
    :param phase: To which phase it belongs.  That is not always when it
        was: see the module's docstring.  None if nothing waited for it.
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
        """How long it took, in nanoseconds."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True, slots=True)
class CriticalLink:
    """A piece of the critical path: nothing else was waited for.

    :param phase: In which phase.
    :param interval: What a device did; None when QEMU itself was busy, or
        the log does not tell.
    :param start_ns: When it began.
    :param end_ns: When it was over.
    """

    phase: PhaseName
    interval: Interval | None
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class NotObservable:
    """What these logs cannot tell.

    :param what: A phase's name, or what else is missing.
    :param why: Why.
    :param within: The phase that has its time, if there is one.
    """

    what: str
    why: str
    within: PhaseName | None = None


@dataclass(frozen=True, slots=True)
class GuestGap:
    """How long the guest was gone; see `vfio_p2p.downtime.guest`.

    All times are nanoseconds since 1970, but for the durations.

    :param device: The destination's device that heard nothing the longest.
    :param period_ns: From one beat to the next, on average, on the source.
    :param start_ns: The last beat at the source.
    :param begin_ns: When QEMU began to stop the VM, or the last beat if that
        came later.
    :param stop_ns: When the vCPU was stopped: the run-state change.
    :param request_ns: When the blackout began.
    :param running_ns: When it was over.
    :param end_ns: The first beat at the destination.
    :param longest_ns: The longest time from one beat to the next, on any
        side: more than the gap if the guest stalled for longer elsewhere.
    """

    device: str
    period_ns: int
    start_ns: int
    begin_ns: int
    stop_ns: int
    request_ns: int
    running_ns: int
    end_ns: int
    longest_ns: int

    @property
    def duration_ns(self) -> int:
        """The gap, in nanoseconds."""
        return self.end_ns - self.start_ns

    @property
    def rest_ns(self) -> int:
        """From the last beat to where QEMU begins to stop the VM."""
        return self.begin_ns - self.start_ns

    @property
    def pause_ns(self) -> int:
        """From there to the run-state change."""
        return self.stop_ns - self.begin_ns

    @property
    def stop_request_ns(self) -> int:
        """From there to the blackout's begin."""
        return self.request_ns - self.stop_ns

    @property
    def after_ns(self) -> int:
        """From the blackout's end to the first beat."""
        return self.end_ns - self.running_ns

    @property
    def in_order(self) -> bool:
        """Whether all is in the order in which it has to be."""
        times = (
            self.start_ns, self.begin_ns, self.stop_ns, self.request_ns,
            self.running_ns, self.end_ns,
        )  # fmt: skip
        return list(times) == sorted(times)

    @property
    def explained(self) -> bool:
        """Whether less than two periods of it were the guest's own."""
        return self.rest_ns < 2 * self.period_ns


@dataclass(frozen=True, slots=True)
class Beside:
    """Other figures for the same migration; none of them is the blackout.

    :param qmp_downtime_ms: ``downtime`` of query-migrate, milliseconds.
    :param stop_to_resume_ns: From the source's QMP event STOP to the
        destination's RESUME.
    :param stop_request_ns: From the begin of the run-state change to the
        first request to a device: before the blackout.
    :param guest_gap: How long the guest was gone.
    """

    qmp_downtime_ms: int | None = None
    stop_to_resume_ns: int | None = None
    stop_request_ns: int | None = None
    guest_gap: GuestGap | None = None


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A blackout and what it consists of.

    :param blackout: The blackout; if it is unknown there are no phases.
    :param phases: All that can be told apart, in order, without a gap.
    :param intervals: What the devices did, in order of their begin.
    :param outside: What they did for this migration without a bearing on
        the blackout, e.g. the STOP that the series moves.
    :param critical_path: What was waited for, from begin to end.
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
                raise ValueError(f"{what}: not without a gap: {part}")
            at_ns = part.end_ns
        if at_ns != self.blackout.end_ns:
            raise ValueError(f"{what}: do not add up to the blackout")

    def phase(self, name: PhaseName) -> BlackoutPhase | None:
        """One phase; None when it cannot be told apart.

        :param name: Which.
        """
        return next((x for x in self.phases if x.name is name), None)
