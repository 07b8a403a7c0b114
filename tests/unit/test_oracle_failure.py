# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules about failures, and about traffic between devices."""

from __future__ import annotations

from dataclasses import replace

import pytest
from qemu_log import FakeQemu, boot, devices, migrate, receive
from vfio_p2p.oracle import Criteria, Judgement, judge
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Pass, Side
from vfio_p2p.trace import VERSIONS, Kind
from vfio_p2p.uapi import DeviceState as S
from vfio_p2p.uapi import MigrationFlags

AB = devices("a", "b")
SERIES = Criteria.of_patches(6, devices=2)
ANYHOW = Criteria.of_patches(6, devices=2, migrates=False)
ENDS = ("cancelled", "failed")


def rules(judgement: Judgement) -> set[str]:
    return {finding.rule for finding in judgement.findings}


def of_source(qemu: FakeQemu, expect: Criteria = ANYHOW) -> Judgement:
    return judge(qemu.witnessed(), None, expect)


def notify(qemu: FakeQemu, status: str) -> None:
    """Print the notifier of a migration that ended without success."""
    old = VERSIONS.index(qemu.version) < VERSIONS.index("9.0")
    event = 3 if qemu.version == "11.1" else 2
    fields: dict[str, object] = {"status": status} if old else {"type": event}
    for device in qemu.devices:
        qemu.emit(
            Kind.NOTIFIER, "vfio_migration_state_notifier", device=device,
            **fields,
        )  # fmt: skip
        qemu.set_state(device, S.RUNNING)


def in_precopy(version: str) -> FakeQemu:
    qemu = boot(FakeQemu(AB, version))
    qemu.setup()
    return qemu


@pytest.mark.parametrize("version", ["8.2", "9.0", "9.1", "11.1"])
@pytest.mark.parametrize("status", ENDS)
@pytest.mark.parametrize("restored", [True, False])
def test_cancelled_in_precopy(
    version: str, status: str, restored: bool
) -> None:
    qemu = in_precopy(version)
    qemu.status(status)
    qemu.cleanup()
    if restored:
        notify(qemu, status)
    # The log may end here, as nothing is known of what comes next.
    assert "cancelled" not in rules(of_source(qemu))
    qemu.vm(False, "shutdown")
    judgement = of_source(qemu)
    assert rules(judgement) == (set() if restored else {"cancelled"})
    for finding in judgement.findings:
        assert finding.devices[0] in finding.message
        assert status in finding.message
        assert finding.records


@pytest.mark.parametrize("version", ["8.2", "9.0", "9.1", "11.1"])
@pytest.mark.parametrize("restored", [True, False])
def test_cancelled_after_the_stop(version: str, restored: bool) -> None:
    qemu = in_precopy(version)
    qemu.vm(False, "finish-migrate")
    qemu.status("failed")
    calls = qemu.calls(True)
    qemu.vm(True, "running", calls if restored else calls[:-1])
    qemu.cleanup()
    qemu.vm(False, "shutdown")
    assert ("cancelled" in rules(of_source(qemu))) == (not restored)


def test_a_vm_that_does_not_run_needs_no_running_devices() -> None:
    qemu = in_precopy("10.0")
    qemu.vm(False, "paused")
    qemu.status("cancelled")
    qemu.cleanup()
    qemu.status("setup")
    assert "cancelled" not in rules(of_source(qemu))


def test_the_next_migration_ends_the_wait() -> None:
    qemu = in_precopy("10.0")
    qemu.status("cancelled")
    qemu.cleanup()
    qemu.status("setup")
    assert "cancelled" in rules(of_source(qemu))


def test_a_stop_before_the_cleanup_is_too_early() -> None:
    qemu = in_precopy("10.0")
    qemu.status("failed")
    qemu.vm(False, "shutdown")
    qemu.cleanup()
    assert "cancelled" not in rules(of_source(qemu))


