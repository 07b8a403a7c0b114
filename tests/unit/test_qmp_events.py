# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP events as the only witness of a migration.

``data/events`` has the events of sealed runs with seed 42: on Debian's binary
of 11.1.3, and, as whole transcripts, on 10.0.13 with the series.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qemu_log import FakeQemu, boot, devices, migrate, receive
from qmp_events import (
    device_event,
    event,
    events_of,
    file,
    log,
    timeline_of,
)
from vfio_p2p.cli import main
from vfio_p2p.oracle import Criteria, Judgement, judge
from vfio_p2p.oracle.rules import RULES
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Cause, Pass, Side, Timeline, read_log
from vfio_p2p.trace import Backend, Kind
from vfio_p2p.uapi import DeviceState as S
from vfio_p2p.uapi import MigrationFlags

SERIES = Criteria(devices=2, p2p=True)
ANYHOW = Criteria(devices=2, p2p=True, migrates=False)
Capture = pytest.CaptureFixture[str]


def read(release: str, scenario: str, side: Side = Side.SOURCE) -> Timeline:
    return read_log(file(release, scenario, side), side)


def broken(judgement: Judgement) -> set[str]:
    return {finding.rule for finding in judgement.findings}


@pytest.mark.parametrize("release", ["10.0.13", "11.1.3"])
def test_a_real_migration(release: str) -> None:
    source, destination = (
        read(release, "two-devices", side) for side in Side
    )
    judgement = judge(source, destination, SERIES)
    assert judgement.verdict is Verdict.PASS, judgement.as_json()
    assert judgement.untraced == (
        "reached", "once", "sequence", "recover", "named",
        "switchover-ack", "cancelled",
    )
    assert source.summary.backend is Backend.QMP
    assert source.devices == ("vfio1", "vfio0") or source.devices == (
        "vfio0", "vfio1"
    )
    stop = source.epochs[-1]
    assert str(stop) == "epoch 1 (stop, finish-migrate)"
    assert [(x.pass_, x.device) for x in stop.steps] == [
        (Pass.PREPARE, "vfio1"),
        (Pass.PREPARE, "vfio0"),
        (Pass.MAIN, "vfio1"),
        (Pass.MAIN, "vfio0"),
    ]
    assert [str(x) for x in destination.epochs] == [
        "epoch 1 (start, running)", "epoch 2 (stop, shutdown)"
    ]
    causes = [arc.cause for arc in source.arcs]
    assert causes[:2] == [Cause.SETUP] * 2
    assert causes[-2:] == [Cause.CLEANUP] * 2
    assert source.summary.versions == (
        ("10.0", "10.0") if release == "10.0.13" else ("11.0", "11.1")
    )


@pytest.mark.parametrize("release", ["10.0.13", "11.1.3"])
def test_only_11_tells_when_a_blackout_begins(release: str) -> None:
    source, destination = (
        read(release, "two-devices", side) for side in Side
    )
    found = judge(source, destination, SERIES).blackout
    assert found is not None
    (first, *_) = source.epochs[-1].steps
    if release == "11.1.3":
        # vfio_migration_set_state is printed 1 us before this event.
        assert first.arcs[0].attempt is not None
        assert "pre-copy-p2p-prepare" in first.arcs[0].attempt.text
        assert (found.exact, found.note) == (True, "")
    else:
        assert not found.exact
        assert "not when it was asked to" in found.note
    assert found.start_ns == first.arcs[0].records[0].time_ns


def test_a_failure_s_notifier_without_a_barrier() -> None:
    judgement = judge(read("11.1.3", "cancelled-after-stop"), None, ANYHOW)
    assert judgement.notes == ()
    assert broken(judgement) == {"barrier"}


def test_a_device_that_runs_in_a_paused_vm() -> None:
    judgement = judge(
        read("11.1.3", "stopped-then-cancelled"),
        None,
        Criteria(devices=1, p2p=True, migrates=False),
    )
    assert judgement.notes == ()
    assert broken(judgement) == {"run-state"}


def sides(
    source: FakeQemu, destination: FakeQemu
) -> tuple[Timeline, Timeline]:
    return (
        timeline_of(log(events_of(source))),
        timeline_of(log(events_of(destination)), Side.DESTINATION),
    )


def both(source: FakeQemu, destination: FakeQemu) -> tuple[
    Judgement, Judgement
]:
    """Judge by the traces, and by the events."""
    count = Criteria(devices=len(source.devices), p2p=True)
    return (
        judge(
            source.timeline(), destination.timeline(Side.DESTINATION), count
        ),
        judge(*sides(source, destination), count),
    )


