# SPDX-License-Identifier: GPL-2.0-or-later
"""What the oracle says of each migration of a run.

A run can have several migrations, or none.  Each migration is judged, and
its two QEMUs are judged against one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from vfio_p2p.bundle.provenance import HostProvenance
from vfio_p2p.oracle import RULES, Criteria, Finding, judge
from vfio_p2p.oracle.judge import apply
from vfio_p2p.oracle.model import Rule
from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.scenario import model
from vfio_p2p.side import side_of
from vfio_p2p.timeline import Blackout, Side, Timeline
from vfio_p2p.variant import SERIES_LENGTH
from vfio_p2p.verdict.due import RunDue, SideDue
from vfio_p2p.verdict.reading import NamedDevice, RunReading, completed

_SEQUENCE = tuple(
    rule
    for rule in RULES
    if isinstance(rule, Rule) and rule.name == "sequence"
)


@dataclass(frozen=True)
class Judged:
    """What the oracle says of a run.

    :param findings: The rules that were broken.
    :param notes: Why the logs cannot show that the rules hold, if so.
    :param blackout_ns: The blackout of the last migration, in nanoseconds;
        None if there was none.
    :param traffic: What the devices sent to one another over all migrations;
        None if they sent nothing.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    blackout_ns: int | None
    traffic: Traffic | None


def judge_run(
    run: RunReading,
    due: RunDue,
    sequences: Sequence[model.StateSequence],
    *,
    whole: bool = True,
) -> Judged:
    """Judge every migration of a run, or a run without one.

    :param run: The run.
    :param due: What its QEMUs are judged by.
    :param sequences: The sequences of states that they have to request.
    :param whole: Whether the run came to its own end.  If not, both QEMUs
        are judged as far as they went.
    """
    result = run.bundle.manifest.result
    criteria = partial(_criteria, run, due, sequences)
    failed = not whole or result.outcome is model.Outcome.FAILED
    findings: list[Finding] = []
    notes: list[str] = []
    blackout_ns = None
    for number, leg in enumerate(run.legs, 1):
        migrates = whole and completed(result, leg)
        names = [
            name
            for name in (leg if migrates or failed else leg[:1])
            if name not in result.killed
        ]
        if leg[0] in names:
            first, second = (
                replace(x, migrates=migrates, ends=not failed)
                for x in criteria(leg)
            )
            judgement = judge(
                run.without_unplugged(leg[0], Side.SOURCE),
                run.without_unplugged(leg[1], Side.DESTINATION)
                if leg[1] in names
                else None,
                first,
                second,
            )
            findings += judgement.findings
            notes += [f"{x.side}: {x.message}" for x in judgement.notes]
            file = run.scenario.through_file(number)
            if migrates and file:
                blackout_ns = None
            elif migrates and judgement.blackout:
                blackout_ns = judgement.blackout.duration_ns
                notes += _clocks(run, judgement.blackout)
        if whole:
            for name, side in zip(leg, Side, strict=True):
                if name not in names:
                    findings += _in_sequence(
                        run.timeline(name, side), criteria((name, name))[0]
                    )
    return Judged(
        _unique(findings),
        tuple(dict.fromkeys(notes)),
        blackout_ns,
        Traffic.of(run.flows),
    )


def _clocks(run: RunReading, blackout: Blackout) -> Iterator[str]:
    """Say why a blackout is unknown that should have been measured."""
    exact = run.bundle.manifest.inputs.place.exact
    if blackout.duration_ns is None and not exact:
        yield f"the blackout: {blackout.note}"


def _in_sequence(
    timeline: Timeline, criteria: Criteria
) -> Iterator[Finding]:
    """Judge a QEMU by `sequence`, where the other rules do not apply."""
    for rule in _SEQUENCE:
        for outcome in apply(rule, timeline, criteria):
            if isinstance(outcome, Finding):
                yield outcome


def _unique(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Drop what a second migration of the same QEMU shows again."""
    found = {(x.rule, x.file, x.message): x for x in reversed([*findings])}
    return tuple(reversed(found.values()))


def _criteria(
    run: RunReading,
    due: RunDue,
    sequences: Sequence[model.StateSequence],
    leg: tuple[str, str],
) -> tuple[Criteria, Criteria]:
    """Return what the logs of each QEMU of a migration are judged by."""
    sides = [
        (name, run.timeline(name, side))
        for name, side in zip(leg, Side, strict=True)
    ]
    known: list[NamedDevice] = [
        device for _, timeline in sides for device in run.named(timeline)
    ]
    inputs = run.bundle.manifest.inputs
    # Real devices take no beats, so that the guest writes to its console.
    real = isinstance(inputs.place, HostProvenance)
    # A QEMU is the program of the side whose devices it has, and migrates
    # them back as a source.
    first, second = (due.sides[side_of(name)] for name in leg)
    common = replace(
        _of_tree(run, first),
        # Linux's mtty keeps no log.
        logs=inputs.place.driver in ("p2psim", "p2pvf"),
        runs=not run.scenario.guest.paused,
        beats=frozenset(
            device
            for name, timeline in sides
            if not real and _beats(run, name)
            for device in timeline.plugged
        ),
        consoles=frozenset(
            timeline.side
            for name, timeline in sides
            if real and _beats(run, name)
        ),
        peers=frozenset(
            x.name for x in known if x.spec.peers is not model.Peers.NONE
        ),
        dma=frozenset(x.name for x in known if x.spec.dma_bytes),
        deep=frozenset(x.name for x in known if x.spec.root_port),
        ack=run.scenario.migration.capabilities.get("switchover-ack", False),
        witness=run.scenario.guest.witness,
        flags={x.name: x.spec.migration_flags for x in known},
        sequences={
            (timeline.side, device.name): sequence.requests
            for name, timeline in sides
            for device in run.named(timeline)
            for sequence in sequences
            if sequence.on == name
            and sequence.device in (None, device.table)
            and _holds(sequence, due.sides[side_of(name)])
        },
    )
    other = _of_tree(run, second)
    return common, replace(
        common,
        p2p=other.p2p,
        stop_in_cleanup=other.stop_in_cleanup,
        release=other.release,
    )


def _of_tree(run: RunReading, due: SideDue) -> Criteria:
    """Return what is due of a tree, without what is due of the run."""
    return replace(
        Criteria.of_patches(
            due.patches,
            len(run.staying),
            p2p=any(spec.has_p2p for spec in run.specs),
            migrates=False,
        ),
        release=due.release,
    )


def _beats(run: RunReading, name: str) -> bool:
    """Return whether a guest that sends heartbeats ran in this QEMU."""
    guest = run.scenario.guest
    if guest.program is not model.GuestProgram.HEARTBEAT:
        return False
    if run.bundle.manifest.result.guest.get(name) == "running":
        return True
    # A source's result says how its guest ended, stopped, not how it began.
    return not guest.paused and any(name == leg[0] for leg in run.legs)


def _holds(sequence: model.StateSequence, due: SideDue) -> bool:
    """Return whether a sequence holds for a tree.

    Nobody wrote down the sequences of a part of the series.
    """
    return bool(
        due.release
        and due.patches in (0, SERIES_LENGTH)
        and sequence.holds_for(due.release)
    )