def test_notified_after_the_stop_with_the_follow_up() -> None:
    """The devices of a VM that is stopped stay so, until the VM starts.

    In 11.1, the notifier comes before the VM starts, and the request is its
    own, not that of the callback that follows.
    """
    qemu = in_precopy("11.1")
    qemu.vm(False, "finish-migrate")
    qemu.status("cancelling")
    for device in qemu.devices:
        qemu.emit(
            Kind.NOTIFIER, "vfio_migration_state_notifier", device=device,
            type=3,
        )  # fmt: skip
        qemu.set_state(device, S.STOP)
    qemu.vm(True, "running")
    qemu.cleanup(stop=False)
    qemu.status("cancelled")
    found = of_source(qemu)
    assert rules(found) == set()
    assert found.verdict is Verdict.PASS


def test_notified_while_the_vm_is_stopped() -> None:
    qemu = in_precopy("10.0")
    qemu.vm(False, "paused")
    qemu.status("cancelled")
    qemu.cleanup()
    notify(qemu, "cancelled")
    judgement = of_source(qemu)
    # While the first device runs, the second one does not answer it.
    assert rules(judgement) == {"barrier", "run-state"}
    found = [x for x in judgement.findings if x.rule == "run-state"]
    assert {finding.devices for finding in found} == {("a",), ("b",)}
    assert "came to RUNNING after epoch 2 (stop, paused)" in found[0].message


def test_stopped_while_the_vm_runs() -> None:
    qemu = in_precopy("10.0")
    qemu.complete()
    qemu.vm(False, "finish-migrate")
    assert "run-state" in rules(of_source(qemu))


def test_a_reset_in_the_cleanup_runs_without_its_vm() -> None:
    qemu = boot(FakeQemu(AB))
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.complete()
    qemu.status("completed")
    qemu.set_state("a", S.STOP, reached=S.RUNNING)
    qemu.cleanup()
    # The failure is not swallowed, since the migration was over before it.
    assert rules(of_source(qemu, SERIES)) == {"reached", "run-state"}


@pytest.mark.parametrize("version", ["8.2", "9.0", "9.1", "11.1"])
@pytest.mark.parametrize("status", ["completed", *ENDS])
def test_an_error_within_a_migration(version: str, status: str) -> None:
    qemu = FakeQemu(AB, version)
    qemu.status("setup")
    qemu.load()
    qemu.begin(True, "running")
    qemu.set_state("a", S.RUNNING_P2P, reached=S.RUNNING)
    qemu.report("a", Pass.PREPARE, True, "running", S.RUNNING_P2P)
    qemu.call("b", Pass.PREPARE, True, "running")
    for device in AB:
        qemu.call(device, Pass.MAIN, True, "running")
    qemu.status(status)
    side = qemu.witnessed(Side.DESTINATION)
    judgement = judge(
        migrate(FakeQemu(AB, version)).witnessed(), side, SERIES
    )
    found = [x for x in judgement.findings if x.rule == "swallowed"]
    assert bool(found) == (status == "completed")
    for finding in found:
        assert finding.side is Side.DESTINATION
        assert "a could not go to RUNNING_P2P" in finding.message
        files = [line.split(":")[0] for line in finding.lines()]
        assert files == ["a.log", "a.log", "destination.log"]


def test_an_error_before_the_migration_does_not_count() -> None:
    qemu = FakeQemu(AB)
    qemu.set_state("a", S.RUNNING_P2P, reached=S.RUNNING)
    migrate(qemu)
    assert "swallowed" not in rules(of_source(qemu, SERIES))


def with_peers(
    make: object = migrate, flags: MigrationFlags | None = None
) -> FakeQemu:
    """Two devices that have sent each other all kinds of counts."""
    qemu = FakeQemu(AB if flags is None else {"a": AB["a"], "b": flags})
    for name, number, sent in (("a", 0, 7), ("b", 1, 9)):
        device = qemu.device(name)
        device.peer_id = number
        device.peers = {1 - number: {"sent": sent, "received": 16 - sent}}
    if make is migrate:
        migrate(qemu)
    else:
        receive(qemu)
    return qemu


