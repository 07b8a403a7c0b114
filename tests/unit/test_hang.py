# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs that timed out: the device that hung, and where."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec
import pytest
from bundles import make_bundle
from qemu_log import FakeQemu, boot, devices
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.oracle.hang import Hang, hangs
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import (
    Expect,
    Expectation,
    Outcome,
    Scenario,
    StateSequence,
)
from vfio_p2p.scenario.result import Result
from vfio_p2p.timeline import Pass, Side
from vfio_p2p.trace import Kind
from vfio_p2p.uapi import DeviceState
from vfio_p2p.verdict.assess import Assessment, assess
from vfio_p2p.verdict.reading import read_run

S = DeviceState
ARC = "PRE_COPY>PRE_COPY_P2P"
EINTR = 4
TIMEOUT = Result(
    outcome=Outcome.TIMEOUT,
    side="source",
    step="migration",
    message="source: migration took longer than 20 s",
    exit_states={"source": None, "destination": 0},
    mute=("source",),
    migration={"source": ("setup", "active")},
    legs=(("source", "destination"),),
)


def waiting(qemu: FakeQemu, device: str, state: DeviceState) -> FakeQemu:
    """Print QEMU's last request, in which QEMU is killed."""
    qemu.emit(
        Kind.ATTEMPT, "vfio_migration_set_state", device=device,
        state=state.name, recover="ERROR",
    )
    fake = qemu.device(device)
    fake.now_ns = qemu.next_ns
    fake.ask(state, errno=EINTR)
    return qemu


def source() -> FakeQemu:
    """Make a source where src0 hangs in the prepare pass, after src1."""
    qemu = boot(FakeQemu(devices("src0", "src1")))
    qemu.setup()
    qemu.begin(False, "finish-migrate")
    qemu.call("src1", Pass.PREPARE, False, "finish-migrate")
    return waiting(qemu, "src0", S.PRE_COPY_P2P)


def destination() -> FakeQemu:
    """Make a destination that answers and has nothing to do yet."""
    qemu = FakeQemu(devices("dst0", "dst1"))
    qemu.load()
    return qemu


def expecting(
    hung: Mapping[str, str] | None = None, **more: object
) -> Scenario:
    expect = Expectation()
    if hung is not None:
        expect = msgspec.convert(
            {"outcome": "timed-out", "hangs": hung, **more}, Expectation
        )
    return msgspec.structs.replace(
        load("two-devices"), expect=Expect(base=expect, patched=expect)
    )


def judged(
    folder: Path,
    scenario: Scenario,
    qemu: FakeQemu | None = None,
    result: Result = TIMEOUT,
    *,
    logs: Mapping[str, None] | None = None,
    logs_by_side: bool = False,
) -> Assessment:
    path = make_bundle(
        folder / "b",
        scenario=scenario,
        result=result,
        source=qemu or source(),
        destination=destination(),
        logs=logs,
        logs_by_side=logs_by_side,
    )
    return assess(open_bundle(path))


def one(qemu: FakeQemu, *, logs: bool = True) -> Hang:
    side = Side.SOURCE
    (found,) = hangs(qemu.witnessed(side) if logs else qemu.timeline(side))
    return found


def test_both_witnesses_tell() -> None:
    found = one(source())
    assert (found.device, found.arc) == ("src0", ARC)
    assert str(found) == f"src0 hung in {ARC}"
    # QEMU's line, and what the device logged about the same request.
    assert len(found.records) == 3


def test_trace_alone_tells_the_request() -> None:
    found = one(source(), logs=False)
    assert (found.device, found.arc) == ("src0", ARC)


def test_log_alone_tells_where_a_trace_has_no_line_before_a_request() -> None:
    qemu = boot(FakeQemu(devices("src0"), version="9.0"))
    qemu.device("src0").ask(S.PRE_COPY, errno=EINTR)
    assert one(qemu).arc == "RUNNING>PRE_COPY"
    assert not list(hangs(qemu.timeline()))


def test_one_arc_of_many() -> None:
    qemu = FakeQemu(devices("src0"))
    fake = qemu.device("src0")
    fake.say("request from=RUNNING to=RESUMING")
    times = f"start_ns={fake.now_ns} end_ns={fake.now_ns}"
    fake.say(f"arc from=RUNNING to=RUNNING_P2P ret=0 {times}")
    fake.say(f"arc from=RUNNING_P2P to=STOP ret=-4 {times}")
    fake.say("result to=RESUMING state=RUNNING_P2P ret=-4")
    found = one(qemu)
    assert found.arc == "RUNNING_P2P>STOP"
    assert str(found).endswith("RUNNING_P2P>STOP, on its way to RESUMING")