@pytest.mark.parametrize("version", ["9.1", "9.2", "10.0", "10.2", "11.1"])
@pytest.mark.parametrize(
    "flags", [MigrationFlags(7), MigrationFlags(3)]
)
def test_the_same_verdict_as_a_trace(
    version: str, flags: MigrationFlags
) -> None:
    prefix = "iso" if version > "10.0" and version != "9.1" else "thread"
    machine = dict.fromkeys(("a", "b", "c"), flags)
    by_trace, by_events = both(
        migrate(FakeQemu(machine, version, prefix)),
        receive(FakeQemu(machine, version, prefix)),
    )
    assert by_trace.verdict is Verdict.PASS, by_trace.as_json()
    assert by_events.verdict is Verdict.PASS, by_events.as_json()


@given(
    st.permutations([(p, d) for p in Pass for d in "ab"]),
    st.sampled_from(Side),
)
def test_any_order_of_callbacks(
    calls: list[tuple[Pass, str]], where: Side
) -> None:
    """Both witnesses see an order that is wrong between devices."""
    pair = []
    for side in Side:
        qemu = FakeQemu(devices("a", "b"), "10.0")
        if side is Side.SOURCE:
            boot(qemu)
            qemu.setup()
            qemu.vm(
                False, "finish-migrate", calls if side is where else None
            )
            qemu.complete()
            qemu.status("completed")
            qemu.cleanup()
        else:
            qemu.begin_ns += 100_000_000
            qemu.load()
            qemu.vm(True, "running", calls if side is where else None)
            qemu.status("completed")
            qemu.vm(False, "shutdown")
        pair.append(qemu)
    by_trace, by_events = both(*pair)
    # A device whose callbacks are swapped ends in an odd state, which has
    # a different name in each witness.
    assert by_trace.verdict == by_events.verdict
    swapped = any(
        calls.index((Pass.MAIN, d)) < calls.index((Pass.PREPARE, d))
        for d in "ab"
    )
    if not swapped:
        order = {"barrier", "count", "order"}
        assert broken(by_trace) & order == broken(by_events) & order


def test_without_resume() -> None:
    """A start without its event is known by the devices' states."""
    told = [
        x
        for x in events_of(receive(FakeQemu(devices("a", "b"), "10.0")))
        if x["event"] != "RESUME"
    ]
    side = timeline_of(log(told), Side.DESTINATION)
    assert [str(x) for x in side.epochs] == [
        "epoch 1 (start, running)", "epoch 2 (stop, shutdown)"
    ]
    source = timeline_of(
        log(events_of(migrate(FakeQemu(devices("a", "b"), "10.0"))))
    )
    judgement = judge(source, side, SERIES)
    assert judgement.verdict is Verdict.PASS, judgement.as_json()


@pytest.mark.parametrize("ran", [False, True])
def test_a_vm_that_never_ran(ran: bool) -> None:
    """QEMU sends no STOP for it, and asks no device to prepare."""
    told = [
        event("MIGRATION", 1000, status="setup"),
        device_event("a", "PRE_COPY", 2000),
        event("MIGRATION", 3000, status="device"),
        device_event("a", "STOP_COPY", 4000),
        *([event("STOP", 5000)] if ran else []),
        event("MIGRATION", 6000, status="completed"),
        device_event("a", "STOP", 7000),
    ]
    side = timeline_of(log(told))
    if ran:
        assert [str(x) for x in side.epochs] == [
            "epoch 1 (stop, finish-migrate)"
        ]
        assert side.arcs[1].cause is Cause.MAIN
    else:
        assert not side.epochs
        assert side.arcs[1].cause is Cause.COMPLETE
        judgement = judge(side, None, Criteria(devices=1, p2p=None))
        assert judgement.verdict is Verdict.INCONCLUSIVE
        assert not judgement.findings


def test_a_device_that_was_reset_in_the_cleanup() -> None:
    qemu = boot(FakeQemu(devices("a"), "10.0"))
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.complete()
    qemu.status("completed")
    qemu.set_state("a", S.STOP, reached=S.RUNNING)
    qemu.cleanup()
    side = timeline_of(log(events_of(qemu)))
    judgement = judge(side, None, Criteria(devices=1, p2p=True))
    assert broken(judgement) == {"run-state"}


def test_a_device_that_runs_for_no_known_reason() -> None:
    at = 10**18
    told = [event("MIGRATION", at, status="active")]
    told += [device_event("a", x, at) for x in ("PRE_COPY", "RUNNING")]
    judgement = judge(timeline_of(log(told)), None, ANYHOW)
    assert "no event tells why this device runs" in (
        judgement.notes[0].message
    )
    # A log can begin at any time.
    assert timeline_of(log(told[2:])).gaps == ()


