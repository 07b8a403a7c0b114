# SPDX-License-Identifier: GPL-2.0-or-later
"""A breakdown as figures with stable names, in nanoseconds.

::

    blackout                        the whole blackout
    phase.NAME                      a `PhaseName`; all phases are the whole
    device.DEVICE.ACTIVITY          the time that was spent waiting for it
    outside.DEVICE.ACTIVITY         an activity that nothing waited for
    qmp.downtime  qmp.stop-to-resume  stop-request      other figures
    guest-gap  guest-gap.rest  .pause  .after           see `GuestGap`

ACTIVITY is the requested state in lower case (``stop-copy``), or
``precopy-query``, ``save``, ``save-config``, ``load`` or ``load-config``.  If
the source and the destination have a device of the same name, DEVICE is
``SIDE:NAME``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from vfio_p2p.downtime.model import (
    OPTIONAL_PHASES,
    Breakdown,
    Interval,
    PhaseName,
)
from vfio_p2p.timeline import Side

BLACKOUT = "blackout"
PHASE = "phase."
DEVICE = "device."
OUTSIDE = "outside."


def blind(breakdowns: Iterable[Breakdown]) -> frozenset[PhaseName]:
    """Return the phases that some of these runs cannot tell.

    :param breakdowns: The runs that are to be compared.
    """
    told = [found for found in breakdowns if found.phases]
    known = set(PhaseName) - OPTIONAL_PHASES
    for found in told:
        known |= {x.name for x in found.phases}
        missing = {x.what for x in found.not_observable}
        known |= {name for name in OPTIONAL_PHASES if name in missing}
    return frozenset(
        name
        for found in told
        for name in known
        if found.phase(name) is None
    )


def metrics(
    breakdown: Breakdown, merged: Collection[PhaseName] = ()
) -> dict[str, int]:
    """Return the figures of one run.

    :param breakdown: Its blackout; if that is unknown, so are its parts.
    :param merged: The phases to count as part of the next one, like those
        that cannot be told.
    """
    whole_ns = breakdown.blackout.duration_ns
    found: dict[str, int] = {}
    if whole_ns is not None:
        found[BLACKOUT] = whole_ns
    left_ns = 0
    for phase in breakdown.phases:
        left_ns += phase.duration_ns
        if phase.name not in merged:
            found[f"{PHASE}{phase.name}"] = left_ns
            left_ns = 0
    devices = {
        side: {x.device for x in breakdown.intervals if x.side is side}
        for side in Side
    }
    twice = devices[Side.SOURCE] & devices[Side.DESTINATION]
    sums: Counter[str] = Counter()
    waited = [
        (DEVICE, link.interval, link.end_ns - link.start_ns)
        for link in breakdown.critical_path
        if link.interval is not None
    ]
    outside = [(OUTSIDE, x, x.duration_ns) for x in breakdown.outside]
    for kind, x, duration_ns in waited + outside:
        name = f"{x.side}:{x.device}" if x.device in twice else x.device
        sums[f"{kind}{name}.{activity(x)}"] += duration_ns
    found |= sums
    beside = breakdown.beside
    for name, value in (
        ("qmp.downtime", beside.qmp_downtime_ms),
        ("qmp.stop-to-resume", beside.stop_to_resume_ns),
        ("stop-request", beside.stop_request_ns),
    ):
        if value is not None:
            scale = 10**6 if name == "qmp.downtime" else 1
            found[name] = value * scale
    if (gap := beside.guest_gap) is not None:
        found["guest-gap"] = gap.duration_ns
        found["guest-gap.rest"] = gap.rest_ns
        found["guest-gap.pause"] = gap.pause_ns
        found["guest-gap.after"] = gap.after_ns
    return found


def measured(breakdown: Breakdown) -> frozenset[str]:
    """Return the names of the devices' figures that a run has measured.

    A figure of these that `metrics` lacks is zero: nothing waited for what
    the device did.  Any other one is unknown, as its lines were not traced.

    :param breakdown: The blackout of the run.
    """
    return frozenset(
        f"{DEVICE}{name}.{activity(x)}"
        for x in breakdown.intervals
        # Where its phase is unknown, nothing tells who waited for it.
        if x.phase is not None and breakdown.phase(x.phase) is not None
        for name in (x.device, f"{x.side}:{x.device}")
    )


def renamed(
    breakdown: Breakdown, names: Mapping[tuple[Side, str], str]
) -> Breakdown:
    """Return the same with other names for the devices.

    :param breakdown: The blackout of a run.
    :param names: The new name of each device of a side.
    """

    def new(interval: Interval) -> Interval:
        name = names.get((interval.side, interval.device), interval.device)
        return replace(interval, device=name)

    return replace(
        breakdown,
        intervals=tuple(map(new, breakdown.intervals)),
        outside=tuple(map(new, breakdown.outside)),
        critical_path=tuple(
            replace(x, interval=new(x.interval)) if x.interval else x
            for x in breakdown.critical_path
        ),
    )


def activity(interval: Interval) -> str:
    """Return the last part of an interval's name.

    :param interval: The interval.
    """
    return interval.activity.rpartition(">")[2].lower().replace("_", "-")
