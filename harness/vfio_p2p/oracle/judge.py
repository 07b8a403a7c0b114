# SPDX-License-Identifier: GPL-2.0-or-later
"""From the timelines of a migration to its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from vfio_p2p.oracle.evidence import doubts, older, unloaded, unseen
from vfio_p2p.oracle.model import (
    Criteria,
    Doubt,
    Finding,
    Judgement,
    Objection,
    PairRule,
    Promise,
    Rule,
    Violation,
)
from vfio_p2p.oracle.rules import RULES
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Pass, Side, Timeline, blackout
from vfio_p2p.uapi import P2P_STATES

# What a rule says of one side; nobody reads as much.
_MOST_OUTCOMES = 1000


def judge(
    source: Timeline,
    destination: Timeline | None,
    criteria: Criteria,
    of_destination: Criteria | None = None,
) -> Judgement:
    """Judge one migration.

    :param source: The timeline of the source.
    :param destination: The timeline of the destination, if it has a log.
    :param criteria: What the logs are judged by.
    :param of_destination: What the log of the destination is judged by, if
        that is another QEMU.
    """
    sides = [source] if destination is None else [source, destination]
    notes = [x for x in map(older, sides) if x is not None]
    if notes:
        return Judgement(
            Verdict.INCONCLUSIVE, (), tuple(notes), None, ()
        )
    by_side = {
        side.side: _surer(x, sides)
        for side, x in zip(
            sides, (criteria, of_destination or criteria), strict=False
        )
    }
    outcomes = [*_uneven(sides), *_outcomes(source, destination, by_side)]
    findings = [x for x in outcomes if isinstance(x, Finding)]
    notes = [x for x in outcomes if isinstance(x, Doubt)]
    if not criteria.ends:
        notes = []
    for side in sides:
        notes += unseen(side, by_side[side.side])
    verdict = Verdict.PASS
    findings, notes = _doubt_lossy(sides, findings, notes)
    if findings:
        verdict = Verdict.FAIL
    elif notes:
        verdict = Verdict.INCONCLUSIVE
    return Judgement(
        verdict,
        tuple(findings),
        tuple(notes),
        None if destination is None else blackout(source, destination),
        tuple(
            rule.name
            for rule in RULES
            if rule.logs
            and (criteria.dma or not rule.dma)
            and not any(side.logs for side in sides)
        ),
        tuple(
            rule.name
            for rule in RULES
            if rule.requests
            and (criteria.witness or not rule.witness)
            and not all(side.summary.backend.requests for side in sides)
        ),
    )


def _surer(criteria: Criteria, sides: list[Timeline]) -> Criteria:
    """Take from the logs what the criteria leave open."""
    if criteria.p2p is None and _prepares(sides):
        # One prepare callback shows that the tree has the series, and so
        # all of its promises must hold.
        criteria = replace(criteria, p2p=True)
    elif criteria.p2p is None and _alone_without_p2p(sides, criteria):
        criteria = replace(criteria, p2p=False)
    if criteria.p2p and criteria.stop_in_cleanup is None:
        criteria = replace(criteria, stop_in_cleanup=True)
    return criteria


def _uneven(sides: list[Timeline]) -> list[Doubt]:
    """Doubt sides that have different numbers of devices."""
    if len({len(side.devices) for side in sides}) < 2:
        return []
    return [
        Doubt(
            side.side,
            f"this side has {len(side.devices)} devices, and the other "
            "side has another number",
            side.summary.name,
        )
        for side in sides
    ]


def _outcomes(
    source: Timeline,
    destination: Timeline | None,
    by_side: Mapping[Side, Criteria],
) -> Iterator[Finding | Doubt]:
    """Yield what the rules find, and what cannot be trusted."""
    sides = [source] if destination is None else [source, destination]
    for side in sides:
        criteria = by_side[side.side]
        yield from doubts(side, criteria)
        for rule in RULES:
            if isinstance(rule, Rule):
                yield from apply(rule, side, criteria)
    if destination is None:
        return
    # The findings of these rules are the destination's.
    criteria = by_side[destination.side]
    for rule in RULES:
        if isinstance(rule, PairRule) and rule.concerns(
            destination, criteria
        ):
            found = rule.check(source, destination, criteria)
            yield from _told(rule, destination, criteria, found)
    yield from unloaded(source, destination)


def _doubt_lossy(
    sides: list[Timeline], findings: list[Finding], notes: list[Doubt]
) -> tuple[list[Finding], list[Doubt]]:
    """Turn the findings of a side that dropped events into doubts.

    The dropped events may be those that the rule looked for in vain.
    """
    why = {
        side.side: side.unsure or "an event that was dropped may show more"
        for side in sides
        if side.dropped or side.unsure
    }
    return (
        [x for x in findings if x.side not in why],
        notes
        + [
            Doubt(
                x.side, f"{x.message}; {why[x.side]}", x.file, x.records
            )
            for x in findings
            if x.side in why
        ],
    )


def _alone_without_p2p(sides: list[Timeline], criteria: Criteria) -> bool:
    """Return whether one device migrates that was asked for no P2P state.

    It may have no P2P, and needs none: there is no other device that it could
    send to.
    """
    return criteria.devices in (None, 1) and all(
        len(side.devices) == 1
        and len(side.plugged) <= 1
        and side.epochs
        and not any(arc.requested in P2P_STATES for arc in side.arcs)
        for side in sides
    )


def _prepares(sides: list[Timeline]) -> bool:
    return any(
        epoch.of(Pass.PREPARE) for side in sides for epoch in side.epochs
    )


def apply(
    rule: Rule, side: Timeline, criteria: Criteria
) -> Iterator[Finding | Doubt]:
    """Yield what one rule says of one side.

    :param rule: The rule.
    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    if rule.concerns(side, criteria):
        yield from _told(rule, side, criteria, rule.check(side, criteria))


def _told(
    rule: Promise,
    side: Timeline,
    criteria: Criteria,
    outcomes: Iterable[Objection],
) -> Iterator[Finding | Doubt]:
    sure = rule.surely_concerns(side, criteria)
    for number, outcome in enumerate(outcomes):
        if number == _MOST_OUTCOMES:
            yield Doubt(
                side.side,
                f"the rule {rule.name} says more than the "
                f"{_MOST_OUTCOMES} things before this one",
                side.summary.name,
            )
            return
        message = outcome.message
        if isinstance(outcome, Violation) and sure:
            yield Finding(
                rule.name,
                rule.reason,
                side.side,
                message,
                outcome.devices,
                side.summary.name,
                outcome.records,
            )
            continue
        if not sure:
            message = f"{message}, if this is QEMU {rule.since} or newer"
        yield Doubt(
            side.side, message, side.summary.name, outcome.records
        )
