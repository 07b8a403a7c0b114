# SPDX-License-Identifier: GPL-2.0-or-later
"""The experiment that explains the series, in ten lines.

Two trees, of which one has no barrier across devices, run the same scenario:
devices that send to one another all the time while their VM migrates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from vfio_p2p.bundle.read import Bundle
from vfio_p2p.oracle.traffic import Flow, Traffic, flows
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.timeline import Epoch, Timeline
from vfio_p2p.trace import printable
from vfio_p2p.trace.device import Lost
from vfio_p2p.verdict.assess import Assessment
from vfio_p2p.verdict.reading import read_run

_RULE = "conservation"
_NOTHING = Traffic(0, 0, 0, 0)


@dataclass(frozen=True)
class Arm:
    """One of the two trees, and what came of it.

    :param variant: Its name.
    :param assessment: The verdict on its run.
    :param bundle: What the run left.
    """

    variant: str
    assessment: Assessment
    bundle: Bundle

    @property
    def lost(self) -> int:
        """Transactions that were lost, over all of the run."""
        return (self.assessment.traffic or _NOTHING).lost

    @property
    def delivered(self) -> int:
        """Transactions that were received, over all of the run."""
        return (self.assessment.traffic or _NOTHING).delivered


def verdict(kept: Arm, broken: Arm) -> Verdict:
    """Whether the experiment shows what it is there to show.

    :param kept: The tree with the barrier; it must lose nothing.
    :param broken: The tree without; it must lose some, and be caught.
    """
    caught = any(x.rule == _RULE for x in broken.assessment.findings)
    found = kept.assessment.verdict
    if (found is Verdict.PASS and not kept.delivered) or kept.lost:
        found = Verdict.FAIL
    if broken.lost and caught:
        return found
    if broken.assessment.verdict is Verdict.INCONCLUSIVE:
        return worst([found, Verdict.INCONCLUSIVE])
    return Verdict.FAIL


def render(kept: Arm, broken: Arm) -> str:
    """What happened, in about ten lines.

    :param kept: The tree with the barrier.
    :param broken: The tree without.
    """
    arms = (kept, broken)
    name = kept.bundle.scenario.name
    lines = [
        f"{name}, seed {kept.bundle.manifest.inputs.seed}:",
        "devices send to one another while their VM migrates, with the",
        "series' barrier across devices, and without it",
        "",
    ]
    width = max(len(printable(arm.variant)) for arm in arms)
    for arm in arms:
        traffic = arm.assessment.traffic or _NOTHING
        lines.append(
            f"  {printable(arm.variant):{width}} {traffic.sent:8} sent "
            f"{traffic.delivered:8} delivered {traffic.lost:6} lost  "
            f"{arm.assessment.verdict}"
        )
    for arm in arms:
        if arm.lost:
            lines += ["", *_losses(arm)]
        rules = dict.fromkeys(x.rule for x in arm.assessment.findings)
        if rules:
            lines.append(f"  broken rules: {', '.join(rules)}")
    return "\n".join(lines)


def _losses(arm: Arm) -> Iterator[str]:
    """For each ordered pair, what was lost, and in which states."""
    reading = read_run(arm.bundle)
    sides = reading.timelines
    for flow in reading.flows:
        lost = flow.told.lost
        if not lost:
            continue
        pair = _numbers(sides, flow)
        yield (
            f"{printable(arm.variant)}, device {pair[0]} to {pair[1]}: "
            f"{lost} of {flow.told.sent} lost"
        )
        seen = Counter(
            _when(side, entry)
            for side in sides
            for other in flows(side)
            if _numbers(sides, other) == pair
            for entry in other.lost
        )
        for when, count in seen.items():
            yield f"  {count:4}  {when}"
        if seen.total() < lost:
            yield f"  {lost - seen.total():4}  at a time that no log tells"


def _numbers(
    sides: tuple[Timeline, Timeline], flow: Flow
) -> tuple[int, int]:
    """Sender and receiver, by the numbers that they have on both sides."""
    devices = next(x.devices for x in sides if flow.sender in x.devices)
    return devices.index(flow.sender), devices.index(flow.receiver)


def _when(side: Timeline, entry: Lost) -> str:
    """During which run-state change it was lost, and in which states."""
    before = [
        epoch
        for epoch in side.epochs
        if (begin_ns := _begin_ns(epoch)) is not None
        and begin_ns <= entry.time_ns
    ]
    what = "runs"
    if before:
        what = "starts" if before[-1].running else "stops"
        what += f" ({printable(before[-1].reason)})"
    # ERROR is zero.
    state = "CLOSED" if entry.to_state is None else entry.to_state.name
    return (
        f"as the {side.side} {what}: sender {entry.from_state.name}, "
        f"receiver {state}"
    )


def _begin_ns(epoch: Epoch) -> int | None:
    return (epoch.notify or epoch.steps[0].record).time_ns
