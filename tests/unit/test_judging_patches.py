# SPDX-License-Identifier: GPL-2.0-or-later
"""The series judged patch by patch."""

from __future__ import annotations

import pytest
from vfio_p2p.oracle import RULES, Finding
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.judging.patches import (
    COLUMNS,
    ONE,
    TWO,
    PatchRuns,
    judged,
)
from vfio_p2p.report import junit, text
from vfio_p2p.report.document import Document
from vfio_p2p.report.run import Run
from vfio_p2p.report.runs import failed_run
from vfio_p2p.side import Side
from vfio_p2p.verdict.assess import Assessment

GOOD = Assessment(Verdict.PASS, "migrated")
REFUSED = Assessment(Verdict.PASS, "refused")
UNKNOWN = Assessment(Verdict.INCONCLUSIVE, "migrated", notes=("cut",))
SUBJECT = "vfio/migration: A subject that is too long for the table"


def run(scenario: str, found: Assessment) -> Run:
    return failed_run("patch-5", scenario, 42, found)


def broken(rule: str) -> Assessment:
    finding = Finding(rule, "It matters.", Side.SOURCE, "why", (), "x", ())
    return Assessment(Verdict.FAIL, "migrated", (finding,))


def tree(
    number: int, one: Assessment = GOOD, two: Assessment = REFUSED
) -> PatchRuns:
    subject = SUBJECT if number else ""
    runs = {ONE: run(ONE, one), TWO: run(TWO, two)}
    return PatchRuns(number, subject, runs)


@pytest.mark.parametrize(
    ("number", "cells"),
    [
        (0, ["migrates", "refused", "early", "no", "-", "legal"]),
        (1, ["migrates", "refused", "late", "no", "-", "legal"]),
        (5, ["migrates", "refused", "late", "yes", "-", "legal"]),
        (6, ["migrates", "migrate", "late", "yes", "kept", "legal"]),
    ],
)
def test_what_holds(number: int, cells: list[str]) -> None:
    found = judged(tree(number))
    assert list(found.columns.values()) == cells
    assert found.verdict is Verdict.PASS


def test_a_broken_rule_is_in_its_column() -> None:
    for column in COLUMNS:
        for rule in column.rules:
            found = judged(tree(6, broken(rule)))
            assert found.verdict is Verdict.FAIL
            assert [k for k, v in found.columns.items() if v == "BROKEN"] == [
                column.title
            ]


def test_every_rule_has_a_column() -> None:
    assert {rule.name for rule in RULES} == {
        rule for column in COLUMNS for rule in column.rules
    }


def test_an_outcome_that_is_wrong() -> None:
    found = judged(tree(6, GOOD, broken("outcome")))
    assert found.columns["2 devices"] == "BROKEN"
    assert found.columns["1 device"] == "migrates"


def test_what_is_not_known_holds_nothing() -> None:
    found = judged(tree(6, UNKNOWN))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.columns["1 device"] == "inconclusive"
    assert found.columns["order"] == "?"
    alone = PatchRuns(6, SUBJECT, {ONE: run(ONE, GOOD)})
    assert judged(alone).verdict is Verdict.INCONCLUSIVE
    assert judged(alone).columns["2 devices"] == "not run"


def test_text_and_junit() -> None:
    rows = [judged(tree(0)), judged(tree(1, broken("stop-copy")))]
    document = Document.of([run(ONE, GOOD)], patches=rows)
    lines = text.render(document).splitlines()
    assert lines[0].split() == [
        "patch", "1", "device", "2", "devices", "STOP", "P2P", "order",
        "arcs",
    ]  # fmt: skip
    assert lines[2].split()[0] == "base"
    assert lines[3].lstrip().startswith("1 vfio/migration: A subject th…")
    assert "BROKEN" in lines[3]
    assert lines[-1] == "verdict: pass (1 passed, 0 failed)"
    xml = junit.render(document)
    assert '<testsuite name="vfio-p2p patches" tests="2"' in xml
    assert "STOP: BROKEN" in xml
