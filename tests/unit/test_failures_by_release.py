# SPDX-License-Identifier: GPL-2.0-or-later
"""Cancelled and failed migrations, as each release of QEMU prints them.

The logs in ``data/failures`` are of sealed runs of the library's scenarios
with the seed 42, without the lines that no rule reads: the series on 10.0.13,
10.2.2 as it is, and Debian's binary of 11.1.3.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from qemu_log import FakeQemu, boot, devices, timeline
from vfio_p2p.oracle import Criteria, Judgement, judge
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Cause, Side, read_log
from vfio_p2p.trace import VERSIONS, Kind
from vfio_p2p.uapi import DeviceState as S
from vfio_p2p.uapi import MigrationFlags

DATA = Path(__file__).with_name("data") / "failures"
OLD = ("10.0.13", "10.2.2")
NEW = "11.1.3"
# From this release on, the notifier comes before vm_state_notify().
NOTIFIED_FIRST = "11.0"
AB = devices("a", "b")


def judged(release: str, scenario: str, count: int) -> Judgement:
    side = read_log(
        DATA / f"qemu-{release}-{scenario}.source.log", Side.SOURCE
    )
    return judge(
        side, None, Criteria.of_patches(6, count, migrates=False)
    )


def broken(judgement: Judgement) -> list[str]:
    assert not judgement.notes, judgement.as_json()
    return [finding.rule for finding in judgement.findings]


@pytest.mark.parametrize("release", [*OLD, NEW])
@pytest.mark.parametrize(
    "scenario", ["one-device-cancelled", "stream-cut-in-device-state"]
)
def test_a_failure_that_breaks_nothing(release: str, scenario: str) -> None:
    assert broken(judged(release, scenario, 1)) == []


@pytest.mark.parametrize(
    "scenario",
    ["one-device-cancelled-after-stop", "cancelled-then-migrated"],
)
def test_more_failures_of_11_1_that_break_nothing(scenario: str) -> None:
    assert broken(judged(NEW, scenario, 1)) == []


@pytest.mark.parametrize("release", [*OLD, NEW])
def test_a_device_that_runs_in_a_stopped_vm(release: str) -> None:
    judgement = judged(release, "stopped-then-cancelled", 1)
    assert broken(judgement) == ["run-state"]


@pytest.mark.parametrize("release", OLD)
def test_a_cancelled_migration_with_a_barrier(release: str) -> None:
    assert broken(judged(release, "cancelled-after-stop", 2)) == []


def test_a_cancelled_migration_without_a_barrier() -> None:
    judgement = judged(NEW, "cancelled-after-stop", 2)
    assert broken(judgement) == ["barrier"]
    (finding,) = judgement.findings
    assert finding.message == (
        "the migration state notifier started src1 while src0 was in "
        "STOP_COPY"
    )
    shown = [line.partition("vfio_")[2] for line in finding.lines()]
    assert shown == [
        "migration_set_device_state  (src0) state STOP_COPY",
        "migration_set_device_state  (src1) state RUNNING",
    ]


@pytest.mark.parametrize("scenario", ["cancelled-after-stop"])
@pytest.mark.parametrize("release", [*OLD, NEW])
def test_without_the_migration_s_own_lines(
    release: str, scenario: str
) -> None:
    """README's --trace 'vfio_*' prints no migrate_set_state."""
    path = DATA / f"qemu-{release}-{scenario}.source.log"
    side = timeline(
        b"".join(
            line
            for line in path.read_bytes().splitlines(keepends=True)
            if b"migrat" not in line or b"vfio" in line
        )
    )
    judgement = judge(
        side, None, Criteria.of_patches(6, 2, migrates=False)
    )
    assert broken(judgement) == (["barrier"] if release == NEW else [])


def notify(qemu: FakeQemu, status: str, event: int | None = None) -> None:
    """Print the notifier of a migration that ended without success."""
    old = VERSIONS.index(qemu.version) < VERSIONS.index("9.0")
    if event is None:
        event = 3 if qemu.version == "11.1" else 2
    fields: dict[str, object] = {"status": status} if old else {"type": event}
    for device in reversed(qemu.devices):
        qemu.emit(
            Kind.NOTIFIER, "vfio_migration_state_notifier", device=device,
            **fields,
        )  # fmt: skip
        qemu.set_state(device, S.RUNNING)


def fail(
    qemu: FakeQemu, status: str, *, starts: bool, event: int | None = None
) -> None:
    """Print the end of a migration that fails, in the release's order."""
    at = VERSIONS.index(qemu.version)
    if at >= VERSIONS.index(NOTIFIED_FIRST):
        qemu.status("failing" if status == "failed" else "cancelling")
        notify(qemu, status, event)
        if starts:
            qemu.vm(True, "running")
        qemu.cleanup()
        qemu.status(status)
        return
    if status == "cancelled":
        qemu.status("cancelling")
    else:
        qemu.status(status)
    if starts:
        qemu.vm(True, "running")
    qemu.cleanup()
    if status == "cancelled":
        qemu.status(status)
    notify(qemu, status, event)


