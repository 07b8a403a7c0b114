# SPDX-License-Identifier: GPL-2.0-or-later
"""Assessments of runs whose migration goes through a file, or that plug."""

from __future__ import annotations

from pathlib import Path

import msgspec
from bundles import MIGRATED, good_source, make_bundle
from qemu_log import FakeQemu, devices
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.scenario.device import Device
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Expect, Expectation, Outcome, Scenario
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.step import Migrate, Plug, Status, Wait
from vfio_p2p.verdict.assess import assess
from vfio_p2p.verdict.reading import FILE_NOTE, read_run


def test_a_file_has_no_blackout(tmp_path: Path) -> None:
    through = load("file-two-devices")
    bundle = open_bundle(make_bundle(tmp_path / "x", scenario=through))
    found = assess(bundle)
    assert found.verdict is Verdict.PASS
    assert found.blackout_ns is None
    # This is QEMU's own figure, and the source's alone.
    assert found.qmp_downtime_ms == 20
    breakdown = read_run(bundle).breakdown
    assert breakdown.blackout.duration_ns is None
    assert breakdown.phases == ()
    assert breakdown.not_observable[0].why == FILE_NOTE
    # The same logs have one if the migration went through a socket.
    plain = open_bundle(make_bundle(tmp_path / "y"))
    assert assess(plain).blackout_ns


def plugging(*steps: object, outcome: Outcome) -> Scenario:
    scenario = load("two-devices")
    rejected = Expectation(outcome=outcome, message="not allowed")
    return msgspec.structs.replace(
        scenario,
        devices=(Device(), Device(root_port=True)),
        steps=steps,
        expect=Expect(patched=rejected),
    )


def test_a_device_that_was_not_plugged_is_not_missed(
    tmp_path: Path,
) -> None:
    steps = (Migrate(), Plug(device=1), Wait(status=Status.COMPLETED))
    result = Result(
        outcome=Outcome.REJECTED,
        side="source",
        at="step 2 (plug 1)",
        done=1,
        message="source: device_add: not allowed while migrating",
        exit_states={"source": 0, "destination": 1},
        legs=(("source", "destination"),),
        migration={"source": ("setup", "active"), "destination": ()},
    )
    alone = FakeQemu(devices("src0"))
    alone.vm(True, "running")
    alone.vm(False, "shutdown")
    bundle = open_bundle(
        make_bundle(
            tmp_path / "x",
            scenario=plugging(*steps, outcome=Outcome.REJECTED),
            result=result,
            source=alone,
        )
    )
    reading = read_run(bundle)
    assert len(reading.staying) == len(reading.specs) == 1
    assert assess(bundle).verdict is Verdict.PASS


def test_a_device_that_was_plugged_before_an_error(tmp_path: Path) -> None:
    steps = (Plug(device=1), Migrate(), Wait(status=Status.COMPLETED))
    result = Result(
        outcome=Outcome.FAILED,
        side="source",
        at="step 3 (wait source completed)",
        done=2,
        exit_states={"source": 0, "destination": 1},
    )
    scenario = plugging(*steps, outcome=Outcome.FAILED)
    bundle = make_bundle(tmp_path / "x", scenario=scenario, result=result)
    assert len(read_run(open_bundle(bundle)).specs) == 2


def test_a_device_that_was_plugged_is_missed(tmp_path: Path) -> None:
    steps = (Plug(device=1), Migrate(), Wait(status=Status.COMPLETED))
    scenario = msgspec.structs.replace(
        plugging(*steps, outcome=Outcome.MIGRATED), expect=Expect()
    )
    whole = open_bundle(
        make_bundle(tmp_path / "x", scenario=scenario, result=MIGRATED)
    )
    assert assess(whole).verdict is Verdict.PASS
    alone = open_bundle(
        make_bundle(
            tmp_path / "y",
            scenario=scenario,
            result=MIGRATED,
            source=good_source(count=1),
        )
    )
    found = assess(alone)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert any("2 devices expected" in x for x in found.notes)
