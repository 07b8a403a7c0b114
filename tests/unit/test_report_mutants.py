# SPDX-License-Identifier: GPL-2.0-or-later
"""What became of mutants, and when that is good enough."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from vfio_p2p.oracle import Finding
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.mutants import (
    Fate,
    MutantReport,
    Trial,
    as_json,
    as_junit,
    render,
)
from vfio_p2p.series import Mutant
from vfio_p2p.timeline import Side
from vfio_p2p.verdict.assess import Assessment

PASSED = Assessment(Verdict.PASS, "migrated")
ERROR = Assessment(Verdict.ERROR, "not run", notes=("no disk",))
UNCLEAR = Assessment(Verdict.INCONCLUSIVE, "migrated", notes=("cut",))


def broken(*rules: str) -> Assessment:
    """A run that breaks these rules."""
    findings = tuple(
        Finding(rule, "It matters.", Side.SOURCE, "[b]", (), "x.log", ())
        for rule in rules
    )
    return Assessment(Verdict.FAIL, "migrated", findings)


def mutant(*scenarios: str, waits_for: str = "") -> Mutant:
    """One that the rule "order" has to catch."""
    names = scenarios or ("one",)
    return Mutant("m", "v1", Path("m.patch"), "order", names, waits_for)


def report(*trials: Trial, control: Assessment = PASSED) -> MutantReport:
    return MutantReport("QEMU 10", "v1", {"one": control}, trials)


KILLED = Trial(mutant(), {"one": broken("order")})
WAITS = Trial(mutant(waits_for="a fault"))
UNBUILT = Trial(mutant(), not_built="make failed")
BY_ANOTHER = Trial(mutant(), {"one": broken("count")})
SURVIVED = Trial(mutant(), {"one": PASSED})


@pytest.mark.parametrize(
    ("trial", "fate", "detail"),
    [
        (KILLED, Fate.KILLED, ""),
        (Trial(mutant(), {"one": broken("count", "order")}), Fate.KILLED, ""),
        (BY_ANOTHER, Fate.BY_ANOTHER, "by count"),
        (SURVIVED, Fate.SURVIVED, ""),
        (Trial(mutant(), {"one": UNCLEAR}), Fate.SURVIVED, ""),
        (Trial(mutant(), {"one": ERROR}), Fate.NOT_JUDGED, "no disk"),
        (Trial(mutant()), Fate.NOT_JUDGED, "no run"),
        (UNBUILT, Fate.NOT_BUILT, "make failed"),
        (WAITS, Fate.WAITS, "for a fault"),
        (
            Trial(mutant("one", "two"), {"one": broken("order")}),
            Fate.NOT_JUDGED,
            "no run",
        ),
        (
            Trial(
                mutant("one", "two"), {"one": broken("order"), "two": PASSED}
            ),
            Fate.SURVIVED,
            "",
        ),
        (
            Trial(
                mutant("one", "two"),
                {"one": ERROR, "two": broken("left", "count")},
            ),
            Fate.BY_ANOTHER,
            "by count, left",
        ),
    ],
)
def test_fate(trial: Trial, fate: Fate, detail: str) -> None:
    assert (trial.fate, trial.detail) == (fate, detail)


@pytest.mark.parametrize(
    ("trials", "verdict"),
    [
        ((KILLED,), Verdict.PASS),
        ((KILLED, WAITS), Verdict.PASS),
        ((WAITS,), Verdict.SKIP),
        ((KILLED, SURVIVED), Verdict.FAIL),
        ((BY_ANOTHER,), Verdict.FAIL),
        ((UNBUILT,), Verdict.FAIL),
        ((KILLED, Trial(mutant())), Verdict.ERROR),
        ((SURVIVED, Trial(mutant())), Verdict.FAIL),
    ],
)
def test_verdict(trials: tuple[Trial, ...], verdict: Verdict) -> None:
    assert report(*trials).verdict is verdict


@pytest.mark.parametrize("control", [UNCLEAR, ERROR, broken("order")])
def test_killed_where_nothing_passes_proves_nothing(
    control: Assessment,
) -> None:
    found = report(KILLED, control=control)
    assert found.verdict is control.verdict
    assert f"without a mutant, one: {control.verdict}" in render(found)
    assert "without a mutant" not in render(report(KILLED))


def test_text() -> None:
    text = render(report(KILLED, BY_ANOTHER, WAITS, UNBUILT))
    lines = text.splitlines()
    assert lines[0] == "QEMU 10, base v1"
    assert any(
        " ".join(line.split()) == "m order one killed by another rule by count"
        for line in lines
    )
    assert lines[-1] == (
        "verdict: fail (1 killed, 1 waits, 1 killed by another rule, "
        "1 did not build)"
    )
    odd = Trial(mutant(), not_built="\x1b[2J[red]no")
    assert "\x1b" not in render(report(odd))
    assert "[red]no" in render(report(odd))


def test_json() -> None:
    document = json.loads(json.dumps(as_json(report(KILLED, BY_ANOTHER))))
    assert document["format"] == 1
    assert document["verdict"] == "fail"
    assert document["control"] == {"one": "pass"}
    assert [x["fate"] for x in document["mutants"]] == [
        "killed", "killed by another rule",
    ]
    assert document["mutants"][1] == {
        "name": "m",
        "trips": "order",
        "scenarios": ["one"],
        "fate": "killed by another rule",
        "rules": ["count"],
        "detail": "by count",
    }


def test_junit() -> None:
    trials = (KILLED, WAITS, SURVIVED, Trial(mutant()))
    suite = ET.fromstring(as_junit(report(*trials)))[0]
    assert suite.get("tests") == "5"
    assert [[child.tag for child in case] for case in suite] == [
        [], [], ["skipped"], ["failure"], ["error"],
    ]
    assert {case.get("classname") for case in suite} == {
        "vfio-p2p.control", "vfio-p2p.mutant",
    }
