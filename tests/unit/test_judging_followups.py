# SPDX-License-Identifier: GPL-2.0-or-later
"""The results of follow-ups, and when they pass."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from vfio_p2p.oracle import Finding
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.judging.followups import (
    FollowupRuns,
    NotJudged,
    document,
    trial,
)
from vfio_p2p.report import junit, text
from vfio_p2p.report.document import Document, to_json
from vfio_p2p.series import Followup
from vfio_p2p.side import Side
from vfio_p2p.verdict.assess import Assessment

GOOD = Assessment(Verdict.PASS, "migrated")
BAD = Assessment(
    Verdict.FAIL,
    "migrated",
    (Finding("order", "It matters.", Side.SOURCE, "[b]", (), "x", ()),),
)
REFUSED = Assessment(Verdict.SKIP, "skipped", notes=("not run: no VF",))
ERROR = Assessment(Verdict.ERROR, "not run", notes=("no disk",))
MEND = Followup("mend", "v1", Path("mend.patch"), ("one",), ("two",))


def fixes(
    control: Assessment, without: Assessment, mended: Assessment | None
) -> FollowupRuns:
    """Return the runs in a scenario that shows the defect."""
    why = "" if mended else "make failed"
    return FollowupRuns(MEND, "one", control, without, mended, why)


def keeps(control: Assessment, mended: Assessment) -> FollowupRuns:
    """Return the runs in a scenario that shows no defect."""
    return FollowupRuns(MEND, "two", control, None, mended)


def report(*found: FollowupRuns | NotJudged) -> Document:
    return document(found, qemu="QEMU 10", base="v1")


MENDED = fixes(GOOD, BAD, GOOD)


@pytest.mark.parametrize(
    ("found", "verdict", "detail"),
    [
        (MENDED, Verdict.PASS, ""),
        (keeps(GOOD, GOOD), Verdict.PASS, ""),
        (fixes(GOOD, GOOD, GOOD), Verdict.FAIL, "does not show without it"),
        (fixes(GOOD, BAD, BAD), Verdict.FAIL, "with it: order: [b]"),
        (fixes(BAD, BAD, GOOD), Verdict.FAIL, "without it: order: [b]"),
        (fixes(GOOD, BAD, None), Verdict.FAIL, "did not build: make failed"),
        (fixes(ERROR, ERROR, GOOD), Verdict.ERROR, "without it: no disk"),
        (fixes(GOOD, ERROR, GOOD), Verdict.ERROR, "without it: no disk"),
        (fixes(GOOD, BAD, ERROR), Verdict.ERROR, "with it: no disk"),
        (keeps(GOOD, BAD), Verdict.FAIL, "with it: order: [b]"),
        (keeps(BAD, GOOD), Verdict.FAIL, "without it: order: [b]"),
    ],
)
def test_a_trial(
    found: FollowupRuns, verdict: Verdict, detail: str
) -> None:
    judged = trial(found)
    assert judged.verdict is verdict
    assert detail in judged.detail
    assert bool(judged.detail) == (verdict is not Verdict.PASS)
    assert report(MENDED, found).verdict is verdict


NOT_JUDGED = tuple(
    NotJudged(MEND, name, "not judged here: no card")
    for name in ("one", "two")
)


@pytest.mark.parametrize(
    ("others", "verdict"),
    [
        ((MENDED,), Verdict.PASS),
        ((fixes(GOOD, BAD, BAD),), Verdict.FAIL),
        ((fixes(GOOD, BAD, ERROR),), Verdict.ERROR),
        ((), Verdict.SKIP),
        # A run that a place refused is another thing: its row is judged.
        ((MENDED, keeps(REFUSED, REFUSED)), Verdict.SKIP),
    ],
)
def test_what_is_not_judged_does_not_count(
    others: tuple[FollowupRuns, ...], verdict: Verdict
) -> None:
    found = report(*NOT_JUDGED, *others)
    assert found.verdict is verdict
    row = found.followups[0]
    assert row.verdict is Verdict.SKIP
    assert row.fixes
    assert row.detail == "not judged here: no card"
    lines = cells(text.render(found).splitlines())
    assert "mend one - - skip" in lines
    assert lines.count("mend: not judged here: no card") == 1
    case = ET.fromstring(junit.render(found))[0][0]
    assert [x.tag for x in case] == ["skipped"]


def test_nothing_is_no_pass() -> None:
    assert report().verdict is Verdict.INCONCLUSIVE


def cells(lines: list[str]) -> list[str]:
    """Return the rows of the table without blanks."""
    return [" ".join(line.split()) for line in lines]


def test_text() -> None:
    bad = fixes(GOOD, BAD, BAD)
    lines = text.render(report(MENDED, keeps(GOOD, GOOD), bad)).splitlines()
    assert lines[0] == "QEMU 10, base v1"
    rows = cells(lines)
    assert "mend one the defect pass pass" in rows
    assert "mend two no defect pass pass" in rows
    assert "mend one the defect fail fail" in rows
    assert lines[-2:] == [
        "mend, one: with it: order: [b]", "verdict: fail",
    ]
    unbuilt = text.render(report(fixes(GOOD, GOOD, None), keeps(BAD, GOOD)))
    rows = cells(unbuilt.splitlines())
    assert "mend one pass did not build fail" in rows
    assert "mend two fail pass fail" in rows


def test_json() -> None:
    trials = (MENDED, keeps(GOOD, BAD))
    written = json.loads(to_json(report(*trials)))
    assert written["verdict"] == "fail"
    assert written["followups"] == [
        {
            "followup": "mend", "scenario": "one", "fixes": True,
            "verdict": "pass", "detail": "",
            "without": "the defect", "mended": "pass",
        },
        {
            "followup": "mend", "scenario": "two", "fixes": False,
            "verdict": "fail", "detail": "with it: order: [b]",
            "without": "no defect", "mended": "fail",
        },
    ]


def test_junit() -> None:
    trials = (MENDED, keeps(GOOD, BAD), keeps(GOOD, ERROR))
    suite = ET.fromstring(junit.render(report(*trials)))[0]
    assert suite.get("tests") == "3"
    assert [[child.tag for child in case] for case in suite] == [
        [], ["failure"], ["error"],
    ]
