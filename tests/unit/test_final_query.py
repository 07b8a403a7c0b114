# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU 11.1 asks its devices while the VM is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from qemu_log import FakeQemu, boot, devices, receive, timeline
from vfio_p2p.downtime import Breakdown, PhaseName, phases
from vfio_p2p.downtime.metrics import blind, metrics
from vfio_p2p.timeline import Pass, Side, Timeline
from vfio_p2p.trace import Kind

N = PhaseName
DATA = Path(__file__).with_name("data")
LINES = {
    side: (DATA / f"qemu-11.1.3-two-devices.{side}.log")
    .read_bytes()
    .splitlines(keepends=True)
    for side in Side
}
QUERY = "vfio_query_precopy_size"
PENDING = "vfio_state_pending"


def real(without: bytes = b"\0") -> Breakdown:
    """Return the breakdown of a real run, without some lines."""
    source, destination = (
        timeline(b"".join(x for x in LINES[side] if without not in x), side)
        for side in Side
    )
    return phases(source, destination)


def length_us(found: Breakdown, name: PhaseName) -> int | None:
    phase = found.phase(name)
    return None if phase is None else phase.duration_ns // 1000


def test_the_final_query_is_a_phase() -> None:
    found = real()
    assert found.blackout.duration_ns == 71_887_000
    # Calculated by hand from the lines of the log.
    assert length_us(found, N.STOP_ARCS) == 22_560 - 16_379
    assert length_us(found, N.VM_STOPPED) == 22_701 - 22_560
    assert length_us(found, N.FINAL_QUERY) == 24_691 - 22_701
    assert length_us(found, N.RAM) == 24_854 - 24_691
    assert sum(x.duration_ns for x in found.phases) == 71_887_000
    # That run was traced without the syncs.
    assert {x.name for x in found.phases} == set(N) - {N.DIRTY_SYNC}


def test_without_the_status_the_query_begins_at_the_stop() -> None:
    found = real(b"migrate_set_state")
    assert found.phase(N.VM_STOPPED) is None
    assert length_us(found, N.FINAL_QUERY) == 24_691 - 22_560
    (missing,) = (x for x in found.not_observable if x.what == N.VM_STOPPED)
    assert missing.within is N.FINAL_QUERY
    assert "--trace migrate_set_state" in missing.why


def test_an_untraced_query_is_not_observable() -> None:
    found = real(PENDING.encode())
    assert found.phase(N.FINAL_QUERY) is None
    assert length_us(found, N.RAM) == 24_854 - 22_701
    (missing,) = (x for x in found.not_observable if x.what == N.FINAL_QUERY)
    assert missing.within is N.RAM
    assert f"--trace {PENDING}" in missing.why


def test_queries_of_precopy_do_not_count() -> None:
    source = boot(FakeQemu(devices("a"), "11.1", "iso"))
    source.setup()
    pending = {
        "device": "a", "stopcopy": 1, "initial": 0, "dirty": 0, "ack": 0
    }
    source.emit(Kind.OTHER, PENDING, **pending, exact=1, final=0)
    source.vm(False, "finish-migrate")
    source.status("device")
    source.emit(Kind.OTHER, PENDING, **pending, exact=1, final=1)
    source.complete()
    started(source)
    source.status("completed")
    source.cleanup()
    side = source.timeline()
    assert [x.event for x in side.others] == [PENDING]
    found = phases(side, destination(source))
    assert length_us(found, N.FINAL_QUERY) == 250


def test_the_query_of_an_earlier_migration_does_not_count() -> None:
    source = boot(FakeQemu(devices("a"), "11.1", "iso"))
    pending = {
        "device": "a", "stopcopy": 1, "initial": 0, "dirty": 0, "ack": 0
    }
    source.setup()
    source.vm(False, "finish-migrate")
    source.status("device")
    source.emit(Kind.OTHER, PENDING, **pending, exact=1, final=1)
    source.status("failing")
    source.vm(True, "running")
    source.cleanup()
    source.status("failed")
    source.setup()
    source.vm(False, "finish-migrate")
    source.complete()
    started(source)
    source.status("completed")
    found = phases(source.timeline(), destination(source))
    assert found.blackout.duration_ns is not None
    assert found.phase(N.FINAL_QUERY) is None


def started(source: FakeQemu) -> None:
    """Let the destination tell the source that it has started."""
    source.begin_ns += 2_000_000_000


def destination(source: FakeQemu) -> Timeline:
    target = FakeQemu(source.devices, source.version, source.prefix)
    return receive(target).timeline(Side.DESTINATION)


