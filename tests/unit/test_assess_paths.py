# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on all kinds of runs: without migrations, or with several."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import traffic
from bundles import MIGRATED, good_destination, good_source, make_bundle
from qemu_log import FakeQemu, boot, devices, migrate, receive
from traffic import SENT, to_and_fro
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import (
    Device,
    Expect,
    Expectation,
    Guest,
    Outcome,
    Peers,
    Scenario,
    StateSequence,
)
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.step import Migrate, Status, Turn
from vfio_p2p.trace import Kind
from vfio_p2p.uapi import DeviceState
from vfio_p2p.verdict.assess import Assessment, assess

PASS, FAIL = Verdict.PASS, Verdict.FAIL
TWO = load("two-devices")
GOOD = "RUNNING_P2P RUNNING PRE_COPY PRE_COPY_P2P STOP_COPY STOP"
IDLE = Result(
    outcome=Outcome.IDLE,
    exit_states={"source": 0, "destination": 0},
    guest={"source": "running", "destination": "inmigrate"},
)
FAILED = Result(
    outcome=Outcome.FAILED,
    side="source",
    message="source: migration failed: Broken pipe",
    exit_states={"source": 0, "destination": -9},
    killed=("destination",),
    guest={"source": "running"},
    migration={"source": ("setup", "active", "failed"), "destination": ()},
    legs=(("source", "destination"),),
)


def scenario(
    outcome: Outcome = Outcome.MIGRATED, message: str = "", **changes: Any
) -> Scenario:
    """Make a scenario of two devices that expects this outcome."""
    expect = Expectation(outcome=outcome, message=message, **changes)
    return msgspec.structs.replace(
        TWO, expect=Expect(base=expect, patched=expect)
    )


def sequence(states: str, on: str = "source", **changes: Any) -> StateSequence:
    """Make the sequence of states that one QEMU asks its devices for."""
    return StateSequence(on=on, states=(states,), **changes)


def found(
    folder: Path,
    expected: Scenario,
    result: Result = MIGRATED,
    variant: str = "patched",
    qemus: Mapping[str, FakeQemu | bytes] = {},
) -> Assessment:
    """Return the verdict; QEMUs that are not given behave well."""
    path = make_bundle(
        folder / "bundle",
        scenario=expected,
        result=result,
        variant=variant,
        qemus=qemus,
    )
    return assess(open_bundle(path))


def messages(assessment: Assessment) -> str:
    return "\n".join(x.message for x in assessment.findings)


def idle() -> FakeQemu:
    qemu = boot(FakeQemu(devices("src0", "src1")))
    qemu.vm(False, "shutdown")
    return qemu


def failed() -> FakeQemu:
    """Make a source whose migration fails in precopy and that runs on."""
    qemu = boot(FakeQemu(devices("src0", "src1")))
    qemu.setup()
    qemu.status("failed")
    qemu.cleanup(stop=False)
    for device in qemu.devices:
        qemu.emit(
            Kind.NOTIFIER,
            "vfio_migration_state_notifier",
            device=device,
            type=2,
        )
        qemu.set_state(device, DeviceState.RUNNING)
    qemu.vm(False, "shutdown")
    return qemu


