# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule about heartbeats, with one thing wrong at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from bundles import MIGRATED, make_bundle
from test_guest_gap import heard
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.oracle import Criteria, Judgement, judge
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.runs import run_of
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Guest, GuestProgram
from vfio_p2p.timeline import Side
from vfio_p2p.verdict.assess import Assessment, assess

EXPECT = replace(Criteria.of_patches(6, devices=2), logs=True)


def judged(
    expect: Criteria = EXPECT, **beats: dict[str, int]
) -> Judgement:
    source, destination = heard(**beats)
    return judge(
        source.witnessed(), destination.witnessed(Side.DESTINATION), expect
    )


def test_a_good_run_passes() -> None:
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
        # The guest sent heartbeats, and none of them was accepted.
        ({}, {"count": 0, "untimely": 1}, "dst1 had 0 missed, 0 repeated, 1"),
        ({}, {"first": 13}, "heartbeat 10 at src1 was followed by 13 at dst1"),
        ({}, {"first": 10}, "heartbeat 10 at src1 was followed by 10 at dst1"),
    ],
)
def test_each_mistake_is_found(
    source: dict[str, int], destination: dict[str, int], why: str
) -> None:
    (finding,) = judged(source=source, destination=destination).findings
    assert finding.rule == "heartbeat"
    assert why in finding.message
    assert any("heartbeat when=close" in x.text for x in finding.records)


SILENT = {"count": 0}
BEATS = replace(
    EXPECT, beats=frozenset({"src0", "src1", "dst0", "dst1"})
)


def test_all_expected_beats_arrive() -> None:
    assert judged(BEATS).verdict is Verdict.PASS


@pytest.mark.parametrize("side", Side)
def test_a_guest_that_is_silent(side: Side) -> None:
    (finding,) = judged(BEATS, **{side: SILENT}).findings
    device = "src1" if side is Side.SOURCE else "dst1"
    assert finding.rule == "heartbeat"
    assert finding.devices == (device,)
    assert f"guest of {device} runs, and the device had no" in finding.message
    assert finding.records
    assert not judged(EXPECT, **{side: SILENT}).findings
    # The run may have ended before the first beat.
    cut = replace(BEATS, ends=False)
    assert not judged(cut, **{side: SILENT}).findings


def test_a_guest_that_was_never_heard() -> None:
    source, destination = heard()
    for qemu in (source, destination):
        for device in qemu.devices:
            qemu.device(device).heartbeat = {}
    found = judge(
        source.witnessed(), destination.witnessed(Side.DESTINATION), BEATS
    )
    assert {x.devices[0] for x in found.findings} == BEATS.beats


def bundle_of(
    folder: Path, guest: Guest, statuses: dict[str, str]
) -> Assessment:
    """Return the verdict on a guest whose heartbeats nobody received."""
    scenario = msgspec.structs.replace(load("two-devices"), guest=guest)
    result = msgspec.structs.replace(MIGRATED, guest=statuses)
    path = make_bundle(folder / "b", scenario=scenario, result=result)
    return assess(open_bundle(path))


@pytest.mark.parametrize(
    ("guest", "destination", "silent"),
    [
        (Guest(program=GuestProgram.HEARTBEAT), "running", 4),
        (Guest(program=GuestProgram.HEARTBEAT), "paused", 2),
        (Guest(program=GuestProgram.HEARTBEAT, paused=True), "running", 2),
        (Guest(program=GuestProgram.HEARTBEAT, paused=True), "paused", 0),
        (Guest(), "running", 0),
    ],
)
def test_devices_that_must_get_beats(
    tmp_path: Path, guest: Guest, destination: str, silent: int
) -> None:
    statuses = {"source": "postmigrate", "destination": destination}
    found = bundle_of(tmp_path, guest, statuses)
    assert [
        x.rule for x in found.findings if x.rule == "heartbeat"
    ] == ["heartbeat"] * silent


def test_a_report_names_the_devices_log(tmp_path: Path) -> None:
    source, destination = heard(source={"missed": 1})
    path = make_bundle(
        tmp_path / "b", source=source, destination=destination
    )
    (finding,) = run_of(open_bundle(path)).findings
    assert {line.file for line in finding.lines} == {"devices/src1.log"}