@pytest.mark.parametrize("side", Side)
def test_all_that_was_sent_was_received(side: Side) -> None:
    source = with_peers()
    destination = with_peers(receive)
    judgement = judge(
        source.witnessed(), destination.witnessed(Side.DESTINATION), SERIES
    )
    assert judgement.verdict is Verdict.PASS, judgement.as_json()
    wrong = source if side is Side.SOURCE else destination
    wrong.device("b").peers[0]["received"] -= 1
    judgement = judge(
        source.witnessed(), destination.witnessed(Side.DESTINATION), SERIES
    )
    (finding,) = judgement.findings
    assert (finding.rule, finding.side) == ("conservation", side)
    assert finding.devices == ("a", "b")
    assert "a sent 7 to b, which received 6" in finding.message


@pytest.mark.parametrize(
    ("device", "key"), [("a", "lost"), ("b", "doubled"), ("b", "missed")]
)
def test_no_count_may_be_other_than_zero(device: str, key: str) -> None:
    qemu = with_peers()
    qemu.device(device).peers[0 if device == "b" else 1][key] = 1
    (finding,) = of_source(qemu, SERIES).findings
    assert finding.rule == "conservation"
    assert f"1 {key}" in finding.message
    assert finding.devices == ("a", "b")


@pytest.mark.parametrize("silent", ["a", "b"])
@pytest.mark.parametrize("peers", [{}, {0: {"sent": 0}, 1: {"sent": 0}}])
def test_no_transactions_are_no_evidence(
    silent: str, peers: dict[int, dict[str, int]]
) -> None:
    expect = replace(SERIES, peers=frozenset(AB))
    qemu = with_peers()
    assert of_source(qemu, expect).verdict is Verdict.PASS
    # The device received nothing, either.
    for name in AB:
        qemu.device(name).peers = {}
    qemu.device(silent).peers = peers
    judgement = of_source(qemu, expect)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert [x.message for x in judgement.notes] == [
        f"{name} has not counted what it sent to its peers" for name in AB
    ]
    assert of_source(qemu, SERIES).verdict is Verdict.PASS


def test_lost_transactions_are_shown() -> None:
    qemu = with_peers()
    device = qemu.device("a")
    device.peers[1] |= {"sent": 20, "lost": 13}
    for seq in range(8, 21):
        for to in (1, 2):
            device.say(
                f"lost from=0 to={to} seq={seq} from_state=PRE_COPY "
                "to_state=STOP_COPY"
            )
    (finding,) = of_source(qemu, SERIES).findings
    lines = [line for line in finding.lines() if " lost from=" in line]
    assert 1 <= len(lines) <= 4
    assert all("to=1 " in line for line in lines)


def test_a_peer_that_was_never_heard_of() -> None:
    qemu = with_peers()
    qemu.device("b").peers = {}
    (finding,) = of_source(qemu, SERIES).findings
    assert "a sent 7 to b, which received 0" in finding.message


def test_a_killed_qemu_may_lose_transactions() -> None:
    qemu = with_peers()
    qemu.device("a").peers[1]["lost"] = 1
    assert "conservation" in rules(of_source(qemu, SERIES))
    qemu.device("b").state = S.RUNNING
    assert "conservation" not in rules(of_source(qemu, SERIES))


def test_a_device_without_p2p_promises_nothing() -> None:
    flags = MigrationFlags.STOP_COPY | MigrationFlags.PRE_COPY
    qemu = with_peers(flags=flags)
    qemu.device("a").peers[1]["lost"] = 1
    expect = Criteria(devices=2, flags=qemu.devices)
    assert "conservation" not in rules(of_source(qemu, expect))


def test_devices_without_peers() -> None:
    qemu = FakeQemu(AB)
    qemu.device("a").peer_id = 0
    qemu.device("a").peers = {1: {"sent": 0}}
    assert of_source(migrate(qemu), SERIES).verdict is Verdict.PASS