def test_no_arc_is_seen_where_the_kernel_hangs() -> None:
    # A device that cannot be killed logs nothing more at all.
    qemu = FakeQemu(devices("src0"))
    qemu.device("src0").say("request from=RUNNING to=PRE_COPY")
    assert one(qemu).arc == "RUNNING>PRE_COPY"


def test_nothing_hangs_in_a_whole_log() -> None:
    qemu = boot(FakeQemu(devices("src0", "src1")))
    qemu.set_state("src0", S.PRE_COPY, reached=S.RUNNING)
    assert not list(hangs(qemu.witnessed()))


def test_expected_hang_passes(tmp_path: Path) -> None:
    found = judged(tmp_path, expecting({"src0": ARC}))
    assert found.verdict is Verdict.PASS
    assert found.summary == f"timed-out: source: src0 hung in {ARC}"


def test_expected_hang_without_device_logs(tmp_path: Path) -> None:
    found = judged(
        tmp_path,
        expecting({"src0": ARC}),
        logs=dict.fromkeys(("src0", "src1", "dst0", "dst1")),
    )
    # Missing logs only concern the verdict on the order.
    assert not found.findings


@pytest.mark.parametrize(
    ("hung", "said"),
    [
        ({"src0": "RUNNING>PRE_COPY"}, f"src0 hung in {ARC}"),
        ({"src1": ARC}, "src1 did not hang in"),
        ({"dst0": ARC, "src0": ARC}, "dst0 did not hang in"),
    ],
)
def test_hang_elsewhere(
    tmp_path: Path, hung: dict[str, str], said: str
) -> None:
    found = judged(tmp_path, expecting(hung))
    assert found.verdict is Verdict.FAIL
    assert any(said in finding.message for finding in found.findings)
    sides = {x.side for x in found.findings if x.message.startswith("dst")}
    assert sides <= {Side.DESTINATION}


def test_hang_is_no_other_reason_to_be_late(tmp_path: Path) -> None:
    found = judged(tmp_path, expecting({}, message="migration"))
    assert found.verdict is Verdict.FAIL
    (finding,) = found.findings
    assert finding.message == f"src0 hung in {ARC}"


def test_late_for_another_reason(tmp_path: Path) -> None:
    qemu = boot(FakeQemu(devices("src0", "src1")))
    result = msgspec.structs.replace(TIMEOUT, mute=())
    found = judged(tmp_path, expecting({}, message="migration"), qemu, result)
    assert found.verdict is Verdict.PASS


def test_an_unexpected_hang(tmp_path: Path) -> None:
    found = judged(tmp_path, expecting())
    assert found.verdict is Verdict.ERROR
    assert found.summary == f"timed-out: source: src0 hung in {ARC}"
    assert found.notes == (
        "timed-out, but must be migrated: source: migration took longer than "
        "20 s",
        f"source: src0 hung in {ARC}",
    )


def test_hang_of_a_destination(tmp_path: Path) -> None:
    qemu = waiting(destination(), "dst1", S.RUNNING_P2P)
    path = make_bundle(
        tmp_path / "b",
        scenario=expecting({"dst1": "RESUMING>STOP"}),
        # The source waited for it, so the source ran out of time, too.
        result=msgspec.structs.replace(TIMEOUT, mute=("destination",)),
        source=boot(FakeQemu(devices("src0", "src1"))),
        destination=qemu,
    )
    bundle = open_bundle(path)
    found = assess(bundle)
    assert found.verdict is Verdict.PASS
    assert found.summary.startswith(
        "timed-out: destination: dst1 hung in RESUMING>STOP, on its way to"
    )
    sides = {name: x.side for name, x in read_run(bundle).witnesses}
    assert sides == {name: name for name in ("source", "destination")}


def test_a_machine_that_is_too_slow(tmp_path: Path) -> None:
    """A QEMU that starts late is not the time-out that is expected."""
    slow = msgspec.structs.replace(
        TIMEOUT,
        side="destination",
        step="start",
        message="destination: start took longer than 20 s",
        mute=(),
        migration={},
    )
    qemu = boot(FakeQemu(devices("src0", "src1")))
    scenario = expecting({"dst0": "RESUMING>STOP"}, breaks=["reached"])
    found = judged(tmp_path / "slow", scenario, qemu, slow)
    assert found.verdict is Verdict.ERROR
    assert found.findings == ()
    (note,) = found.notes
    assert "while QEMU started: destination: start took longer" in note
    # A device that hangs makes its QEMU start late, too.
    late = msgspec.structs.replace(slow, side="source")
    found = judged(tmp_path / "hung", expecting({"src0": ARC}), None, late)
    assert found.verdict is Verdict.PASS


