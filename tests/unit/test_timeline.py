# SPDX-License-Identifier: GPL-2.0-or-later
"""Epochs, arcs, gaps and the blackout."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from qemu_log import FakeQemu, boot, devices, migrate, receive, timeline
from vfio_p2p.errors import TraceError
from vfio_p2p.timeline import (
    Blackout,
    Cause,
    Pass,
    Side,
    blackout,
    build,
    read_log,
)
from vfio_p2p.timeline.build import _MOST_RECORDS
from vfio_p2p.trace import VERSIONS, Kind, TraceReader
from vfio_p2p.uapi import DeviceState as S

DATA = Path(__file__).parent / "data"
REAL = {
    side: DATA / f"qemu-10.0.13-two-devices.{side}.log" for side in Side
}


def test_real_source() -> None:
    side = read_log(REAL[Side.SOURCE], Side.SOURCE)
    assert side.summary.versions == ("9.2", "10.0")
    assert side.plugged == side.devices == ("src0", "src1")
    assert side.gaps == ()
    assert [str(epoch) for epoch in side.epochs] == [
        "epoch 1 (start, running)",
        "epoch 2 (stop, finish-migrate)",
    ]
    assert [
        (step.pass_, step.device, step.requested)
        for step in side.epochs[1].steps
    ] == [
        (Pass.PREPARE, "src1", S.PRE_COPY_P2P),
        (Pass.PREPARE, "src0", S.PRE_COPY_P2P),
        (Pass.MAIN, "src1", S.STOP_COPY),
        (Pass.MAIN, "src0", S.STOP_COPY),
    ]
    assert [
        (arc.before, arc.reached, arc.cause) for arc in side.arcs_of("src0")
    ] == [
        (S.RUNNING, S.RUNNING_P2P, Cause.PREPARE),
        (S.RUNNING_P2P, S.RUNNING, Cause.MAIN),
        (S.RUNNING, S.PRE_COPY, Cause.SETUP),
        (S.PRE_COPY, S.PRE_COPY_P2P, Cause.PREPARE),
        (S.PRE_COPY_P2P, S.STOP_COPY, Cause.MAIN),
        (S.STOP_COPY, S.STOP_COPY, Cause.COMPLETE),
        (S.STOP_COPY, S.STOP, Cause.CLEANUP),
    ]
    assert side.end == {"src0": S.STOP, "src1": S.STOP}


def test_real_blackout() -> None:
    source = read_log(REAL[Side.SOURCE], Side.SOURCE)
    destination = read_log(REAL[Side.DESTINATION], Side.DESTINATION)
    found = blackout(source, destination)
    # From src1's request for PRE_COPY_P2P until dst1 is in RUNNING.
    assert found.duration_ns == (1449_685777 - 1449_648526) * 1000
    assert found.exact


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("series", [True, False])
@pytest.mark.parametrize("notify", [True, False])
def test_whole_logs_have_no_gaps(
    version: str, series: bool, notify: bool
) -> None:
    for make, side in (
        (migrate, Side.SOURCE),
        (receive, Side.DESTINATION),
    ):
        found = make(
            FakeQemu(
                devices("a", "b"), version, series=series, notify=notify
            )
        ).timeline(side)
        assert found.gaps == ()
        assert len(found.epochs) == 2
        assert set(found.end.values()) == {S.STOP}
        assert all(arc.cause is not None for arc in found.arcs)


def test_repeated_requests_of_old_versions_move_nothing() -> None:
    found = boot(FakeQemu(devices("a"), "8.1", series=False)).timeline()
    (arc,) = found.arcs
    assert (arc.before, arc.reached) == (S.RUNNING, S.RUNNING)
    assert not arc.moved


@pytest.mark.parametrize("version", ["8.2", "10.0"])
def test_cancel_has_no_gaps(version: str) -> None:
    qemu = boot(FakeQemu(devices("a", "b"), version))
    qemu.setup()
    qemu.status("cancelled")
    qemu.cleanup()
    old = version == "8.2"
    for device in ("b", "a"):
        qemu.emit(
            Kind.NOTIFIER,
            "vfio_migration_state_notifier",
            device=device,
            **({"status": "cancelled"} if old else {"type": 2}),
        )
        qemu.set_state(device, S.RUNNING)
    qemu.vm(False, "shutdown")
    found = qemu.timeline()
    assert found.gaps == ()
    assert [a.cause for a in found.arcs_of("a")][3] is Cause.NOTIFIER


def test_first_posting_of_the_series() -> None:
    lines = [
        "vfio_migration_realize  (a)",
        "vfio_migration_set_state  (a) state RUNNING_P2P",
        "vfio_vmstate_change  (a) running 0 reason paused "
        "pre state change 1 device state RUNNING_P2P",
        "vfio_migration_set_state  (a) state STOP",
        "vfio_vmstate_change  (a) running 0 reason paused "
        "pre state change 0 device state STOP",
    ]
    found = timeline("".join(f"{line}\n" for line in lines).encode())
    assert found.gaps == ()
    assert [step.pass_ for step in found.epochs[0].steps] == [
        Pass.PREPARE,
        Pass.MAIN,
    ]


def test_a_failed_request() -> None:
    qemu = boot(FakeQemu(devices("a")))
    qemu.set_state("a", S.PRE_COPY, reached=S.RUNNING)
    arc = qemu.timeline().arcs[-1]
    assert (arc.requested, arc.reached) == (S.PRE_COPY, S.RUNNING)


def test_two_runs_in_one_log() -> None:
    data = migrate(FakeQemu(devices("a"))).log()
    (gap,) = timeline(data + data).gaps
    assert gap.why == "this is the log of more than one run"


def test_a_state_that_does_not_exist() -> None:
    (gap,) = timeline(
        b"vfio_migration_set_state  (a) state UNKNOWN STATE\n"
    ).gaps
    assert "uAPI" in gap.why


def test_too_many_records() -> None:
    class Many(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"migrate_set_state new state active\n" * 1000

    reader = TraceReader(Many(), "a.log")  # type: ignore[arg-type]
    with pytest.raises(TraceError, match=f"more than {_MOST_RECORDS} lines"):
        build(reader, Side.SOURCE)


@pytest.mark.parametrize("name", ["missing", "."])
def test_unreadable(tmp_path: Path, name: str) -> None:
    with pytest.raises(TraceError) as info:
        read_log(tmp_path / name, Side.SOURCE)
    assert str(tmp_path) in info.value.what


def _blackout(version: str, notify: bool = True) -> Blackout:
    source = migrate(FakeQemu(devices("a", "b"), version, notify=notify))
    destination = receive(
        FakeQemu(devices("a", "b"), version, prefix=source.prefix)
    )
    return blackout(
        source.timeline(), destination.timeline(Side.DESTINATION)
    )


def test_blackout_of_old_versions_is_not_exact() -> None:
    found = _blackout("9.0")
    assert found.duration_ns
    assert not found.exact
    assert "from vm_state_notify" in found.note
    assert "vfio_migration_set_state" in _blackout("9.0", notify=False).note


def test_blackout_needs_times_and_one_clock() -> None:
    source = migrate(FakeQemu(devices("a")))
    late = receive(FakeQemu(devices("a")))
    bare = receive(FakeQemu(devices("a"), prefix="none"))
    early = FakeQemu(devices("a"), begin_ns=source.begin_ns - 10**10)
    receive(early)
    unready = FakeQemu(devices("a"))
    unready.load()
    for destination, note in (
        (bare, "timestamp"),
        (early, "clocks"),
        (unready, "not seen to run"),
    ):
        found = blackout(
            source.timeline(), destination.timeline(Side.DESTINATION)
        )
        assert found.duration_ns is None
        assert note in found.note
    found = blackout(
        boot(FakeQemu(devices("a"))).timeline(),
        late.timeline(Side.DESTINATION),
    )
    assert "no stop" in found.note
