# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the guest was gone, as those that it writes to saw it.

A guest that runs images/guest keeps writing a counter to each device.  The
time from the last beat that reached the source's device to the first beat at
the destination's is what the guest noticed of a migration.  It consists of::

    rest       from the last beat until QEMU begins to stop the VM: the rest
               of a period
    pause      from there to the run-state change, when the vCPU is stopped
    request    from there to the first request to a device
    blackout   as it is defined
    after      from the last device RUNNING to the first beat: QEMU resumes
               the vCPU, which reaches its next beat

QEMU's clock runs while the destination starts its devices.  So the next beat
is due as soon as they run, and `after` contains no rest of a period.

A guest on a host with real devices writes its beats to its console instead.
Whoever reads the console takes the time when a line has come, which is later
than the device would have noted it.  So a beat can seem to come after the
vCPU was stopped; it then counts as coming with the stop.

It follows that only a part of the gap is caused by neither QEMU nor its host:
less than two periods if the guest is not busy; see `GuestGap.explained`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vfio_p2p.downtime.model import CONSOLE, GuestGap, NotObservable
from vfio_p2p.timeline import Blackout, Timeline
from vfio_p2p.timeline.blackout import final_stop
from vfio_p2p.trace import Clock, continued
from vfio_p2p.trace.device import Heartbeat

_WHAT = "guest-visible gap"
# A reader of a console that is later than this is a reader to doubt.
LATE_NS = 10**9
_CHECKPOINT = "vmstate_downtime_checkpoint"


def guest_gap(
    source: Timeline, destination: Timeline, whole: Blackout
) -> GuestGap | NotObservable:
    """Measure the guest-visible gap of a migration.

    :param source: The timeline of the side that stopped.
    :param destination: The timeline of the side that continued.
    :param whole: Their blackout.
    """
    stop = final_stop(source)
    if whole.start_ns is None or whole.end_ns is None or stop is None:
        return NotObservable(_WHAT, whole.note)
    if source.summary.backend.clock is not Clock.REALTIME:
        return NotObservable(
            _WHAT, "the traces' clock is not that of the devices' logs"
        )
    notify_ns = whole.start_ns
    if stop.notify and stop.notify.time_ns is not None:
        notify_ns = stop.notify.time_ns
    pairs = list(_pairs(source, destination))
    takers = "the destination's devices", "a device that was stopped"
    if not any(pair.source for pair in pairs):
        if source.console is None and destination.console is None:
            return NotObservable(
                _WHAT, "no device's log has a guest's heartbeat"
            )
        pairs = list(_console(source, destination, notify_ns))
        takers = "the destination's console", "a console while its VM stood"
    if not any(pair.source for pair in pairs):
        return NotObservable(
            _WHAT, "no heartbeat came to the source's console"
        )
    stall_ns = max(
        _slowest_beat_ns(beats)
        for pair in pairs
        for beats in (pair.source, pair.destination)
        if beats
    )
    found = [
        GuestGap(
            device=pair.device,
            period_ns=_period_ns(pair.source),
            start_ns=pair.source.last_ns,
            begin_ns=max(
                _begin_ns(source, notify_ns),
                # The guest runs until QEMU pauses it.
                min(pair.source.last_ns, notify_ns),
            ),
            stop_ns=notify_ns,
            request_ns=whole.start_ns,
            running_ns=whole.end_ns,
            end_ns=pair.destination.first_ns,
            slowest_beat_ns=_slowest_beat_ns(pair.source),
            bound_ns=source.bound_ns + destination.bound_ns or None,
            longest_ns=max(
                pair.destination.first_ns - pair.source.last_ns, stall_ns
            ),
        )
        for pair in pairs
        if pair.source and pair.destination
    ]
    if not found:
        return NotObservable(
            _WHAT, f"no heartbeat came to {takers[0]}"
        )
    if not all(gap.in_order for gap in found):
        return NotObservable(_WHAT, f"a heartbeat came to {takers[1]}")
    return max(found, key=lambda gap: gap.duration_ns)


def _slowest_beat_ns(beats: Heartbeat) -> int:
    """Return the longest time from one beat to the next."""
    return beats.gap_end_ns - beats.gap_start_ns


def _begin_ns(source: Timeline, notify_ns: int) -> int:
    """Return when QEMU began to stop the VM; 8.1 does not tell."""
    return max(
        (
            r.time_ns
            for r in source.others
            if r.event == _CHECKPOINT
            and r.fields["checkpoint"] == "src-downtime-start"
            and r.time_ns is not None
            and r.time_ns <= notify_ns
        ),
        default=notify_ns,
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """A device's last figures before the gap and its first ones after it."""

    device: str
    source: Heartbeat | None
    destination: Heartbeat | None


def _pairs(source: Timeline, destination: Timeline) -> Iterator[_Pair]:
    names = zip(source.plugged, destination.plugged, strict=False)
    for one, other in names:
        before, after = _heard(source, one), _heard(destination, other)
        yield _Pair(
            other,
            before[-1] if before else None,
            after[0] if after else None,
        )


def _console(
    source: Timeline, destination: Timeline, notify_ns: int
) -> Iterator[_Pair]:
    before = source.console.beats if source.console else None
    after = None
    if source.console and destination.console:
        after = continued(source.console, destination.console)
    before, after = (x if x and x.count else None for x in (before, after))
    if before and 0 < before.last_ns - notify_ns < LATE_NS:
        before = replace(before, last_ns=notify_ns)
    yield _Pair(CONSOLE, before, after)


def _heard(side: Timeline, device: str) -> list[Heartbeat]:
    """Return a device's figures, one set for each time between resets."""
    log = side.logs.get(device)
    return [x for x in log.of(Heartbeat) if x.count] if log else []


def _period_ns(beats: Heartbeat) -> int:
    """Return the mean time from one beat to the next."""
    return (beats.last_ns - beats.first_ns) // max(1, beats.count - 1)