def test_old_and_new_runs_have_common_phases() -> None:
    old_source = boot(FakeQemu(devices("a"), "10.2", "iso"))
    old_source.setup()
    old_source.vm(False, "finish-migrate")
    old_source.complete()
    old = phases(old_source.timeline(), destination(old_source))
    assert not {N.VM_STOPPED, N.FINAL_QUERY} & blind([old])
    assert not {N.VM_STOPPED, N.FINAL_QUERY} & {
        x.what for x in old.not_observable
    }
    new = real()
    merged = blind([old, new])
    assert {N.VM_STOPPED, N.FINAL_QUERY} <= merged
    figures = metrics(new, merged)
    assert figures["phase.ram-saved"] >= (24_854 - 22_560) * 1000
    assert "phase.final-query" not in figures
    untold = real(PENDING.encode())
    assert N.FINAL_QUERY in blind([untold])


def queried(*, v2: int = 1, asks: bool = True, notify: bool = True) -> (
    FakeQemu
):
    """Return a source whose devices are asked before their requests."""
    qemu = FakeQemu(devices("a", "b"), "11.1", "iso", notify=notify)
    for device in qemu.devices:
        qemu.emit(
            Kind.OTHER, "vfio_migration_init", device=device, flags=7, v2=v2,
            dirty=0,
        )  # fmt: skip
    boot(qemu)
    qemu.setup()
    if asks:
        ask(qemu, "a")
        ask(qemu, "b")
    qemu.begin(False, "finish-migrate")
    for phase, device in qemu.calls(False):
        if asks and phase is Pass.PREPARE:
            ask(qemu, device)
        qemu.call(device, phase, False, "finish-migrate")
    qemu.complete()
    started(qemu)
    qemu.status("completed")
    qemu.cleanup()
    return qemu


def ask(qemu: FakeQemu, device: str) -> None:
    qemu.emit(
        Kind.OTHER, QUERY, device=device, initial=0, dirty=0, reinit=0, ret=0
    )


def test_the_blackout_begins_before_the_first_query() -> None:
    qemu = queried()
    side = qemu.timeline()
    stop = side.epochs[-1]
    assert stop.notify is not None
    # The first query of precopy shows that queries are traced.
    assert [x.event for x in side.others if x.event == QUERY] == [QUERY] * 3
    found = phases(side, destination(qemu))
    assert found.blackout.start_ns == stop.notify.time_ns
    assert found.blackout.exact
    assert "counted from vm_state_notify" in found.blackout.note
    assert "precopy data" in found.blackout.note
    asked = [x for x in found.intervals if x.activity == "precopy-query"]
    assert [x.device for x in asked] == ["b", "a"]
    assert [x.duration_ns for x in asked] == [250_000] * 2
    assert {x.phase for x in asked} == {N.P2P_ARCS}
    assert metrics(found)["device.source:b.precopy-query"] == 250_000
    assert sum(x.duration_ns for x in found.phases) == (
        found.blackout.duration_ns
    )


def test_no_query_no_change() -> None:
    """Switchover-ack is off: QEMU asks in precopy, but not at the stop."""
    qemu = queried(asks=False)
    at = next(i for i, x in enumerate(qemu.lines) if "new state active" in x)
    qemu.lines.insert(
        at + 1,
        qemu.lines[at].split(" ")[0]
        + f" {QUERY}  (a) init 0, dirty 0, reinit 0, ret 0",
    )
    side = qemu.timeline()
    found = phases(side, destination(qemu)).blackout
    first = side.epochs[-1].steps[0].arcs[0].attempt
    assert first is not None
    assert (found.start_ns, found.exact, found.note) == (
        first.time_ns, True, ""
    )


def test_a_query_that_may_have_been_made() -> None:
    qemu = queried(asks=False)
    side = qemu.timeline()
    found = phases(side, destination(qemu)).blackout
    assert side.epochs[-1].notify is not None
    assert found.start_ns == side.epochs[-1].notify.time_ns
    assert not found.exact
    assert "vfio_query_precopy_size was not traced" in found.note


@pytest.mark.parametrize("asks", [True, False])
def test_a_query_whose_begin_is_unknown(asks: bool) -> None:
    qemu = queried(asks=asks, notify=False)
    found = phases(qemu.timeline(), destination(qemu)).blackout
    assert not found.exact
    assert "vm_state_notify was not traced" in found.note


def test_devices_that_cannot_be_asked() -> None:
    """Linux before 7.1 has no such query that could be asked for."""
    qemu = queried(v2=0, asks=False)
    found = phases(qemu.timeline(), destination(qemu)).blackout
    assert (found.exact, found.note) == (True, "")
