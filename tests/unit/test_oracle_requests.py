# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules about single requests, and a cancelled migration."""

from __future__ import annotations

from dataclasses import replace

import pytest
from qemu_log import (
    FakeQemu,
    boot,
    devices,
    migrate,
    receive,
    with_logs,
)
from test_oracle import SERIES, destination, rules, source
from vfio_p2p.oracle import Criteria, judge
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Pass
from vfio_p2p.trace import VERSIONS, Kind
from vfio_p2p.uapi import DeviceState as S

AB = devices("a", "b")
STAYS = Criteria.of_patches(6, devices=2, migrates=False)


def cancel(qemu: FakeQemu) -> None:
    """Cancel in precopy: the cleanup comes first, then the notifier."""
    boot(qemu)
    qemu.setup()
    qemu.status("cancelling")
    qemu.cleanup()
    qemu.status("cancelled")
    notify(qemu)
    qemu.vm(False, "shutdown")


def notify(qemu: FakeQemu) -> None:
    """Notify the devices that the migration failed."""
    for device in qemu.devices:
        qemu.emit(
            Kind.NOTIFIER, "vfio_migration_state_notifier", device=device,
            type=2, status="cancelled",
        )
        qemu.set_state(device, S.RUNNING)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cancelled_migration_passes(version: str) -> None:
    qemu = FakeQemu(AB, version)
    cancel(qemu)
    assert source(qemu, STAYS).verdict is Verdict.PASS


@pytest.mark.parametrize("version", VERSIONS)
def test_a_migration_that_fails_late_passes(version: str) -> None:
    """The notifier asks for RUNNING, in which the devices are already."""
    qemu = boot(FakeQemu(AB, version))
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.status("failed")
    qemu.vm(True, "running")
    qemu.cleanup()
    notify(qemu)
    qemu.vm(False, "shutdown")
    assert source(qemu, STAYS).verdict is Verdict.PASS


@pytest.mark.parametrize("phase", Pass)
def test_a_request_made_twice(phase: Pass) -> None:
    qemu = boot(FakeQemu(AB))
    for name in "ba":
        qemu.call(name, Pass.PREPARE, False, "paused")
        if phase is Pass.PREPARE:
            qemu.lines[-1:-1] = [twice(qemu.lines[-3])]
    for name in "ba":
        qemu.call(name, Pass.MAIN, False, "paused")
        if phase is Pass.MAIN:
            qemu.lines[-1:-1] = [twice(qemu.lines[-3])]
    judgement = source(qemu, STAYS)
    assert rules(judgement) == {"once"}
    assert [f.devices for f in judgement.findings] == [("a",), ("b",)]
    assert len(judgement.findings[0].records) == 4


def twice(line: str) -> str:
    assert "vfio_migration_set_state " in line
    return line


def test_stop_asked_for_twice_in_the_cleanup() -> None:
    qemu = migrate(FakeQemu(AB))
    qemu.lines[-1:-1] = [twice(qemu.lines[-3])]
    assert rules(source(qemu)) == {"once"}


class StopsTwice(FakeQemu):
    """A QEMU whose cleanup asks each device for STOP twice."""

    def cleanup(self, stop: bool = True) -> None:
        for device in self.devices:
            for _ in range(2):
                self.set_state(device, S.STOP)
            self.emit(
                Kind.SAVE_CLEANUP, "vfio_save_cleanup", device=device
            )


@pytest.mark.parametrize("version", ["8.1", "9.0"])
def test_a_request_that_is_not_announced_is_told_by_the_device(
    version: str,
) -> None:
    """Without the devices' logs, a line may be missing in between."""
    qemu = migrate(StopsTwice(AB, version))
    judgement = judge(qemu.witnessed(), None, SERIES)
    assert rules(judgement) == {"once"}
    assert "once" not in rules(source(qemu))
    # A request that was doubled in the trace alone is no repetition.
    good = migrate(FakeQemu(AB, version))
    logs = good.device_logs()
    good.lines[-1:-1] = [good.lines[-2]]
    found = judge(with_logs(good.timeline(), logs), None, SERIES)
    assert "once" not in rules(found)


@pytest.mark.parametrize("version", ["9.1", "10.0", "11.1"])
@pytest.mark.parametrize(
    ("state", "right", "wrong"),
    [
        (S.PRE_COPY, S.RUNNING, S.ERROR),
        (S.PRE_COPY_P2P, S.ERROR, S.RUNNING),
        (S.STOP_COPY, S.ERROR, S.STOP),
        (S.STOP_COPY, S.STOP, S.ERROR),
        (S.STOP, S.ERROR, S.STOP_COPY),
    ],
)
def test_a_wrong_recover_state(
    state: S, right: S, wrong: S, version: str
) -> None:
    qemu = migrate(FakeQemu(AB, version))
    old = f"new state {state.name}, recover state {right.name}"
    new = f"new state {state.name}, recover state {wrong.name}"
    assert any(line.endswith(old) for line in qemu.lines)
    qemu.lines = [
        line.removesuffix(old) + new if line.endswith(old) else line
        for line in qemu.lines
    ]
    judgement = source(qemu)
    assert rules(judgement) == {"recover"}
    assert f"in {wrong.name} " in judgement.findings[0].message


def test_a_wrong_recover_state_before_patch_1() -> None:
    qemu = boot(FakeQemu(AB))
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.complete(stop=True)
    qemu.cleanup()
    expect = replace(SERIES, stop_in_cleanup=False)
    assert source(qemu, expect).verdict is Verdict.PASS
    qemu.lines = [
        line.replace("state STOP, recover state ERROR", "state STOP, recover "
                     "state STOP")
        for line in qemu.lines
    ]
    assert rules(source(qemu, expect)) == {"recover"}


def test_a_wrong_recover_state_on_the_destination() -> None:
    qemu = receive(FakeQemu(AB))
    qemu.lines = [
        line.replace("RESUMING, recover state RUNNING", "RESUMING, recover "
                     "state ERROR")
        for line in qemu.lines
    ]
    assert rules(destination(qemu)) == {"recover"}


def test_a_state_without_a_name() -> None:
    qemu = migrate(FakeQemu(AB))
    qemu.lines = [
        line.replace("PRE_COPY_P2P", "UNKNOWN STATE") for line in qemu.lines
    ]
    judgement = source(qemu)
    assert "named" in rules(judgement)
    found = [f for f in judgement.findings if f.rule == "named"]
    assert {f.devices for f in found} == {("a",), ("b",)}
    assert all("UNKNOWN STATE" in r.text for f in found for r in f.records)
