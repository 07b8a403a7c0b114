# SPDX-License-Identifier: GPL-2.0-or-later
"""From timelines to a verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.oracle.evidence import doubts
from harness.oracle.model import (
    Broken,
    Doubt,
    Expectation,
    Finding,
    Judgement,
    Rule,
)
from harness.oracle.rules import RULES
from harness.timeline import Phase, Timeline, blackout
from harness.verdict import Verdict


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
    findings: list[Finding] = []
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
    for side in sides:
        notes += doubts(side, expect)
        for rule in RULES:
            if side.side in rule.sides:
                for outcome in apply(rule, side, expect):
                    if isinstance(outcome, Finding):
                        findings.append(outcome)
                    else:
                        notes.append(outcome)
    verdict = Verdict.PASS
    if findings:
        verdict = Verdict.FAIL
    elif notes:
        verdict = Verdict.INCONCLUSIVE
    return Judgement(
        verdict,
        tuple(findings),
        tuple(notes),
        None if destination is None else blackout(source, destination),
    )


def _prepares(sides: list[Timeline]) -> bool:
    return any(
        epoch.of(Phase.PREPARE) for side in sides for epoch in side.epochs
    )


def apply(
    rule: Rule, side: Timeline, expect: Expectation
) -> Iterator[Finding | Doubt]:
    """What speaks against one promise on one side.

    :param rule: The promise.
    :param side: Timeline of the side.
    :param expect: What it is measured against.
    """
    for outcome in rule.check(side, expect):
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