def test_rules_about_requests_need_a_trace() -> None:
    qemu = migrate(FakeQemu(devices("a"), "10.0"))
    events = timeline_of(log(events_of(qemu)))
    witnessed = replace(SERIES, witness=True)
    for rule in RULES:
        if rule.requests:
            assert not rule.concerns(events, witnessed)
            assert rule.concerns(qemu.timeline(), witnessed) or (
                Side.SOURCE not in rule.sides
            )
            # Without a witness, there is nothing that could be observed.
            assert rule.concerns(qemu.timeline(), SERIES) is (
                Side.SOURCE in rule.sides and not rule.witness
            )
    assert "handlers" in judge(events, None, witnessed).untraced
    assert "handlers" not in judge(events, None, SERIES).untraced


def test_a_device_that_is_left_out_of_a_pass() -> None:
    qemu = boot(FakeQemu(devices("a", "b"), "10.0"))
    qemu.setup()
    qemu.vm(False, "finish-migrate", qemu.calls(False)[1:])
    qemu.complete()
    qemu.status("completed")
    qemu.cleanup()
    judgement = judge(timeline_of(log(events_of(qemu))), None, SERIES)
    assert broken(judgement) == {"count"}


def test_a_callback_for_the_same_state_has_no_event() -> None:
    """A device without P2P runs before its VM is started."""
    machine = devices("a") | {"b": MigrationFlags(5)}
    qemu = migrate(FakeQemu(machine, "10.0"))
    side = timeline_of(log(events_of(qemu)))
    assert [x.device for x in side.epochs[0].steps] == ["a", "a"]
    criteria = Criteria(devices=2, p2p=True, flags=machine)
    judgement = judge(side, None, criteria)
    assert judgement.verdict is Verdict.PASS, judgement.as_json()


def test_the_series_without_patch_1() -> None:
    qemu = boot(FakeQemu(devices("a", "b"), "10.0"))
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.complete(stop=True)
    qemu.status("completed")
    qemu.cleanup(stop=False)
    judgement = judge(timeline_of(log(events_of(qemu))), None, SERIES)
    assert broken(judgement) == {"stop-copy"}
    assert "in vfio_save_complete_precopy, not in vfio_save_cleanup" in (
        judgement.findings[0].message
    )


@pytest.mark.parametrize(
    "name", ["BLOCK_IO_ERROR", "GUEST_PANICKED", "WATCHDOG"]
)
def test_a_vm_that_stops_by_itself(name: str) -> None:
    """Its devices go to STOP, and that is no mistake."""
    at = 10**18
    events = [event("MIGRATION", at, status="active")]
    events += [device_event(x, "PRE_COPY", at) for x in "ab"]
    stop = [device_event(x, "PRE_COPY_P2P", at) for x in "ba"]
    stop += [device_event(x, "STOP", at) for x in "ba"]
    told = [*events, event(name, at), *stop, event("STOP", at)]
    assert broken(judge(timeline_of(log(told)), None, ANYHOW)) == set()
    untold = [*events, *stop, event("STOP", at)]
    judgement = judge(timeline_of(log(untold)), None, ANYHOW)
    assert broken(judgement) == {"main-target"}


def test_devices_of_one_name(capsys: Capture, tmp_path: Path) -> None:
    at = 10**18
    states = ("PRE_COPY", "PRE_COPY_P2P", "STOP_COPY", "STOP")
    told = [device_event("x", s, at) for s in states for _ in "ab"]
    (path := tmp_path / "log").write_bytes(log(told))
    assert main(["check", str(path), "--devices", "2"]) == 3
    said = capsys.readouterr().out
    assert "two devices have this name" in said
    assert "no MIGRATION event tells" in said


def test_the_vm_is_started_long_after_the_failure() -> None:
    """The exception for a failure's order does not hide finding 4."""
    qemu = boot(FakeQemu(devices("a"), "10.0"))
    qemu.setup()
    qemu.vm(False, "paused")
    qemu.status("cancelling")
    qemu.status("cancelled")
    qemu.cleanup()
    qemu.emit(
        Kind.NOTIFIER, "vfio_migration_state_notifier", device="a", type=2
    )
    qemu.set_state("a", S.RUNNING)
    qemu.vm(True, "running")
    criteria = Criteria(devices=1, p2p=True, migrates=False)
    for side in (qemu.timeline(), timeline_of(log(events_of(qemu)))):
        assert broken(judge(side, None, criteria)) == {"run-state"}
