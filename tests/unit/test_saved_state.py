# SPDX-License-Identifier: GPL-2.0-or-later
"""The saved state of a VM: its clock, and what depends on the host."""

from __future__ import annotations

import struct

import pytest
from vfio_p2p.errors import TestbedError
from vfio_p2p.places.sealed.saved import SavedState


def state(
    *,
    ticks: int = 1,
    clock: int = 2,
    idle_ns: int = 0,
    instructions: int = 500,
    timer_ns: int = 1234,
    more: bytes = b"",
) -> bytes:
    """A stream with the sections that matter."""
    return b"".join(
        (
            b"QEVM\0\0\0\3",
            b"\x05timer" + struct.pack(">ii", 0, 2),
            struct.pack(">qqq", ticks, 0, clock),
            b"\x05\x0ctimer/icount" + struct.pack(">i", 1),
            struct.pack(">qq", idle_ns, instructions),
            b"\x04apic" + struct.pack(">iiq", 0, 3, timer_ns),
            more,
        )
    )


@pytest.mark.parametrize("idle_ns", [0, 1, 10**9])
def test_the_time_of_being_idle_is_settled(idle_ns: int) -> None:
    usual = state(idle_ns=10**9)
    assert SavedState(state(idle_ns=idle_ns)).settled() == usual
    assert SavedState(state(idle_ns=0, more=b"x")).settled() != usual


@pytest.mark.parametrize("idle_ns", [10**9 + 1, -1])
def test_a_vm_that_was_idle_for_longer(idle_ns: int) -> None:
    with pytest.raises(TestbedError, match="was idle for"):
        SavedState(state(idle_ns=idle_ns)).settled()


def test_only_the_hosts_clocks_do_not_count() -> None:
    usual = SavedState(state()).digest
    assert SavedState(state(ticks=99, clock=-5)).digest == usual
    others = [
        state(idle_ns=2),
        state(instructions=501),
        state(timer_ns=1235),
        state(more=b"x"),
    ]
    digests = {SavedState(x).digest for x in others}
    assert len(digests) == 4
    assert usual not in digests


@pytest.mark.parametrize("data", [b"", b"QEVM", state()[:40]])
def test_a_state_without_a_clock(data: bytes) -> None:
    with pytest.raises(TestbedError, match="without its clock"):
        SavedState(data)