def test_qemu_that_hangs_by_itself(tmp_path: Path) -> None:
    qemu = boot(FakeQemu(devices("src0", "src1")))
    found = judged(tmp_path, expecting(), qemu)
    assert found.verdict is Verdict.ERROR
    assert found.summary == "timed-out: source: QEMU does not answer"


def test_a_timeout_without_a_hang(tmp_path: Path) -> None:
    qemu = boot(FakeQemu(devices("src0", "src1")))
    result = msgspec.structs.replace(TIMEOUT, mute=())
    found = judged(tmp_path, expecting(), qemu, result)
    assert found.verdict is Verdict.ERROR
    assert found.summary == "timed-out"


def test_broken_rule_in_a_run_that_hangs(tmp_path: Path) -> None:
    qemu = boot(FakeQemu(devices("src0", "src1")))
    qemu.setup()
    qemu.begin(False, "finish-migrate")
    qemu.call("src1", Pass.MAIN, False, "finish-migrate")
    waiting(qemu, "src0", S.PRE_COPY_P2P)
    found = judged(tmp_path, expecting({"src0": ARC}), qemu)
    assert found.verdict is Verdict.FAIL
    assert [finding.rule for finding in found.findings] == ["count"]


def test_sequence_up_to_the_hang(tmp_path: Path) -> None:
    due = "RUNNING_P2P RUNNING PRE_COPY PRE_COPY_P2P"
    for states, verdict in (
        (due, Verdict.PASS),
        (f"{due} STOP_COPY", Verdict.FAIL),
    ):
        sequence = StateSequence(on="source", states=(states,))
        scenario = expecting(
            {"src0": ARC}, sequences=[msgspec.to_builtins(sequence)]
        )
        found = judged(tmp_path / str(verdict), scenario)
        assert found.verdict is verdict
        assert {x.rule for x in found.findings} <= {"sequence"}
        assert len(found.findings) == (0 if verdict is Verdict.PASS else 2)


@pytest.mark.parametrize("by_side", [False, True])
def test_states_in_which_devices_are_left(
    tmp_path: Path, by_side: bool
) -> None:
    judge = partial(judged, logs_by_side=by_side)
    ends = {"src0": "PRE_COPY", "src1": "PRE_COPY_P2P", "dst0": "RESUMING"}
    good = expecting({"src0": ARC}, ends=ends)
    assert judge(tmp_path / "good", good).verdict is Verdict.PASS
    bad = expecting({"src0": ARC}, ends={**ends, "dst0": "STOP"})
    found = judge(tmp_path / "bad", bad)
    (finding,) = found.findings
    assert finding.message == "dst0 was left in RESUMING, not in STOP"
    assert finding.side is Side.DESTINATION
    unknown = expecting({"src0": ARC}, ends={"src7": "STOP"})
    (finding,) = judge(tmp_path / "unknown", unknown).findings
    assert "no known state" in finding.message


def test_status_of_a_migration_that_hangs(tmp_path: Path) -> None:
    scenario = expecting({"src0": ARC}, migration={"source": "failed"})
    (finding,) = judged(tmp_path, scenario).findings
    assert finding.message == "source: the migration is active, not failed"


CRASH = Result(
    outcome=Outcome.CRASHED,
    side="source",
    message="source: QEMU went away in quit (killed by SIGABRT): oops",
    exit_states={"source": -6, "destination": 0},
)


def test_expected_crash(tmp_path: Path) -> None:
    expect = Expectation(outcome=Outcome.CRASHED, message="SIGABRT): oops")
    scenario = msgspec.structs.replace(
        expecting(), expect=Expect(base=expect, patched=expect)
    )
    found = judged(tmp_path / "good", scenario, result=CRASH)
    assert found.verdict is Verdict.PASS
    both = msgspec.structs.replace(
        CRASH, exit_states={"source": -6, "destination": -11}
    )
    found = judged(tmp_path / "both", scenario, result=both)
    assert found.verdict is Verdict.FAIL
    other = msgspec.structs.replace(CRASH, message="SIGABRT): another")
    found = judged(tmp_path / "other", scenario, result=other)
    assert found.verdict is Verdict.FAIL