def test_nothing_migrates(tmp_path: Path) -> None:
    expected = scenario(
        Outcome.IDLE,
        sequences=(sequence("RUNNING_P2P RUNNING RUNNING_P2P STOP"),),
    )
    assessment = found(tmp_path, expected, IDLE, qemus={"source": idle()})
    assert assessment.verdict is PASS, messages(assessment)
    assert assessment.blackout_ns is None


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.REJECTED])
def test_nothing_was_refused(tmp_path: Path, outcome: Outcome) -> None:
    """QEMU did what it had to refuse, which is no fault of the machine."""
    assessment = found(
        tmp_path,
        scenario(outcome, "it is refused"),
        IDLE,
        qemus={"source": idle()},
    )
    assert assessment.verdict is FAIL
    (wrong,) = (x for x in assessment.findings if x.rule == "outcome")
    assert "nothing was refused" in wrong.message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"guest": {"source": "postmigrate"}}, ""),
        ({"guest": {"source": "running"}}, "is postmigrate, not running"),
        ({"guest": {"source-2": "running"}}, "is nothing, not running"),
        ({"migration": {"destination": Status.COMPLETED}}, ""),
        (
            {"migration": {"destination": Status.FAILED}},
            "is completed, not failed",
        ),
        ({"migration": {"source-2": Status.FAILED}}, "is nothing, not fail"),
        ({"breaks": ("barrier",)}, "the rule barrier should be broken here"),
    ],
)
def test_the_final_states(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    assessment = found(tmp_path, scenario(**changes))
    assert says in messages(assessment)
    assert assessment.verdict is (FAIL if says else PASS)


@pytest.mark.parametrize("too_early", [False, True])
def test_failure_that_was_called_a_success(
    tmp_path: Path, too_early: bool
) -> None:
    told = ("setup", "active", *(["completed"] if too_early else []), "failed")
    result = msgspec.structs.replace(FAILED, migration={"source": told})
    expected = scenario(
        Outcome.FAILED, "Broken pipe", migration={"source": Status.FAILED}
    )
    qemus = {"source": failed()}
    assessment = found(tmp_path, expected, result, qemus=qemus)
    assert assessment.verdict is (FAIL if too_early else PASS)
    assert ("was called completed" in messages(assessment)) == too_early


@pytest.mark.parametrize(
    ("states", "changes", "variant", "verdict"),
    [
        (GOOD, {}, "patched", PASS),
        (f"{GOOD} STOP", {}, "patched", FAIL),
        (GOOD.removesuffix(" STOP"), {}, "patched", FAIL),
        (GOOD.removeprefix("RUNNING_P2P "), {}, "patched", FAIL),
        ("STOP", {"until": "9.2"}, "patched", PASS),
        ("STOP", {"since": "10.1"}, "patched", PASS),
        ("STOP", {"since": "10.0", "until": "10.0"}, "patched", FAIL),
        ("STOP", {"on": "destination-2"}, "patched", PASS),
        ("STOP", {"on": "destination"}, "patched", FAIL),
        # No sequences are known for a part of the series.
        ("STOP", {}, "patch-5", PASS),
    ],
)
def test_sequence(
    tmp_path: Path,
    states: str,
    changes: dict[str, str],
    variant: str,
    verdict: Verdict,
) -> None:
    expected = scenario(sequences=(sequence(states, **changes),))
    assessment = found(tmp_path, expected, variant=variant)
    assert assessment.verdict is verdict, messages(assessment)
    assert {x.rule for x in assessment.findings} <= {"sequence"}


def test_a_run_with_another_ending_has_no_sequence(tmp_path: Path) -> None:
    expected = scenario(sequences=(sequence(GOOD),))
    assessment = found(tmp_path, expected, FAILED, qemus={"source": failed()})
    assert {x.rule for x in assessment.findings} == {"outcome"}


def test_sequence_of_one_table_of_devices(tmp_path: Path) -> None:
    other = sequence("STOP", device=1)
    two = (sequence(GOOD, device=0), other)
    patched = Expectation(sequences=two)
    expected = msgspec.structs.replace(
        TWO, devices=(Device(), Device()), expect=Expect(patched=patched)
    )
    assessment = found(tmp_path, expected)
    assert [x.devices for x in assessment.findings] == [("src1",)]


def test_rule_that_has_to_be_broken(tmp_path: Path) -> None:
    expected = scenario(sequences=(sequence("STOP"),), breaks=("sequence",))
    assert found(tmp_path, expected).verdict is PASS


def test_killed_one_is_judged_by_its_sequence_only(tmp_path: Path) -> None:
    qemu = FakeQemu(devices("dst0", "dst1"))
    qemu.load()
    for index, (states, verdict) in enumerate(
        (("RESUMING", PASS), ("RESUMING RUNNING_P2P", FAIL))
    ):
        expected = scenario(
            Outcome.FAILED,
            "Broken pipe",
            sequences=(sequence(states, "destination"),),
        )
        assessment = found(
            tmp_path / str(index), expected, FAILED,
            qemus={"source": failed(), "destination": qemu},
        )  # fmt: skip
        assert assessment.verdict is verdict, messages(assessment)


def test_killed_source(tmp_path: Path) -> None:
    qemu = boot(FakeQemu(devices("src0", "src1")))
    qemu.setup()
    result = msgspec.structs.replace(
        FAILED,
        killed=("source",),
        exit_states={"source": -9, "destination": 1},
    )
    expected = scenario(Outcome.FAILED, "Broken pipe")
    assessment = found(tmp_path, expected, result, qemus={"source": qemu})
    assert assessment.verdict is PASS, messages(assessment)


def there_and_back(*, broken: bool = False) -> dict[str, FakeQemu]:
    """Make the QEMUs of a migration and of the way back."""
    usual = good_source()
    middle = FakeQemu(
        devices("dst0", "dst1"), begin_ns=usual.begin_ns + 100_000_000
    )
    middle.load()
    middle.vm(True, "running")
    middle.status("completed")
    middle.setup()
    calls = middle.calls(False)
    if broken:
        calls[1], calls[2] = calls[2], calls[1]
    middle.vm(False, "finish-migrate", calls)
    middle.complete()
    middle.status("completed")
    middle.cleanup()
    last = FakeQemu(
        devices("src0", "src1"), begin_ns=usual.begin_ns + 200_000_000
    )
    return {
        "source": usual,
        "destination": middle,
        "source-2": receive(last),
    }


BACK = msgspec.structs.replace(
    MIGRATED,
    exit_states={"source": 0, "destination": 0, "source-2": 0},
    migration=dict.fromkeys(
        ("source", "destination", "source-2"), ("active", "completed")
    ),
    legs=(("source", "destination"), ("destination", "source-2")),
)


def test_every_migration_is_judged(tmp_path: Path) -> None:
    expected = scenario(
        sequences=(
            sequence(GOOD),
            sequence(f"RESUMING {GOOD}", "destination"),
            sequence(
                "RESUMING RUNNING_P2P RUNNING RUNNING_P2P STOP", "source-2"
            ),
        )
    )
    assessment = found(tmp_path, expected, BACK, qemus=there_and_back())
    assert assessment.verdict is PASS, messages(assessment)


def test_what_is_wrong_on_the_way_back_is_said_once(tmp_path: Path) -> None:
    qemus = there_and_back(broken=True)
    assessment = found(tmp_path, scenario(), BACK, qemus=qemus)
    assert assessment.verdict is FAIL
    said = [(x.rule, x.message) for x in assessment.findings]
    assert "barrier" in {rule for rule, _ in said}
    assert len(said) == len(set(said))


def test_last_one_has_to_be_there(tmp_path: Path) -> None:
    qemus = there_and_back()
    del qemus["source-2"]
    assessment = found(tmp_path, scenario(), BACK, qemus=qemus)
    assert assessment.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("ports", [(False, True), (True, False)])
def test_deeper_devices_stop_first(
    tmp_path: Path, ports: tuple[bool, bool]
) -> None:
    # The log is that of devices of equal depth, with src0 before src1.
    expected = msgspec.structs.replace(
        scenario(), devices=tuple(Device(root_port=port) for port in ports)
    )
    assessment = found(tmp_path, expected)
    assert assessment.verdict is (FAIL if ports[0] else PASS)
    assert {x.rule for x in assessment.findings} <= {"order"}


def never_started() -> FakeQemu:
    qemu = FakeQemu(devices("src0", "src1"))
    qemu.setup()
    qemu.complete()
    qemu.status("completed")
    qemu.cleanup()
    return qemu


@pytest.mark.parametrize("paused", [False, True])
def test_a_source_that_never_ran(tmp_path: Path, paused: bool) -> None:
    expected = msgspec.structs.replace(scenario(), guest=Guest(paused=paused))
    assessment = found(tmp_path, expected, qemus={"source": never_started()})
    assert assessment.verdict is (PASS if paused else Verdict.INCONCLUSIVE)


def test_snapshot_is_complete_after_its_cleanup(tmp_path: Path) -> None:
    def saved(*statuses: str) -> FakeQemu:
        qemu = boot(FakeQemu(devices("src0", "src1")))
        qemu.vm(False, "save-vm")
        for status in statuses:
            qemu.status(status)
        qemu.complete()
        qemu.cleanup()
        qemu.status("completed")
        qemu.vm(True, "running")
        qemu.vm(False, "shutdown")
        return qemu

    for statuses, verdict in (
        (("setup",), PASS),
        (("setup", "active"), FAIL),
    ):
        folder = tmp_path / str(verdict)
        qemus = {"source": saved(*statuses)}
        assessment = found(folder, scenario(Outcome.IDLE), IDLE, qemus=qemus)
        assert assessment.verdict is verdict, messages(assessment)


def test_a_completion_that_failed_silently(tmp_path: Path) -> None:
    qemu = boot(FakeQemu(devices("src0", "src1")))
    qemu.setup()
    qemu.vm(False, "paused")
    qemu.vm(True, "running")
    qemu.vm(False, "finish-migrate")
    qemu.set_state("src0", DeviceState.STOP_COPY, recover=DeviceState.STOP)
    qemu.status("failed")
    qemu.vm(True, "running")
    qemu.cleanup(stop=False)
    qemu.vm(False, "shutdown")
    result = msgspec.structs.replace(
        FAILED, killed=(), exit_states={"source": 0, "destination": 1}
    )
    expected = scenario(Outcome.FAILED, "Broken pipe")
    assessment = found(tmp_path, expected, result, qemus={"source": qemu})
    assert assessment.verdict is PASS, assessment


def test_both_sides_log_is_used(tmp_path: Path) -> None:
    swapped = {
        "source": good_destination(),
        "destination": good_source(),
    }
    assert found(tmp_path, scenario(), qemus=swapped).verdict is not PASS
    usual = migrate(FakeQemu(devices("src0", "src1"))).log()
    assert usual == good_source().log()


@pytest.mark.parametrize(
    ("said", "verdict"), [(1, PASS), (0, Verdict.INCONCLUSIVE)]
)
def test_end_of_a_multifd_thread(
    tmp_path: Path, said: int, verdict: Verdict
) -> None:
    # Its "ret" is a bool; the "ret" of the function before it is an errno.
    log = re.sub(
        rb"(vfio_save_complete_precopy)  (\(src\d\)) ret 0",
        rb"\1_thread_end  \2 ret %d" % said,
        good_source().log(),
    )
    assert log != good_source().log()
    assessment = found(tmp_path, scenario(), qemus={"source": log})
    assert assessment.verdict is verdict


@pytest.mark.parametrize("lost", [0, 2])
def test_traffic_is_counted_over_all_migrations(
    tmp_path: Path, lost: int
) -> None:
    assessment = assess(open_bundle(to_and_fro(tmp_path / "b", lost=lost)))
    assert assessment.traffic == Traffic(
        sent=2 * SENT + lost, delivered=2 * SENT, lost=lost, doubled=0
    )
    assert assessment.verdict is (FAIL if lost else PASS), assessment
    assert [x.rule for x in assessment.findings] == (
        ["conservation"] if lost else []
    )


def test_missing_traffic_is_no_evidence(tmp_path: Path) -> None:
    path = make_bundle(
        tmp_path / "b", scenario=load("two-devices-with-traffic")
    )
    assessment = assess(open_bundle(path))
    assert assessment.verdict is Verdict.INCONCLUSIVE
    assert assessment.traffic is None


@pytest.mark.parametrize("name", ["two", "four", "eight"])
def test_traffic_goes_on_through_ten_migrations(name: str) -> None:
    found = load(f"ping-pong-{name}-devices-with-traffic")
    assert sum(isinstance(x, Migrate) for x in found.steps) == 10
    assert sum(isinstance(x, Turn) for x in found.steps) == 9
    devices = found.each_device()
    assert len(devices) == {"two": 2, "four": 4, "eight": 8}[name]
    assert {device.peers for device in devices} == {Peers.MESH}
    ends = found.expect.patched.migration
    assert len(ends) == 11
    assert set(ends.values()) == {Status.COMPLETED}


def test_what_a_source_that_failed_to_migrate_had_sent(
    tmp_path: Path,
) -> None:
    path = make_bundle(
        tmp_path / "b",
        scenario=load("two-devices-with-traffic"),
        source=traffic.source(),
        destination=b"",
        result=msgspec.structs.replace(FAILED, killed=()),
    )
    assert assess(open_bundle(path)).traffic == Traffic(200, 200, 0, 0)


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ({"source": 0, "destination": 0}, Verdict.PASS),
        ({"source": -6, "destination": 0}, Verdict.FAIL),
        ({"source": 0, "destination": -11}, Verdict.FAIL),
        ({"source": 1, "destination": 0}, Verdict.ERROR),
        ({"source": 0, "destination": None}, Verdict.ERROR),
        ({"source": -9, "destination": 0}, Verdict.ERROR),
    ],
)
def test_how_qemu_ends_after_a_good_migration(
    tmp_path: Path, statuses: dict[str, int | None], verdict: Verdict
) -> None:
    result = msgspec.structs.replace(MIGRATED, exit_states=statuses)
    found = assess(
        open_bundle(make_bundle(tmp_path / "bundle", result=result))
    )
    assert found.verdict is verdict
