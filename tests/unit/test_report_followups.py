# SPDX-License-Identifier: GPL-2.0-or-later
"""What became of follow-ups, and when that is good enough."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from vfio_p2p.oracle import Finding
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.followups import (
    FollowupReport,
    Trial,
    as_json,
    as_junit,
    render,
)
from vfio_p2p.series import Followup
from vfio_p2p.timeline import Side
from vfio_p2p.verdict.assess import Assessment

GOOD = Assessment(Verdict.PASS, "migrated")
BAD = Assessment(
    Verdict.FAIL,
    "migrated",
    (Finding("order", "It matters.", Side.SOURCE, "[b]", (), "x", ()),),
)
ERROR = Assessment(Verdict.ERROR, "not run", notes=("no disk",))
MEND = Followup("mend", "v1", Path("mend.patch"), ("one",), ("two",))


def fixes(
    control: Assessment, without: Assessment, mended: Assessment | None
) -> Trial:
    """In a scenario that shows the defect."""
    why = "" if mended else "make failed"
    return Trial(MEND, "one", control, without, mended, why)


def keeps(control: Assessment, mended: Assessment) -> Trial:
    """In another."""
    return Trial(MEND, "two", control, None, mended)


def report(*trials: Trial) -> FollowupReport:
    return FollowupReport("QEMU 10", "v1", trials)


MENDED = fixes(GOOD, BAD, GOOD)


@pytest.mark.parametrize(
    ("trial", "verdict", "detail"),
    [
        (MENDED, Verdict.PASS, ""),
        (keeps(GOOD, GOOD), Verdict.PASS, ""),
        (fixes(GOOD, GOOD, GOOD), Verdict.FAIL, "not there without it"),
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
def test_a_trial(trial: Trial, verdict: Verdict, detail: str) -> None:
    assert trial.verdict is verdict
    assert detail in trial.detail
    assert bool(trial.detail) == (verdict is not Verdict.PASS)
    assert report(MENDED, trial).verdict is verdict


def test_nothing_is_no_pass() -> None:
    assert report().verdict is Verdict.INCONCLUSIVE


def cells(lines: list[str]) -> list[str]:
    """Rows of the table without its blanks."""
    return [" ".join(line.split()) for line in lines]


def test_text() -> None:
    bad = fixes(GOOD, BAD, BAD)
    lines = render(report(MENDED, keeps(GOOD, GOOD), bad)).splitlines()
    assert lines[0] == "QEMU 10, base v1"
    rows = cells(lines)
    assert "mend one the defect pass pass" in rows
    assert "mend two no defect pass pass" in rows
    assert "mend one the defect fail fail" in rows
    assert lines[-2:] == [
        "mend, one: with it: order: [b]", "verdict: fail",
    ]
    unbuilt = render(report(fixes(GOOD, GOOD, None), keeps(BAD, GOOD)))
    rows = cells(unbuilt.splitlines())
    assert "mend one pass did not build fail" in rows
    assert "mend two fail pass fail" in rows


def test_json() -> None:
    trials = (MENDED, keeps(GOOD, BAD))
    document = json.loads(json.dumps(as_json(report(*trials))))
    assert (document["format"], document["verdict"]) == (1, "fail")
    assert document["trials"] == [
        {
            "followup": "mend", "scenario": "one", "fixes": True,
            "verdict": "pass", "detail": "",
        },
        {
            "followup": "mend", "scenario": "two", "fixes": False,
            "verdict": "fail", "detail": "with it: order: [b]",
        },
    ]


def test_junit() -> None:
    trials = (MENDED, keeps(GOOD, BAD), keeps(GOOD, ERROR))
    suite = ET.fromstring(as_junit(report(*trials)))[0]
    assert suite.get("tests") == "3"
    assert [[child.tag for child in case] for case in suite] == [
        [], ["failure"], ["error"],
    ]
