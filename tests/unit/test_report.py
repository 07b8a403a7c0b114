# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports say what was found, to people and to programs."""

from __future__ import annotations

import json

import pytest
from junitparser import (
    Error,
    Failure,
    JUnitXml,
    Properties,
    Skipped,
    TestCase,
    TestSuite,
)

from harness.assess import Assessment
from harness.oracle import Finding
from harness.report import machine, text
from harness.report.model import Report, Row
from harness.timeline import Side
from harness.trace import Kind, Record
from harness.verdict import Verdict

HOSTILE = "\x1b[31m[red][/nonsense]&<\x00\ud800\ufffe\n]]>"


def finding(words: str = "main came before prepare") -> Finding:
    return Finding(
        rule="barrier",
        reason="a peer would be lost",
        side=Side.SOURCE,
        message=words,
        devices=("src0", "src1"),
        file="source/trace.log",
        records=(
            Record(7, 123, 4242, "vfio_vmstate_change", Kind.MAIN, {}, words),
        ),
    )


ASSESSMENTS = {
    Verdict.PASS: Assessment(
        Verdict.PASS,
        "migrated",
        blackout_ns=50_123_456,
        qmp_downtime_ms=22,
    ),
    Verdict.FAIL: Assessment(Verdict.FAIL, "migrated", (finding(),)),
    Verdict.INCONCLUSIVE: Assessment(
        Verdict.INCONCLUSIVE, "migrated", notes=("source: empty log",)
    ),
    Verdict.SKIP: Assessment(Verdict.SKIP, "no device"),
    Verdict.ERROR: Assessment(
        Verdict.ERROR, "not run", notes=("disk on fire", "put it out")
    ),
}


def row(assessment: Assessment, variant: str = "patched") -> Row:
    failed = assessment.summary == "not run"
    return Row(
        variant=variant,
        scenario="four-devices",
        seed=42,
        assessment=assessment,
        bundle="" if failed else f"out/{variant}-four-devices-s42",
        digest="" if failed else "d" * 64,
    )


def report(*assessments: Assessment) -> Report:
    return Report(
        qemu="QEMU emulator version 10.0.13",
        base="v10.0",
        origin="Debian's qemu 1:10.0.13+ds-0+deb13u1",
        rows=tuple(row(assessment) for assessment in assessments),
    )


ALL = report(*ASSESSMENTS.values())
EVIL = report(
    Assessment(
        Verdict.FAIL, HOSTILE, (finding(HOSTILE),), notes=(HOSTILE,)
    ),
    Assessment(Verdict.ERROR, HOSTILE),
    Assessment(Verdict.SKIP, HOSTILE),
    Assessment(Verdict.FAIL, HOSTILE),
)


@pytest.mark.parametrize(
    ("verdicts", "line"),
    [
        ([], "inconclusive (0 passed, 0 failed)"),
        (["pass", "pass"], "pass (2 passed, 0 failed)"),
        (["pass", "skip"], "skip (1 passed, 0 failed, 1 skipped)"),
        (["fail", "error"], "fail (0 passed, 1 failed, 1 in error)"),
        (
            [*Verdict],
            "fail (1 passed, 1 failed, 1 inconclusive, 1 skipped, "
            "1 in error)",
        ),
    ],
)
def test_last_line_counts_all_verdicts(
    verdicts: list[str], line: str
) -> None:
    rows = [ASSESSMENTS[Verdict(verdict)] for verdict in verdicts]
    printed = text.render(report(*rows)).splitlines()
    assert printed[-1] == f"verdict: {line}"


def suite(document: Report) -> TestSuite:
    (found,) = JUnitXml.fromstring(machine.as_junit(document).encode())
    assert isinstance(found, TestSuite)
    return found


def test_junit_counts() -> None:
    found = suite(ALL)
    assert found.tests == 5
    assert found.failures == 1
    assert found.errors == 2
    assert found.skipped == 1


def test_junit_cases() -> None:
    cases = list(suite(ALL))
    assert {(c.name, c.classname) for c in cases} == {
        ("four-devices", "vfio-p2p.patched")
    }
    results = [[type(r) for r in case.result] for case in cases]
    assert results == [[], [Failure], [Error], [Skipped], [Error]]
    assert cases[1].result[0].message == "barrier: main came before prepare"
    assert cases[2].result[0].type == "inconclusive"
    assert cases[4].result[0].message == "disk on fire\nput it out"


def test_junit_properties() -> None:
    def properties(case: TestCase) -> dict[str, str]:
        (found,) = case.iterchildren(Properties)
        return {p.name: p.value for p in found}

    passed, *_, error = suite(ALL)
    assert properties(passed) == {
        "seed": "42",
        "blackout_ns": "50123456",
        "digest": "d" * 64,
    }
    assert properties(error) == {"seed": "42", "blackout_ns": "", "digest": ""}


def test_junit_of_nothing() -> None:
    assert suite(report()).tests == 0


