# SPDX-License-Identifier: GPL-2.0-or-later
"""From timelines to a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from vfio_p2p.oracle.evidence import doubts, unseen
from vfio_p2p.oracle.model import (
    Broken,
    Doubt,
    Expectation,
    Finding,
    Judgement,
    Outcome,
    PairRule,
    Promise,
    Rule,
)
from vfio_p2p.oracle.rules import RULES
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Phase, Timeline, blackout


def judge(
    source: Timeline,
    destination: Timeline | None,
    expect: Expectation,
) -> Judgement:
    """The verdict on one migration.

    :param source: Timeline of the source.
    :param destination: Timeline of the destination, if there is a log.
    :param expect: What the logs are measured against.
    """
    sides = [source] if destination is None else [source, destination]
    notes: list[Doubt] = []
    if expect.p2p is None and _prepares(sides):
        # One prepare is enough: the tree has the series, so all must be.
        expect = replace(expect, p2p=True)
    if expect.p2p and expect.stop_in_cleanup is None:
        expect = replace(expect, stop_in_cleanup=True)
    if len({len(side.devices) for side in sides}) > 1:
        notes += [
            Doubt(
                side.side,
                f"{len(side.devices)} devices here, not as many there",
                side.summary.name,
            )
            for side in sides
        ]
    outcomes: list[Finding | Doubt] = []
    for side in sides:
        outcomes += doubts(side, expect)
        for rule in RULES:
            if isinstance(rule, Rule):
                outcomes += apply(rule, side, expect)
    if destination is not None:
        for rule in RULES:
            if isinstance(rule, PairRule) and rule.concerns(
                destination, expect
            ):
                outcomes += _told(
                    rule,
                    destination,
                    rule.check(source, destination, expect),
                )
    findings = [x for x in outcomes if isinstance(x, Finding)]
    notes += [x for x in outcomes if isinstance(x, Doubt)]
    if not expect.ends:
        notes = []
    for side in sides:
        notes += unseen(side, expect)
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
            if rule.logs and not any(side.logs for side in sides)
        ),
    )


def _doubt_lossy(
    sides: list[Timeline], findings: list[Finding], notes: list[Doubt]
) -> tuple[list[Finding], list[Doubt]]:
    """Where events were dropped, a finding may lack the one that matters."""
    lossy = {side.side for side in sides if side.dropped}
    return (
        [x for x in findings if x.side not in lossy],
        notes
        + [
            Doubt(
                x.side,
                f"{x.message}, unless that is among what was dropped",
                x.file,
                x.records,
            )
            for x in findings
            if x.side in lossy
        ],
    )


def _prepares(sides: list[Timeline]) -> bool:
    return any(
        epoch.of(Phase.PREPARE) for side in sides for epoch in side.epochs
    )


def apply(
    rule: Rule, side: Timeline, expect: Expectation
) -> Iterator[Finding | Doubt]:
    """What one rule says of one side.

    :param rule: The rule.
    :param side: The timeline.
    :param expect: What it is measured against.
    """
    if rule.concerns(side, expect):
        yield from _told(rule, side, rule.check(side, expect))


def _told(
    rule: Promise, side: Timeline, outcomes: Iterable[Outcome]
) -> Iterator[Finding | Doubt]:
    for outcome in outcomes:
        if isinstance(outcome, Broken):
            yield Finding(
                rule.name,
                rule.reason,
                side.side,
                outcome.message,
                outcome.devices,
                side.summary.name,
                outcome.records,
            )
        else:
            yield Doubt(
                side.side,
                outcome.message,
                side.summary.name,
                outcome.records,
            )
