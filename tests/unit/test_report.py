# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports contain the findings, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
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
from vfio_p2p.oracle import Finding
from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report import junit, text
from vfio_p2p.report.document import Document, from_json, to_json
from vfio_p2p.report.run import Run
from vfio_p2p.report.runs import failed_run
from vfio_p2p.side import Side
from vfio_p2p.trace import Kind, Record
from vfio_p2p.verdict.assess import Assessment

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


def run(
    assessment: Assessment,
    variant: str = "patched",
    scenario: str = "1-devices",
    seed: int = 42,
) -> Run:
    made = failed_run(variant, scenario, seed, assessment)
    if assessment.summary == "not run":
        return made
    return msgspec.structs.replace(
        made,
        bundle=f"out/{variant}-{scenario}-s{seed}",
        digest="d" * 64,
    )


def of(*runs: Run) -> Document:
    return Document.of(
        runs,
        qemu="QEMU emulator version 10.0.13",
        base="v10.0",
        origin="Debian's qemu 1:10.0.13+ds-0+deb13u1",
    )


def report(*assessments: Assessment) -> Document:
    return of(
        *(
            run(assessment, scenario=f"{number}-devices")
            for number, assessment in enumerate(assessments, 1)
        )
    )


def seeded(*assessments: Assessment) -> Document:
    """Report on the same tree and scenario, with seeds from 42 on."""
    return of(
        *(
            run(assessment, seed=seed)
            for seed, assessment in enumerate(assessments, 42)
        )
    )


def written(document: Document) -> dict[str, Any]:
    """Return the document as programs read it."""
    found: dict[str, Any] = json.loads(to_json(document))
    return found


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


def suite(document: Document) -> TestSuite:
    (found,) = JUnitXml.fromstring(junit.render(document).encode())
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
        (f"{number}-devices", "vfio-p2p.patched") for number in range(1, 6)
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
    document = junit.render(EVIL)
    assert not set(document) & set("\x00\x1b\ud800\ufffe")
    found = suite(EVIL)
    assert found.failures == 2
    assert "\\x1b[31m" in next(iter(found)).result[0].message


def test_json_schema() -> None:
    document = written(ALL)
    assert set(document) >= {
        "format", "kind", "verdict", "qemu", "base", "origin", "runs",
        "unproven",
    }
    assert "barrier" not in document["unproven"]
    assert "order" in document["unproven"]
    assert (document["format"], document["kind"]) == (2, "vfio-p2p report")
    assert document["verdict"] == "fail"
    for run in document["runs"]:
        assert set(run) >= {
            "variant", "scenario", "seed", "verdict", "summary",
            "blackout_ns", "qmp_downtime_ms", "bundle", "digest", "latencies",
            "findings", "known", "notes", "traffic",
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
    document = written(found)
    assert document["runs"][0]["known"][0]["rule"] == "barrier"
    assert "barrier" not in document["unproven"]


def test_json_survives_anything() -> None:
    document = written(EVIL)
    assert document["runs"][0]["summary"] == HOSTILE
    assert to_json(EVIL).replace("\n", "").isprintable()
    assert to_json(EVIL).isascii()
    assert from_json(to_json(EVIL).encode(), "x") == EVIL


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
    assert "bundle: out/patched-2-devices-s42" in found


def test_text_of_a_pass_is_short() -> None:
    found = text.render(report(ASSESSMENTS[Verdict.PASS]))
    assert "bundle:" not in found
    assert len(found.splitlines()) <= 7


def test_text_fits_a_terminal() -> None:
    usual = of(
        *(
            run(assessment, variant, scenario)
            for assessment in ASSESSMENTS.values()
            for variant in ("base", "patched", "patch-5", "stock")
            for scenario in (
                f"{count}-devices-{assessment.verdict:.1}"
                for count in ("one", "two", "four")
            )
        ),
    )
    for line in text.render(usual).splitlines():
        assert len(line) <= 79
        assert line == line.rstrip()


def test_runs_of_many_seeds_share_a_line() -> None:
    good = ASSESSMENTS[Verdict.PASS]
    slow = replace(good, blackout_ns=70_000_000)
    found = seeded(good, slow, replace(good, blackout_ns=60_000_000))
    lines = text.render(found).splitlines()
    (line,) = (line for line in lines if "1-devices" in line)
    assert "pass 3/3" in line
    assert line.endswith("60.000 ms (50.123..70.000)")
    assert len(lines) == 6
    assert max(map(len, lines)) <= 79
    assert lines[-1] == "verdict: pass (3 passed, 0 failed)"


def test_the_worst_of_many_seeds_is_told_once() -> None:
    good, bad = ASSESSMENTS[Verdict.PASS], ASSESSMENTS[Verdict.FAIL]
    error = ASSESSMENTS[Verdict.ERROR]
    printed = text.render(seeded(good, bad, error, bad, bad, good))
    assert "fail 2/6" in printed
    assert "migrated, not run" in printed
    assert "1-devices, seed 43: fail\n  and so with seed 45-46" in printed
    assert printed.count("broken: barrier") == 1
    assert "bundle: out/patched-1-devices-s43" in printed
    assert "verdict: fail (2 passed, 3 failed, 1 in error)" in printed


def test_programs_get_every_seed() -> None:
    found = seeded(*[ASSESSMENTS[Verdict.PASS]] * 2)
    runs = written(found)["runs"]
    assert [run["seed"] for run in runs] == [42, 43]
    assert [case.name for case in suite(found)] == [
        "1-devices (seed 42)", "1-devices (seed 43)",
    ]  # fmt: skip


def test_traffic_is_counted() -> None:
    good = ASSESSMENTS[Verdict.PASS]
    assert "delivered" not in text.render(report(good))
    runs = [
        replace(good, traffic=Traffic(sent, sent - 3, 2, 1))
        for sent in (1000, 234)
    ]
    found = seeded(*runs, good)
    printed = text.render(found).splitlines()
    (names,) = (line for line in printed if "delivered" in line)
    (figures,) = (line for line in printed if "1234" in line)
    assert names.split()[-4:] == ["sent", "delivered", "lost", "doubled"]
    assert figures.split()[-4:] == ["1234", "1228", "4", "2"]
    first, *_, last = written(found)["runs"]
    assert first["traffic"] == {
        "sent": 1000, "delivered": 997, "lost": 2, "doubled": 1
    }
    assert last["traffic"] is None
    assert 'name="delivered" value="997"' in junit.render(found)


def test_long_names_are_not_cut() -> None:
    name = "patched+stop-in-complete-precopy"
    assert name in text.render(of(run(ASSESSMENTS[Verdict.PASS], name)))


def test_text_escapes_what_acts_on_a_terminal() -> None:
    found = text.render(EVIL)
    assert all(c == "\n" or c.isprintable() for c in found)
    assert "\\x1b[31m[red][/nonsense]" in found
