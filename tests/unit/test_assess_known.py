# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios that expect findings, and what devices log about a run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from bundles import MIGRATED, good_source, make_bundle, without_stop
from qemu_log import FakeQemu
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.errors import TraceError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Expect, Expectation, Scenario
from vfio_p2p.uapi import DeviceState
from vfio_p2p.verdict.assess import Assessment, assess

PASS, FAIL = Verdict.PASS, Verdict.FAIL


def expecting(*rules: str) -> Scenario:
    """Make a scenario of two devices that migrate and break rules."""
    expect = Expectation(breaks=rules)
    return msgspec.structs.replace(
        load("two-devices"), expect=Expect(base=expect, patched=expect)
    )


def judged(
    folder: Path, scenario: Scenario, source: FakeQemu | None = None
) -> Assessment:
    path = make_bundle(folder / "b", scenario=scenario, source=source)
    return assess(open_bundle(path))


def rules(assessment: Assessment) -> list[str]:
    return sorted({finding.rule for finding in assessment.findings})


def test_a_known_finding_is_no_failure(tmp_path: Path) -> None:
    found = judged(tmp_path, expecting("left"), without_stop())
    assert found.verdict is PASS
    assert found.findings == ()
    assert {finding.rule for finding in found.known} == {"left"}


def test_an_unexpected_finding(tmp_path: Path) -> None:
    found = judged(tmp_path, expecting("once"), without_stop())
    assert found.verdict is FAIL
    assert rules(found) == ["expected", "left"]
    assert found.known == ()


@pytest.mark.parametrize(
    ("variant", "followup", "verdict"),
    [
        ("patched", None, PASS),
        ("patched", "mend", FAIL),
        ("patched", "other", PASS),
        ("patched+mend", None, FAIL),
        ("patched+mend", "", PASS),
        ("patched+other", None, PASS),
        ("stock+mend", None, FAIL),
    ],
)
def test_the_expectations_of_a_followup(
    tmp_path: Path, variant: str, followup: str | None, verdict: Verdict
) -> None:
    scenario = expecting("left")
    expect = msgspec.structs.replace(
        scenario.expect, followups={"mend": Expectation()}
    )
    path = make_bundle(
        tmp_path / "b",
        scenario=msgspec.structs.replace(scenario, expect=expect),
        variant=variant,
        source=without_stop(),
    )
    assert assess(open_bundle(path), followup).verdict is verdict


def test_an_expected_finding_that_is_missing(tmp_path: Path) -> None:
    found = judged(tmp_path, expecting("left", "left"))
    assert found.verdict is FAIL
    (missing,) = found.findings
    assert missing.rule == "expected"
    assert "left" in missing.message


def test_a_known_finding_does_not_hide_a_bad_end(tmp_path: Path) -> None:
    result = msgspec.structs.replace(
        MIGRATED, exit_states={"source": 1, "destination": 0}
    )
    path = make_bundle(
        tmp_path / "b",
        result=result,
        scenario=expecting("left"),
        source=without_stop(),
    )
    found = assess(open_bundle(path))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert any("did not exit normally" in note for note in found.notes)


def test_without_devices_logs_nothing_passes(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "b", logs={"src1": None})
    found = assess(open_bundle(path))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.notes == ("source: there is no log of src1 itself",)


def test_a_full_log_is_no_evidence(tmp_path: Path) -> None:
    log = good_source().device_logs()["src0"]
    whole = log.splitlines(keepends=True)
    time = whole[-1].split()[0].decode()
    cut = b"".join(whole[:9]) + f"{time} dropped count=3\n".encode()
    path = make_bundle(tmp_path / "b", logs={"src0": cut})
    found = assess(open_bundle(path))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "src0 had more to say" in found.notes[0]


def test_a_damaged_log_names_its_place(tmp_path: Path) -> None:
    log = good_source().device_logs()["src0"].replace(b"ret=0", b"ret=x", 1)
    path = make_bundle(tmp_path / "b", logs={"src0": log})
    with pytest.raises(TraceError, match=r"devices/src0.log:5: ret=x is not"):
        assess(open_bundle(path))


def test_device_logs_are_used_however_a_run_ended(tmp_path: Path) -> None:
    source = good_source()
    source.device("src0").ask(DeviceState.STOP_COPY)
    scenario = load("two-devices")
    for state in ("failed", "completed"):
        outcome = msgspec.structs.replace(
            MIGRATED, outcome="migration-failed", side="source", message="no"
        )
        expect = Expectation(outcome=outcome.outcome, message="no")
        path = make_bundle(
            tmp_path / state,
            result=outcome,
            scenario=msgspec.structs.replace(
                scenario, expect=Expect(base=expect, patched=expect)
            ),
            source=source,
        )
        assert rules(assess(open_bundle(path))) == ["agreement"]


def test_a_device_that_another_qemu_had_before(tmp_path: Path) -> None:
    log = good_source().device_logs()["src0"]
    other = (
        b"1699999998000000000 open\n"
        b"1699999998000000001 request from=RUNNING to=STOP\n"
        b"1699999998000000002 result to=STOP state=STOP ret=0\n"
        b"1699999998000000003 close state=STOP\n"
    )
    at = log.index(b"\n", log.index(b" live ")) + 1
    path = make_bundle(
        tmp_path / "b", logs={"src0": log[:at] + other + log[at:]}
    )
    assert assess(open_bundle(path)).verdict is PASS
