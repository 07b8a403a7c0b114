# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule switchover-ack: nobody is stopped before all are prepared."""

from __future__ import annotations

from dataclasses import replace

import pytest
from qemu_log import P2P, FakeQemu, boot, devices
from vfio_p2p.oracle import Criteria, Judgement, judge
from vfio_p2p.timeline import Side
from vfio_p2p.trace import Kind
from vfio_p2p.uapi import ALL_FLAGS, MigrationFlags

AB = devices("a", "b")
WANTED = replace(Criteria.of_patches(6, devices=2), ack=True)
RULE = "switchover-ack"
SENT = 0xFFFFFFFFEF100005
# When the source's first lines are, and when it stops its devices.
STOP_MS = 500


def source(
    version: str = "10.0",
    machine: dict[str, MigrationFlags] = AB,
    asked_ms: int | None = None,
    paused: bool = False,
) -> FakeQemu:
    """A source that stops its devices at `STOP_MS`."""
    qemu = boot(FakeQemu(machine, version, prefix_of(version)))
    start_ns = qemu.begin_ns
    qemu.setup()
    if paused:
        qemu.vm(False, "paused")
    if asked_ms is not None:
        at(qemu, start_ns, asked_ms)
        for device in machine:
            qemu.emit(
                Kind.OTHER, "vfio_state_pending", device=device,
                stopcopy=1, initial=1, dirty=0, ack=1, exact=1, final=0,
            )  # fmt: skip
    at(qemu, start_ns, STOP_MS)
    if not paused:
        qemu.vm(False, "finish-migrate")
    qemu.complete()
    qemu.begin_ns += 2_000_000_000
    qemu.status("completed")
    qemu.cleanup()
    return qemu


def destination(
    times_ms: dict[str, list[int]],
    version: str = "10.0",
    machine: dict[str, MigrationFlags] = AB,
) -> FakeQemu:
    """A destination that loads initial data at these times."""
    qemu = FakeQemu(machine, version, prefix_of(version))
    start_ns = qemu.begin_ns
    at(qemu, start_ns, 100)
    qemu.load()
    for moment, device in sorted(
        (moment, device) for device, x in times_ms.items() for moment in x
    ):
        at(qemu, start_ns, moment)
        qemu.emit(
            Kind.OTHER, "vfio_load_state", device=device, flag=SENT
        )
    at(qemu, start_ns, 1500)
    qemu.vm(True, "running")
    qemu.status("completed")
    qemu.vm(False, "shutdown")
    return qemu


def prefix_of(version: str) -> str:
    return "iso" if version == "11.1" else "thread"


def at(qemu: FakeQemu, start_ns: int, moment_ms: int) -> None:
    """Let the next line come at a time since the start."""
    qemu.begin_ns += start_ns + moment_ms * 1_000_000 - qemu.next_ns


def judged(
    first: FakeQemu, second: FakeQemu, criteria: Criteria = WANTED
) -> Judgement:
    return judge(
        first.timeline(), second.timeline(Side.DESTINATION), criteria
    )


def messages(found: Judgement) -> list[str]:
    return [x.message for x in found.findings if x.rule == RULE]


def test_all_in_time() -> None:
    found = judged(source(), destination({"a": [200], "b": [499]}))
    assert messages(found) == []
    assert not [x for x in found.notes if "initial data" in x.message]


@pytest.mark.parametrize("known", [True, None])
def test_one_is_late(known: bool | None) -> None:
    criteria = replace(WANTED, ack=known)
    late = destination({"a": [200], "b": [501]})
    (message,) = messages(judged(source(), late, criteria))
    assert "before the initial data of b were loaded 0." in message
    assert "asked b for PRE_COPY_P2P" in message


def test_one_never_is() -> None:
    (message,) = messages(judged(source(), destination({"a": [200]})))
    assert message.endswith("of b were loaded, and they never were")


def test_nobody_wants_it() -> None:
    off = replace(WANTED, ack=False)
    assert messages(judged(source(), destination({"a": [900]}), off)) == []
    # A log alone shows the capability by what the destination loads.
    unknown = replace(WANTED, ack=None)
    assert messages(judged(source(), destination({}), unknown)) == []
    assert len(messages(judged(source(), destination({})))) == 2


def test_a_device_without_precopy() -> None:
    machine = {"a": ALL_FLAGS, "b": P2P}
    criteria = replace(WANTED, flags=machine)
    found = judged(
        source(machine=machine),
        destination({"a": [200]}, machine=machine),
        criteria,
    )
    assert messages(found) == []


def test_a_vm_that_does_not_run_is_not_waited_for() -> None:
    found = judged(source(paused=True), destination({"a": [900]}))
    assert messages(found) == []


@pytest.mark.parametrize(
    ("times_ms", "late"),
    [([200, 450], 0), ([200], 2), ([200, 501], 2)],
)
def test_new_initial_data(times_ms: list[int], late: int) -> None:
    first = source("11.1", asked_ms=400)
    second = destination(dict.fromkeys("ab", times_ms), "11.1")
    assert len(messages(judged(first, second))) == late


def test_two_clocks() -> None:
    first = source().timeline()
    second = destination({"a": [200], "b": [505]}).timeline(
        Side.DESTINATION
    )
    assert messages(judge(first, second, WANTED))
    bound = replace(second, bound_ns=10_000_000)
    assert messages(judge(first, bound, WANTED)) == []
