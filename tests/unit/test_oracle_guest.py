# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule about heartbeats, one thing broken at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bundles import make_bundle
from test_guest_gap import heard

from harness.bundle.read import open_bundle
from harness.oracle import Expectation, Judgement, judge
from harness.report.collect import run_of
from harness.timeline import Side
from harness.verdict import Verdict

EXPECT = replace(Expectation.of_patches(6, devices=2), logs=True)


def judged(**beats: dict[str, int]) -> Judgement:
    source, destination = heard(**beats)
    return judge(
        source.witnessed(), destination.witnessed(Side.DESTINATION), EXPECT
    )


def test_all_is_well() -> None:
    assert judged().verdict is Verdict.PASS


def test_a_counter_may_wrap() -> None:
    last = (1 << 32) - 1
    found = judged(source={"last": last}, destination={"first": 0})
    assert found.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("source", "destination", "why"),
    [
        ({"missed": 2}, {}, "src1 had 2 missed, 0 repeated, 0 untimely"),
        ({"untimely": 1}, {}, "src1 had 0 missed, 0 repeated, 1 untimely"),
        ({}, {"repeated": 3}, "dst1 had 0 missed, 3 repeated, 0 untimely"),
        # It beat without being taken.
        ({}, {"count": 0, "untimely": 1}, "dst1 had 0 missed, 0 repeated, 1"),
        ({}, {"first": 13}, "heartbeat 10 at src1 was followed by 13 at dst1"),
        ({}, {"first": 10}, "heartbeat 10 at src1 was followed by 10 at dst1"),
    ],
)
def test_what_is_broken(
    source: dict[str, int], destination: dict[str, int], why: str
) -> None:
    (finding,) = judged(source=source, destination=destination).findings
    assert finding.rule == "heartbeat"
    assert why in finding.message
    assert any("heartbeat when=close" in x.text for x in finding.records)


def test_a_report_names_the_devices_log(tmp_path: Path) -> None:
    source, destination = heard(source={"missed": 1})
    path = make_bundle(
        tmp_path / "b", source=source, destination=destination
    )
    (finding,) = run_of(open_bundle(path)).findings
    assert {line.file for line in finding.lines} == {"devices/src1.log"}
