# SPDX-License-Identifier: GPL-2.0-or-later
"""Right sequences pass, and each wrong one is found by its rule."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qemu_log import (
    FakeQemu,
    boot,
    devices,
    machines,
    migrate,
    prefixes_of,
    receive,
)
from test_timeline import REAL
from vfio_p2p.oracle import RULES, Criteria, Judgement, judge
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Cause, Pass, Side, read_log
from vfio_p2p.trace import VERSIONS, Kind
from vfio_p2p.uapi import ALL_FLAGS, MigrationFlags
from vfio_p2p.uapi import DeviceState as S

PASS, FAIL, UNCLEAR = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
P2P = MigrationFlags.STOP_COPY | MigrationFlags.P2P
NO_P2P = MigrationFlags.STOP_COPY | MigrationFlags.PRE_COPY
AB = devices("a", "b")
SERIES = Criteria.of_patches(6, devices=2)


def source(qemu: FakeQemu, expect: Criteria = SERIES) -> Judgement:
    return judge(qemu.timeline(), None, expect)


def destination(qemu: FakeQemu, expect: Criteria = SERIES) -> Judgement:
    good = migrate(FakeQemu(qemu.devices, qemu.version)).timeline()
    return judge(good, qemu.timeline(Side.DESTINATION), expect)


def rules(judgement: Judgement) -> set[str]:
    assert (judgement.verdict is FAIL) == bool(judgement.findings)
    return {finding.rule for finding in judgement.findings}


def test_real_logs_pass() -> None:
    source = read_log(REAL[Side.SOURCE], Side.SOURCE)
    destination = read_log(REAL[Side.DESTINATION], Side.DESTINATION)
    for expect in (SERIES, Criteria(), Criteria(devices=2)):
        judgement = judge(source, destination, expect)
        assert (judgement.notes, judgement.findings) == ((), ())
        assert judgement.verdict is PASS


@given(
    machines(),
    st.sampled_from(VERSIONS),
    st.booleans(),
    st.data(),
)
def test_right_sequences_pass(
    machine: dict[str, MigrationFlags],
    version: str,
    notify: bool,
    data: st.DataObject,
) -> None:
    pre = data.draw(st.sampled_from(prefixes_of(version)))

    def make() -> FakeQemu:
        return FakeQemu(machine, version, pre, notify=notify)

    sides = (
        migrate(make()).timeline(),
        receive(make()).timeline(Side.DESTINATION),
    )
    for expect in (
        Criteria(),
        Criteria.of_patches(6, devices=len(machine)),
        Criteria(devices=len(machine), flags=machine),
    ):
        judgement = judge(*sides, expect)
        assert judgement.verdict is PASS, judgement.as_json()
    assert judge(sides[0], None, Criteria()).verdict is PASS


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("count", range(7))
def test_every_patch_level_has_its_own_expectation(
    version: str, count: int
) -> None:
    machine = devices("a")
    qemu = FakeQemu(machine, version, series=count >= 5)
    boot(qemu)
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.complete(stop=count < 1)
    qemu.cleanup()
    receiver = receive(FakeQemu(machine, version, series=count >= 5))
    for level in range(7):
        judgement = judge(
            qemu.timeline(),
            receiver.timeline(Side.DESTINATION),
            Criteria.of_patches(level, devices=1),
        )
        same = (level >= 1, level >= 5) == (count >= 1, count >= 5)
        assert judgement.verdict is (PASS if same else FAIL)


def test_unpatched_logs_are_inconclusive_or_fail_if_p2p_is_expected() -> None:
    qemu = migrate(FakeQemu(devices("a", "b"), series=False))
    judgement = source(qemu, Criteria())
    assert judgement.verdict is UNCLEAR
    assert "P2P" in judgement.notes[0].message
    assert "p2p" in rules(source(qemu, Criteria(p2p=True)))


def test_device_without_p2p_has_no_prepare() -> None:
    machine = {"a": NO_P2P}
    expect = Criteria.of_patches(6, devices=1, p2p=False)
    assert source(migrate(FakeQemu(machine)), expect).verdict is PASS
    mixed = {"a": ALL_FLAGS, "b": NO_P2P}
    qemu = boot(FakeQemu(mixed))
    qemu.vm(False, "shutdown")
    told = Criteria(devices=2, migrates=False, flags=mixed)
    assert source(qemu, told).verdict is PASS
    untold = Criteria(devices=2, migrates=False)
    assert rules(source(qemu, untold)) == {"count"}


# --- mistakes in the passes ----------------------------------------------

CALLS = [(phase, name) for phase in Pass for name in "ab"]


@given(st.permutations(CALLS), st.booleans(), st.sampled_from(VERSIONS))
def test_any_other_order_of_callbacks_is_found(
    calls: list[tuple[Pass, str]], running: bool, version: str
) -> None:
    qemu = boot(FakeQemu(AB, version))
    if running:
        qemu.vm(False, "paused")
    right = qemu.calls(running)
    qemu.vm(running, "running" if running else "paused", calls)
    judgement = source(
        qemu, Criteria(devices=2, migrates=False)
    )
    if calls == right:
        assert judgement.verdict is PASS
        return
    split = any(
        calls.index((Pass.MAIN, m)) < calls.index((Pass.PREPARE, p))
        for m in "ab"
        for p in "ab"
    )
    assert ("barrier" in rules(judgement)) == split
    assert judgement.verdict is FAIL
    for finding in judgement.findings:
        if finding.rule == "barrier":
            assert "main callback" in finding.message
            assert finding.records


@pytest.mark.parametrize("version", VERSIONS)
def test_main_pass_first_names_the_rule_and_both_devices(
    version: str,
) -> None:
    qemu = FakeQemu(AB, version)
    for running, reason in ((True, "running"), (False, "paused")):
        right = qemu.calls(running)
        qemu.vm(running, reason, right[2:] + right[:2])
    judgement = source(qemu)
    barriers = [f for f in judgement.findings if f.rule == "barrier"]
    assert len(barriers) == 2
    for finding in barriers:
        assert set(finding.devices) == {"a", "b"}
        assert "a, b" in finding.message or "b, a" in finding.message
        assert len(finding.lines()) == 4
        assert finding.lines()[0].startswith("source.log:")


def test_the_same_mistake_on_the_destination() -> None:
    qemu = FakeQemu(AB)
    qemu.load()
    right = qemu.calls(True)
    qemu.vm(True, "running", right[2:] + right[:2])
    assert {"barrier", "destination"} <= rules(destination(qemu))


def test_a_stop_that_is_not_reversed() -> None:
    qemu = boot(FakeQemu(AB))
    qemu.setup()
    qemu.vm(
        False,
        "finish-migrate",
        [(phase, name) for phase in Pass for name in "ab"],
    )
    qemu.complete()
    qemu.cleanup()
    judgement = source(qemu)
    assert rules(judgement) == {"order"}
    assert set(judgement.findings[0].devices) == {"a", "b"}


def test_an_order_that_is_reversed_throughout() -> None:
    names = {True: "ba", False: "ab"}
    qemu = FakeQemu(AB)
    for running, reason in ((True, "running"), (False, "shutdown")):
        calls = [(phase, name) for phase in Pass for name in names[running]]
        qemu.vm(running, reason, calls)
    known = Criteria(devices=2, migrates=False, same_depth=True)
    assert rules(source(qemu, known)) == {"order"}
    # The order is right if b is deeper in the qdev tree than a.
    depths = Criteria(devices=2, migrates=False)
    assert source(qemu, depths).verdict is PASS


@pytest.mark.parametrize("phase", Pass)
@pytest.mark.parametrize("twice", [True, False])
def test_a_device_left_out_or_called_twice(
    phase: Pass, twice: bool
) -> None:
    qemu = boot(FakeQemu(AB))
    calls = []
    for call in qemu.calls(False):
        calls += [call] * ((2 if twice else 0) if call == (phase, "a") else 1)
    qemu.vm(False, "paused", calls)
    qemu.vm(True, "running")
    judgement = source(qemu, Criteria(devices=2, migrates=False))
    assert rules(judgement) == {"count"}
    assert judgement.findings[0].devices == ("a",)


def test_no_prepare_pass_on_start() -> None:
    qemu = FakeQemu(AB)
    qemu.vm(True, "running", [(Pass.MAIN, "a"), (Pass.MAIN, "b")])
    qemu.vm(False, "shutdown")
    judgement = source(qemu, Criteria(devices=2, migrates=False))
    assert rules(judgement) == {"count"}


# --- mistakes with one device --------------------------------------------


def wrong_prepare(qemu: FakeQemu) -> None:
    boot(qemu)
    qemu.setup()
    qemu.begin(False, "finish-migrate")
    for name in "ba":
        qemu.set_state(name, S.RUNNING_P2P)
        qemu.report(
            name, Pass.PREPARE, False, "finish-migrate", S.RUNNING_P2P
        )
    for name in "ba":
        qemu.call(name, Pass.MAIN, False, "finish-migrate")
    qemu.complete()
    qemu.cleanup()


def wrong_main(qemu: FakeQemu) -> None:
    boot(qemu)
    qemu.setup()
    qemu.begin(False, "finish-migrate")
    for name in "ba":
        qemu.call(name, Pass.PREPARE, False, "finish-migrate")
    for name in "ba":
        qemu.set_state(name, S.STOP)
        qemu.report(name, Pass.MAIN, False, "finish-migrate", S.STOP)
    qemu.complete()
    qemu.cleanup()


def forbidden_arc(qemu: FakeQemu) -> None:
    migrate(qemu)
    qemu.set_state("a", S.STOP_COPY)
    qemu.set_state("a", S.PRE_COPY, recover=S.RUNNING)
    qemu.set_state("a", S.STOP)


def early_stop(qemu: FakeQemu) -> None:
    boot(qemu)
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.complete(stop=True)
    qemu.cleanup()


def cleanup_before_the_end(qemu: FakeQemu) -> None:
    boot(qemu)
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.complete()
    qemu.cleanup()
    qemu.status("completed")


def cleanup_between(qemu: FakeQemu) -> None:
    boot(qemu)
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    for device in AB:
        qemu.devices = devices(device)
        qemu.complete()
        qemu.cleanup()
    qemu.devices = AB


def no_stop(qemu: FakeQemu) -> None:
    boot(qemu)
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.complete()
    qemu.cleanup(stop=False)


def stop_in_precopy(qemu: FakeQemu) -> None:
    boot(qemu)
    qemu.setup()
    for device in qemu.devices:
        qemu.set_state(device, S.STOP)
        qemu.emit(Kind.SAVE_CLEANUP, "vfio_save_cleanup", device=device)


def failed_prepare(qemu: FakeQemu) -> None:
    boot(qemu)
    qemu.begin(False, "paused")
    qemu.call("b", Pass.PREPARE, False, "paused")
    qemu.lines.append("qemu: a: Failed setting device state to RUNNING_P2P")
    qemu.kinds.append(Kind.MESSAGE)
    qemu.set_state("a", S.RUNNING_P2P, reached=S.RUNNING)
    qemu.report("a", Pass.PREPARE, False, "paused", S.RUNNING_P2P)
    for name in "ba":
        qemu.call(name, Pass.MAIN, False, "paused")


def in_error(qemu: FakeQemu) -> None:
    migrate(qemu)
    qemu.set_state("a", S.RUNNING, reached=S.ERROR)


@pytest.mark.parametrize(
    ("break_it", "rule"),
    [
        (wrong_prepare, "prepare-target"),
        (wrong_main, "main-target"),
        (forbidden_arc, "arcs"),
        (early_stop, "stop-copy"),
        (cleanup_before_the_end, "stop-copy"),
        (cleanup_between, "stop-copy"),
        (no_stop, "left"),
        (stop_in_precopy, "stop-copy"),
        (failed_prepare, "reached"),
    ],
)
@pytest.mark.parametrize("version", ["8.2", "9.0", "9.1", "11.1"])
def test_each_rule_finds_its_mistake(
    break_it: Callable[[FakeQemu], None], rule: str, version: str
) -> None:
    qemu = FakeQemu(AB, version)
    break_it(qemu)
    judgement = source(qemu)
    # In these cases the device also disagrees with its VM's run state.
    astray = break_it in (forbidden_arc, stop_in_precopy)
    assert rules(judgement) == {rule, *(["run-state"] if astray else [])}
    for finding in judgement.findings:
        assert set(finding.devices) & {"a", "b"}
        assert all(name in finding.message for name in finding.devices)
        assert finding.records


def test_a_device_in_error() -> None:
    qemu = FakeQemu(AB)
    in_error(qemu)
    assert rules(source(qemu)) == {"reached", "left"}


def test_destination_that_skips_p2p() -> None:
    qemu = FakeQemu(AB)
    qemu.load()
    qemu.vm(True, "running", [(Pass.MAIN, "a"), (Pass.MAIN, "b")])
    assert rules(destination(qemu)) == {"p2p", "count", "destination"}


def loaded() -> FakeQemu:
    """A destination whose devices leave RESUMING by themselves."""
    qemu = FakeQemu(AB)
    qemu.load()
    for device in AB:
        qemu.set_state(device, S.STOP)
    return qemu


def test_destination_that_leaves_resuming_by_itself() -> None:
    good = loaded()
    good.vm(True, "running")
    causes = [
        arc.cause
        for arc in good.timeline(Side.DESTINATION).arcs_of("a")
        if arc.requested is S.STOP
    ]
    assert causes == [Cause.LOADED]
    assert destination(good).verdict is PASS
    bad = loaded()
    bad.vm(True, "running", [(Pass.MAIN, "a"), (Pass.MAIN, "b")])
    assert "destination" in rules(destination(bad))


def test_destination_left_in_resuming() -> None:
    qemu = FakeQemu(AB)
    qemu.load()
    judgement = destination(qemu)
    assert judgement.verdict is UNCLEAR     # The VM never started.
    right = qemu.calls(True)
    qemu.vm(True, "running", [call for call in right if call[1] == "a"])
    assert "left" in rules(destination(qemu))


def test_flags_of_the_devices_are_respected() -> None:
    qemu = migrate(FakeQemu(AB))
    told = Criteria(devices=2, flags={"b": P2P})
    judgement = source(qemu, told)
    assert rules(judgement) == {"arcs"}
    assert {f.devices for f in judgement.findings} == {("b",)}


def test_json() -> None:
    qemu = FakeQemu(AB)
    early_stop(qemu)
    judgement = judge(
        qemu.timeline(),
        receive(FakeQemu(AB)).timeline(Side.DESTINATION),
        SERIES,
    )
    document = json.loads(json.dumps(judgement.as_json()))
    assert document["format"] == 1
    assert document["verdict"] == "fail"
    finding = document["findings"][0]
    assert finding["rule"] == "stop-copy"
    assert finding["side"] == "source"
    assert finding["devices"] == ["a"]
    line = finding["lines"][0]
    assert line["file"] == "source.log"
    assert qemu.lines[line["line"] - 1] == line["text"]
    assert document["blackout"]["exact"]


def test_rules_explain_themselves() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.reason.endswith(".")
        assert rule.reason.count(". ") == 0
        assert rule.source