def test_junit_survives_anything() -> None:
    document = machine.as_junit(EVIL)
    assert not set(document) & set("\x00\x1b\ud800\ufffe")
    found = suite(EVIL)
    assert found.failures == 2
    assert "\\x1b[31m" in next(iter(found)).result[0].message


def test_json_schema() -> None:
    document = json.loads(json.dumps(machine.as_json(ALL)))
    assert set(document) == {
        "format", "kind", "verdict", "qemu", "base", "origin", "runs",
        "unproven",
    }
    assert "barrier" not in document["unproven"]
    assert "order" in document["unproven"]
    assert (document["format"], document["kind"]) == (1, "vfio-p2p report")
    assert document["verdict"] == "fail"
    for run in document["runs"]:
        assert set(run) == {
            "variant", "scenario", "seed", "verdict", "summary",
            "blackout_ns", "qmp_downtime_ms", "bundle", "digest", "latencies",
            "findings", "known", "notes",
        }
    passed, failed, *_, error = document["runs"]
    assert passed["blackout_ns"] == 50_123_456
    assert passed["qmp_downtime_ms"] == 22
    assert failed["blackout_ns"] is None
    assert failed["findings"][0]["devices"] == ["src0", "src1"]
    assert failed["findings"][0]["lines"][0]["line"] == 7
    assert error["notes"] == ["disk on fire", "put it out"]


def test_a_known_finding_is_told_of_a_run_that_passes() -> None:
    known = Assessment(Verdict.PASS, "migrated", known=(finding(),))
    found = report(known)
    lines = text.render(found).splitlines()
    assert "  known: barrier (source)" in lines
    assert "    main came before prepare" in lines
    assert not any("broken" in line for line in lines)
    document = machine.as_json(found)
    assert document["runs"][0]["known"][0]["rule"] == "barrier"
    assert "barrier" not in document["unproven"]


def test_json_survives_anything() -> None:
    document = json.loads(json.dumps(machine.as_json(EVIL)))
    assert document["runs"][0]["summary"] == HOSTILE


@pytest.mark.parametrize(
    ("assessments", "verdict", "code"),
    [
        ([Verdict.PASS], Verdict.PASS, 0),
        ([Verdict.PASS, Verdict.FAIL, Verdict.ERROR], Verdict.FAIL, 1),
        ([Verdict.PASS, Verdict.INCONCLUSIVE], Verdict.INCONCLUSIVE, 3),
        ([Verdict.SKIP, Verdict.PASS], Verdict.SKIP, 4),
        ([Verdict.ERROR, Verdict.INCONCLUSIVE], Verdict.ERROR, 5),
        ([], Verdict.INCONCLUSIVE, 3),
    ],
)
def test_verdict_over_all(
    assessments: list[Verdict], verdict: Verdict, code: int
) -> None:
    found = report(*(ASSESSMENTS[x] for x in assessments)).verdict
    assert found is verdict
    assert found.exit_code == code


def test_text_has_the_figures() -> None:
    lines = text.render(ALL).splitlines()
    assert lines[0] == "QEMU emulator version 10.0.13, base v10.0"
    (passed,) = (line for line in lines if "pass " in line)
    assert "50.123 ms" in passed
    assert "22 ms" in passed
    assert lines[-1].startswith("verdict: fail (1 passed, 1 failed")
    assert "1 inconclusive" in lines[-1]
    assert "1 in error" in lines[-1]


def test_text_has_the_evidence() -> None:
    found = text.render(ALL)
    assert "broken: barrier (source)" in found
    assert "why it matters: a peer would be lost" in found
    assert "source/trace.log:7: main came before prepare" in found
    assert "source: empty log" in found
    assert "put it out" in found
    assert "bundle: out/patched-four-devices-s42" in found


def test_text_of_a_pass_is_short() -> None:
    found = text.render(report(ASSESSMENTS[Verdict.PASS]))
    assert "bundle:" not in found
    assert len(found.splitlines()) <= 7


def test_text_fits_a_terminal() -> None:
    usual = Report(
        qemu=ALL.qemu,
        base=ALL.base,
        origin=ALL.origin,
        rows=tuple(
            Row(variant, scenario, 42, assessment, "out/x", "d" * 64)
            for variant in ("base", "patched", "patch-5", "stock")
            for scenario in ("one-device", "two-devices", "four-devices")
            for assessment in ASSESSMENTS.values()
        ),
    )
    for line in text.render(usual).splitlines():
        assert len(line) <= 79
        assert line == line.rstrip()


def test_long_names_are_not_cut() -> None:
    name = "patched+stop-in-complete-precopy"
    rows = (row(ASSESSMENTS[Verdict.PASS], name),)
    assert name in text.render(Report("QEMU", "v10.0", "here", rows))


def test_text_escapes_what_acts_on_a_terminal() -> None:
    found = text.render(EVIL)
    assert all(c == "\n" or c.isprintable() for c in found)
    assert "\\x1b[31m[red][/nonsense]" in found
