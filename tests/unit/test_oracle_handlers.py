# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule handlers: a virtio device bears witness to both passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from qemu_log import FakeQemu, devices
from vfio_p2p.oracle import Criteria, Finding, judge
from vfio_p2p.oracle.judge import apply
from vfio_p2p.oracle.model import Doubt, Rule
from vfio_p2p.oracle.rules import RULES
from vfio_p2p.timeline import Pass, Side
from vfio_p2p.trace import Kind

WANTED = replace(Criteria.of_patches(6, devices=2), witness=True)
(RULE,) = (
    x for x in RULES if isinstance(x, Rule) and x.name == "handlers"
)


class Witnessed(FakeQemu):
    """A QEMU with a virtio device, which is deeper than the others.

    :param early: The pass in which its handler is called before others are.
    """

    prepare_calls = 0
    main_calls = 1

    def virtio(self, times: int) -> None:
        """Call the handler of the virtio device."""
        for _ in range(times):
            self.emit(
                Kind.OTHER, "virtio_set_status", vdev=0x5555, value=0
            )

    def vm(self, running: bool, reason: str, calls: object = None) -> None:
        """Change the run state, with the device in its place."""
        self.begin(running, reason)
        order: list[tuple[Pass, str]] = self.calls(running)
        for phase, times in (
            (Pass.PREPARE, self.prepare_calls),
            (Pass.MAIN, self.main_calls),
        ):
            # The deepest one is first to stop, and last to start.
            if not running:
                self.virtio(times)
            for found, device in order:
                if found is phase:
                    self.call(device, phase, running, reason)
            if running:
                self.virtio(times)


def source(
    prepare: int = 0,
    main: int = 1,
    version: str = "10.0",
    *,
    notify: bool = True,
) -> Witnessed:
    """A source with a witness that is called this often in each pass."""
    qemu = Witnessed(devices("a", "b"), version, notify=notify)
    # A reset sets the status as well, before the VM starts.
    qemu.virtio(1)
    qemu.prepare_calls, qemu.main_calls = prepare, main
    qemu.vm(True, "running")
    qemu.setup()
    qemu.vm(False, "finish-migrate")
    qemu.complete()
    qemu.begin_ns += 2_000_000_000
    qemu.status("completed")
    qemu.cleanup()
    return qemu


def found(
    qemu: FakeQemu, criteria: Criteria = WANTED
) -> list[Finding | Doubt]:
    def all_of() -> Iterator[Finding | Doubt]:
        yield from apply(RULE, qemu.timeline(Side.SOURCE), criteria)

    return list(all_of())


@pytest.mark.parametrize("version", ["8.2", "10.0"])
def test_once_in_each_main_pass(version: str) -> None:
    qemu = source(version=version)
    assert found(qemu) == []
    timeline = qemu.timeline(Side.SOURCE)
    findings = judge(timeline, None, WANTED).findings
    assert findings == ()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        pytest.param(lambda: source(prepare=1), "ran 2 times", id="prepare"),
        pytest.param(lambda: source(main=0), "ran 0 times", id="skipped"),
        pytest.param(lambda: source(main=2), "ran 2 times", id="doubled"),
    ],
)
def test_any_other_number(make: Callable[[], Witnessed], why: str) -> None:
    broken = [x for x in found(make()) if isinstance(x, Finding)]
    told = [x.message for x in broken]
    for epoch in ("epoch 1 (start", "epoch 2 (stop"):
        assert any(epoch in x and why in x for x in told), told
    assert all(x.rule == "handlers" for x in broken)
    assert all(x.records for x in broken)


def test_in_the_prepare_pass_instead() -> None:
    told = [x.message for x in found(source(prepare=1, main=0))]
    # At a start, the deepest handler comes after all of the same pass.
    assert told == [
        "epoch 2 (stop, finish-migrate): the handler of a virtio device ran "
        "before the last prepare callback"
    ]


def test_what_a_guest_does_later_does_not_count() -> None:
    qemu = source()
    qemu.virtio(3)
    qemu.emit(Kind.STATUS, "migrate_set_state", status="setup")
    qemu.virtio(2)
    later = qemu.lines
    assert later[-1].endswith("val 0")
    assert found(qemu) == []


def test_other_threads_come_between() -> None:
    """Neither does their line end the change, nor does their call count."""
    qemu = source()
    status = next(x for x in qemu.lines if "migrate_set_state" in x)
    # The first one is the reset's.  At a start, the witness is called after
    # the devices, and at a stop before them.
    _, *calls = (
        n for n, x in enumerate(qemu.lines) if "virtio_set_status" in x
    )
    for at in reversed(calls):
        foreign = qemu.lines[at].replace("4242@", "7@")
        qemu.lines.insert(at + 1, foreign)
        qemu.lines.insert(at, status.replace("4242@", "7@"))
        qemu.kinds[at:at] = [Kind.STATUS, Kind.OTHER]
    assert found(qemu) == []


def test_without_the_witness_nothing_is_said() -> None:
    assert found(source(main=0), replace(WANTED, witness=False)) == []


def test_a_log_without_the_witness_proves_nothing() -> None:
    qemu = FakeQemu(devices("a", "b"))
    qemu.vm(True, "running")
    (doubt,) = found(qemu)
    assert isinstance(doubt, Doubt)
    assert "no virtio_set_status" in doubt.message


def test_a_log_without_the_begin_proves_nothing() -> None:
    doubts = found(source(notify=False))
    assert doubts
    assert all(isinstance(x, Doubt) for x in doubts)
