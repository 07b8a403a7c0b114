# SPDX-License-Identifier: GPL-2.0-or-later
"""The fates of mutants, and when the suite passes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from vfio_p2p.oracle import Finding
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.judging import everything
from vfio_p2p.plans.judging.mutants import MutantRuns, document, trial
from vfio_p2p.report import junit, markdown, text
from vfio_p2p.report.document import (
    Document,
    from_json,
    to_json,
    with_tree,
)
from vfio_p2p.report.runs import failed_run
from vfio_p2p.report.sections import Fate, JudgedTree
from vfio_p2p.series import Mutant
from vfio_p2p.side import Side
from vfio_p2p.verdict.assess import Assessment

PASSED = Assessment(Verdict.PASS, "migrated")
ERROR = Assessment(Verdict.ERROR, "not run", notes=("no disk",))
UNCLEAR = Assessment(Verdict.INCONCLUSIVE, "migrated", notes=("cut",))


def broken(*rules: str) -> Assessment:
    """Make a run that breaks these rules."""
    findings = tuple(
        Finding(rule, "It matters.", Side.SOURCE, "[b]", (), "x.log", ())
        for rule in rules
    )
    return Assessment(Verdict.FAIL, "migrated", findings)


def mutant(*scenarios: str, waits_for: str = "") -> Mutant:
    """Make a mutant that the rule "order" has to catch."""
    names = scenarios or ("one",)
    return Mutant("m", "v1", Path("m.patch"), "order", names, waits_for)


def report(
    *found: MutantRuns, control: Assessment = PASSED, whole: bool = False
) -> Document:
    run = failed_run("patched", "one", 42, control)
    return document([run], found, qemu="QEMU 10", base="v1", whole=whole)


def render(found: Document) -> str:
    return text.render(found)


KILLED = MutantRuns(mutant(), {"one": broken("order")})
WAITS = MutantRuns(mutant(waits_for="a fault"))
UNBUILT = MutantRuns(mutant(), not_built="make failed")
BY_ANOTHER = MutantRuns(mutant(), {"one": broken("count")})
SURVIVED = MutantRuns(mutant(), {"one": PASSED})


@pytest.mark.parametrize(
    ("found", "fate", "detail"),
    [
        (KILLED, Fate.KILLED, ""),
        (
            MutantRuns(mutant(), {"one": broken("count", "order")}),
            Fate.KILLED,
            "",
        ),
        (BY_ANOTHER, Fate.BY_ANOTHER, "by count"),
        (SURVIVED, Fate.SURVIVED, ""),
        (MutantRuns(mutant(), {"one": UNCLEAR}), Fate.SURVIVED, ""),
        (MutantRuns(mutant(), {"one": ERROR}), Fate.NOT_JUDGED, "no disk"),
        (MutantRuns(mutant()), Fate.NOT_JUDGED, "no run"),
        (UNBUILT, Fate.NOT_BUILT, "make failed"),
        (WAITS, Fate.WAITS, "for a fault"),
        (
            MutantRuns(mutant("one", "two"), {"one": broken("order")}),
            Fate.NOT_JUDGED,
            "no run",
        ),
        (
            MutantRuns(
                mutant("one", "two"), {"one": broken("order"), "two": PASSED}
            ),
            Fate.SURVIVED,
            "",
        ),
        (
            MutantRuns(
                mutant("one", "two"),
                {"one": ERROR, "two": broken("left", "count")},
            ),
            Fate.BY_ANOTHER,
            "by count, left",
        ),
    ],
)
def test_fate(found: MutantRuns, fate: Fate, detail: str) -> None:
    judged = trial(found)
    assert (judged.fate, judged.detail) == (fate, detail)


def test_a_proof_that_is_in_doubt_for_another_reason() -> None:
    """8.1 prints nothing of a request that failed, so lines seem to lack.

    The rule that such a run breaks is proven.  A control of mutants in doubt
    lets them prove nothing.
    """
    proof = replace(UNCLEAR, known=broken("order").findings)
    runs = [
        failed_run("patched", name, 42, assessment)
        for name, assessment in (("one", PASSED), ("two", proof))
    ]
    found = document([*runs], [KILLED], qemu="", base="v1", whole=False)
    assert found.verdict is Verdict.PASS
    assert from_json(to_json(found).encode(), "x").verdict is Verdict.PASS
    assert len(found.runs) == 2
    assert report(KILLED, control=UNCLEAR).verdict is Verdict.INCONCLUSIVE
    runs[1] = failed_run("patched", "two", 42, ERROR)
    found = document([*runs], [KILLED], qemu="", base="v1", whole=False)
    assert found.verdict is Verdict.ERROR


def equivalent(*scenarios: str) -> Mutant:
    return replace(mutant(*scenarios), equivalent="nobody asks")


SAME = MutantRuns(equivalent(), {"one": PASSED})
NOT_SAME = MutantRuns(equivalent(), {"one": broken("order")})


@pytest.mark.parametrize(
    ("found", "fate", "detail"),
    [
        (SAME, Fate.EQUIVALENT, "nobody asks"),
        # It must not be killed, not even by its own rule.
        (
            NOT_SAME,
            Fate.BY_ANOTHER,
            "by order, though it is said to be equivalent",
        ),
        (
            MutantRuns(equivalent("one", "two"), {"one": PASSED}),
            Fate.NOT_JUDGED,
            "no run",
        ),
        (
            MutantRuns(equivalent(), {"one": ERROR}),
            Fate.NOT_JUDGED,
            "no disk",
        ),
        (
            MutantRuns(equivalent(), not_built="make failed"),
            Fate.NOT_BUILT,
            "make failed",
        ),
    ],
)
def test_equivalent(found: MutantRuns, fate: Fate, detail: str) -> None:
    judged = trial(found)
    assert (judged.fate, judged.detail) == (fate, detail)


def test_an_unclear_run_shows_no_equivalence() -> None:
    judged = trial(MutantRuns(equivalent(), {"one": UNCLEAR}))
    assert judged.fate is Fate.NOT_JUDGED


@pytest.mark.parametrize(
    ("trials", "verdict"),
    [
        ((KILLED,), Verdict.PASS),
        ((KILLED, WAITS), Verdict.PASS),
        ((WAITS,), Verdict.SKIP),
        ((KILLED, SAME), Verdict.PASS),
        ((SAME,), Verdict.SKIP),
        ((KILLED, NOT_SAME), Verdict.FAIL),
        ((KILLED, SURVIVED), Verdict.FAIL),
        ((BY_ANOTHER,), Verdict.FAIL),
        ((UNBUILT,), Verdict.FAIL),
        ((KILLED, MutantRuns(mutant())), Verdict.ERROR),
        ((SURVIVED, MutantRuns(mutant())), Verdict.FAIL),
    ],
)
def test_verdict(trials: tuple[MutantRuns, ...], verdict: Verdict) -> None:
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
    lines = render(report(KILLED, BY_ANOTHER, WAITS, UNBUILT)).splitlines()
    assert lines[0] == "QEMU 10, base v1"
    assert any(
        " ".join(line.split()) == "m order one killed by another rule by count"
        for line in lines
    )
    assert lines[-1] == (
        "verdict: fail (1 killed, 1 waits, 1 killed by another rule, "
        "1 did not build)"
    )
    odd = MutantRuns(mutant(), not_built="\x1b[2J[red]no")
    assert "\x1b" not in render(report(odd))
    assert "[red]no" in render(report(odd))


def test_json() -> None:
    written = json.loads(to_json(report(KILLED, BY_ANOTHER)))
    assert written["verdict"] == "fail"
    assert written["control"] == {"one": "pass"}
    assert [x["fate"] for x in written["mutants"]] == [
        "killed", "killed by another rule",
    ]
    assert written["mutants"][1] == {
        "name": "m",
        "trips": "order",
        "scenarios": ["one"],
        "fate": "killed by another rule",
        "rules": ["count"],
        "detail": "by count",
    }


def test_junit() -> None:
    trials = (KILLED, WAITS, SURVIVED, MutantRuns(mutant()))
    suite = ET.fromstring(junit.render(report(*trials)))[0]
    assert suite.get("tests") == "5"
    assert [[child.tag for child in case] for case in suite] == [
        [], [], ["skipped"], ["failure"], ["error"],
    ]
    assert {case.get("classname") for case in suite} == {
        "vfio-p2p.control", "vfio-p2p.mutant",
    }


def test_what_nothing_broke_is_unproven_if_all_was_tried() -> None:
    assert report(KILLED).unproven == ()
    found = report(KILLED, whole=True)
    assert "order" not in found.unproven
    assert "barrier" in found.unproven
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "unproven, as nothing breaks them: p2p" in render(found)
    cases = ET.fromstring(junit.render(found))[0]
    assert {x.get("classname") for x in cases} == {
        "vfio-p2p.control", "vfio-p2p.mutant", "vfio-p2p.rule",
    }  # fmt: skip


def everything_of(
    *found: MutantRuns, run: Assessment = PASSED
) -> Document:
    trees = [
        (
            JudgedTree(name=name, qemu="QEMU 10", base="v1"),
            [failed_run("patched", "one", 42, run)],
        )
        for name in ("v1 patched", "v2 stock")
    ]
    return everything.document(trees, found)


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("/home/me/q/qemu-10.0.tar.xz", ", from qemu-10.0.tar.xz"),
        ("debian:11.1", ", from debian:11.1"),
        ("installed at /usr/bin/qemu", ", from installed at qemu"),
        ("/a/one, /b/two", ", from one, two"),
        ("", ""),
    ],
)
def test_a_page_for_others_has_no_paths(origin: str, said: str) -> None:
    name = "v1 stock"
    tree = JudgedTree(name=name, qemu="QEMU 10", base="v1", origin=origin)
    run = with_tree(failed_run("stock", "one", 42, PASSED), name)
    page = markdown.render(Document.of([run], trees=[tree]))
    assert f"- v1 stock: QEMU 10{said}" in page.splitlines()


def proving_all() -> MutantRuns:
    """A mutant that breaks every rule that there is."""
    names = report(whole=True).unproven
    return MutantRuns(mutant(), {"one": broken("order", *names)})


def test_everything() -> None:
    found = everything_of(proving_all())
    assert found.verdict is Verdict.PASS
    assert [run.tree for run in found.runs] == ["v1 patched", "v2 stock"]
    lines = render(found).splitlines()
    assert lines[0] == "v1 patched: QEMU 10"
    assert "mutants: 1 killed" in lines
    assert lines[-2].endswith(", each broken by something")
    assert lines[-1] == "verdict: pass"
    suites = ET.fromstring(junit.render(found))
    assert [x.get("name") for x in suites] == [
        "vfio-p2p v1 patched", "vfio-p2p v2 stock",
        "vfio-p2p validate --mutants", "vfio-p2p rules",
    ]  # fmt: skip


def test_everything_with_a_rule_that_nothing_breaks() -> None:
    found = everything_of(KILLED)
    assert found.verdict is Verdict.FAIL
    assert "rules: unproven, as nothing breaks them: p2p" in render(found)
    rules = ET.fromstring(junit.render(found))[-1]
    assert rules.get("failures") == str(len(found.unproven))
    # A run that was not made might have broken the rule.
    unknown = everything_of(KILLED, MutantRuns(mutant()))
    assert unknown.verdict is Verdict.ERROR


def test_everything_without_mutants_is_not_proven() -> None:
    found = everything_of()
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "rules: not proven, without mutants" in render(found)


def test_everything_tells_what_does_not_pass() -> None:
    found = everything_of(proving_all(), run=broken("barrier"))
    assert found.verdict is Verdict.FAIL
    text_ = render(found)
    assert text_.count("broken: barrier (source)") == 2
    known = Assessment(
        Verdict.PASS, "migrated", known=broken("barrier").findings
    )
    text_ = render(everything_of(proving_all(), run=known))
    assert "  one: barrier (v1 patched, v2 stock)" in text_
