# SPDX-License-Identifier: GPL-2.0-or-later
"""How long devices take into a P2P state, and how long they stay there.

A device on its way into a P2P state finishes what it has begun, and then
starts nothing new.  Its peers on the network wait meanwhile, and those of
RDMA give up after some tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.run import BrokenRule, Lane, Move, Run
from vfio_p2p.side import Side
from vfio_p2p.trace import printable
from vfio_p2p.uapi import DeviceState

RULE = "p2p-time"
_REASON = (
    "A device that starts nothing new for longer than its peers wait loses "
    "its connections, although nothing else went wrong."
)
_ENTERED = {
    DeviceState.RUNNING.name: DeviceState.RUNNING_P2P.name,
    DeviceState.PRE_COPY.name: DeviceState.PRE_COPY_P2P.name,
}
_RUN_STATE = "run state"
_STARTS = "start"
_ENDS = "stop (shutdown)"


@dataclass(frozen=True, slots=True)
class P2pTime:
    """One time that a device went into a P2P state when its VM stopped.

    :param side: The side.
    :param device: The device.
    :param arc: The arc, e.g. ``PRE_COPY>PRE_COPY_P2P``.
    :param arc_ns: How long the arc took.
    :param stay_ns: How long the device then stayed in the P2P state; None if
        it did not get there.
    """

    side: Side
    device: str
    arc: str
    arc_ns: int
    stay_ns: int | None


def p2p_times(run: Run) -> tuple[P2pTime, ...]:
    """Return when the devices of a run went into P2P states.

    Arcs of a VM that starts or ends are left out: nobody waits for its
    devices.

    :param run: The run.
    """
    return tuple(
        P2pTime(
            lane.side,
            lane.device,
            f"{arc.before}>{arc.requested}",
            arc.end_ns - arc.start_ns,
            _stay_ns(lane, arc),
        )
        for lane in run.lanes
        for arc in lane.arcs
        if _ENTERED.get(arc.before) == arc.requested
        and _stops(run, lane.side, arc.start_ns)
    )


def _stops(run: Run, side: Side, time_ns: int) -> bool:
    """Return whether a VM stops at a time, and goes on elsewhere or later."""
    said = [
        mark.text
        for mark in run.marks
        if mark.side is side
        and mark.kind == _RUN_STATE
        and mark.time_ns <= time_ns
    ]
    return not said or not (
        said[-1].startswith(_STARTS) or said[-1] == _ENDS
    )


def _stay_ns(lane: Lane, arc: Move) -> int | None:
    if arc.reached != arc.requested:
        return None
    return sum(
        stay.end_ns - stay.start_ns
        for stay in lane.states
        if stay.start_ns == arc.end_ns and stay.state == arc.requested
    )


def gated(run: Run, limit_ns: float) -> Run:
    """Return a run that fails if a device was too slow into a P2P state.

    :param run: The run.
    :param limit_ns: How long such an arc may take.
    """
    found = tuple(_findings(run, limit_ns))
    if not found:
        return run
    return replace(
        run,
        verdict=run.verdict
        if run.verdict in (Verdict.ERROR, Verdict.SKIP)
        else Verdict.FAIL,
        findings=(*run.findings, *found),
    )


def _findings(run: Run, limit_ns: float) -> Iterator[BrokenRule]:
    for time in p2p_times(run):
        if time.arc_ns <= limit_ns:
            continue
        stay = "it did not get there"
        if time.stay_ns is not None:
            stay = (
                f"it then stayed there for {time.stay_ns / 1e6:.3f} ms until "
                "the next arc"
            )
        yield BrokenRule(
            rule=RULE,
            reason=_REASON,
            side=time.side,
            message=(
                f"{printable(time.device)} took {time.arc_ns / 1e6:.3f} ms "
                f"for {time.arc}, and {limit_ns / 1e6:g} ms are allowed; "
                f"{stay}"
            ),
            devices=(time.device,),
        )