def of(qemu: FakeQemu, criteria: Criteria | None = None) -> Judgement:
    return judge(
        qemu.witnessed(), None,
        criteria or Criteria.of_patches(6, 2, migrates=False),
    )  # fmt: skip


# 11.0 was not seen: it may have the numbers of either neighbour.
EVENTS = [(version, None) for version in VERSIONS[1:]] + [("11.0", 3)]


@pytest.mark.parametrize(("version", "event"), EVENTS)
@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_in_precopy(version: str, event: int | None, status: str) -> None:
    qemu = boot(FakeQemu(AB, version))
    qemu.setup()
    fail(qemu, status, starts=False, event=event)
    qemu.vm(False, "shutdown")
    assert broken(of(qemu)) == []
    restored = [
        arc for arc in qemu.timeline().arcs if arc.before is S.PRE_COPY
    ]
    assert [arc.cause for arc in restored] == [Cause.NOTIFIER] * 2


@pytest.mark.parametrize(("version", "event"), EVENTS)
@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_after_the_stop(
    version: str, event: int | None, status: str
) -> None:
    qemu = boot(FakeQemu(AB, version))
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    fail(qemu, status, starts=True, event=event)
    qemu.vm(False, "shutdown")
    new = VERSIONS.index(version) >= VERSIONS.index(NOTIFIED_FIRST)
    assert broken(of(qemu)) == (["barrier"] if new else [])


@pytest.mark.parametrize(("version", "event"), EVENTS)
def test_in_a_paused_vm(version: str, event: int | None) -> None:
    qemu = boot(FakeQemu(devices("a"), version))
    qemu.setup()
    qemu.vm(False, "paused")
    fail(qemu, "cancelled", starts=False, event=event)
    criteria = Criteria.of_patches(6, 1, migrates=False)
    assert broken(of(qemu, criteria)) == ["run-state"]


def test_one_device_needs_no_barrier() -> None:
    qemu = boot(FakeQemu(devices("a"), "11.1"))
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    fail(qemu, "cancelled", starts=True)
    criteria = Criteria.of_patches(6, 1, migrates=False)
    assert broken(of(qemu, criteria)) == []


def test_a_device_without_p2p_is_not_concerned() -> None:
    qemu = boot(FakeQemu(devices("a") | {"b": MigrationFlags(5)}, "11.1"))
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    fail(qemu, "cancelled", starts=True)
    criteria = Criteria(
        devices=2, p2p=True, migrates=False, flags=qemu.devices
    )
    assert broken(of(qemu, criteria)) == []


def test_many_devices_are_one_finding() -> None:
    qemu = boot(FakeQemu(devices("a", "b", "c", "d"), "11.1"))
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    fail(qemu, "failed", starts=True)
    (finding,) = of(
        qemu, Criteria.of_patches(6, 4, migrates=False)
    ).findings
    assert finding.devices == ("d", "a", "b", "c")


def test_a_vm_that_is_started_much_later() -> None:
    """The device runs in a paused VM, whatever its user does later."""
    qemu = boot(FakeQemu(devices("a"), "11.1"))
    qemu.setup()
    qemu.vm(False, "paused")
    fail(qemu, "cancelled", starts=False)
    qemu.vm(True, "running")
    criteria = Criteria.of_patches(6, 1, migrates=False)
    assert broken(of(qemu, criteria)) == ["run-state"]


@pytest.mark.parametrize("traced", ["status", "notify"])
def test_done_is_no_failure(traced: str) -> None:
    """11.1 tells of success with the number that failures had before.

    A device without P2P that `cont` starts afterwards is not the notifier's.
    """
    qemu = boot(FakeQemu({"a": MigrationFlags(5)}, "11.1"))
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.complete()
    if traced == "status":
        qemu.status("completed")
    qemu.cleanup()
    qemu.emit(
        Kind.NOTIFIER, "vfio_migration_state_notifier", device="a", type=2
    )
    qemu.notify = traced == "notify"
    qemu.vm(True, "running")
    log = qemu.lines
    if traced == "notify":
        log = [x for x in log if "migrate_set_state" not in x]
    side = timeline(qemu.log(log))
    assert side.arcs[-1].cause is Cause.MAIN
    assert Cause.NOTIFIER not in {arc.cause for arc in side.arcs}


def test_failing_is_not_the_end() -> None:
    qemu = boot(FakeQemu(AB, "11.1"))
    qemu.setup()
    qemu.status("failing")
    (migration,) = qemu.timeline().migrations
    assert migration.end is None
    qemu.status("failed")
    (migration,) = qemu.timeline().migrations
    assert migration.end is not None
    assert not migration.completed
    assert of(qemu).verdict is not Verdict.PASS
