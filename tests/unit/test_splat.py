# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors on a kernel's console are seen, and nothing else is."""

from __future__ import annotations

import pytest
from vfio_p2p.places.sealed.selftest import read_console
from vfio_p2p.places.sealed.splat import splats

GOOD = """\
[    0.000000] Linux version 6.12.95-p2p-debug
[    4.223487] p2psim src0: Adding to iommu group 0
[    9.100000] p2psim: probe of b failed with error -17
[    0.000000] kasan: shadow region at 0xfffffc0000000000
[    0.100000] kmemleak: Kernel memory leak detector initialized
[   66.614609] reboot: Power down
"""


@pytest.mark.parametrize(
    "line",
    [
        "BUG: KASAN: slab-use-after-free in p2psim_close+0x12/0x30 [p2psim]",
        "WARNING: possible circular locking dependency detected",
        "WARNING: CPU: 0 PID: 12 at lib/debugobjects.c:514 debug_print+0x1",
        "BUG: sleeping function called from invalid context at mutex.c:585",
        "UBSAN: shift-out-of-bounds in images/p2psim/save.c:12:3",
        "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug)",
        "kmemleak: Kernel memory leak detector disabled",
        "INFO: task p2psim-dma/a:45 blocked for more than 120 seconds.",
        "Kernel panic - not syncing: Fatal exception",
        "general protection fault, probably for non-canonical address 0x1",
    ],
)
def test_each_kind_is_seen(line: str) -> None:
    console = f"{GOOD}[    5.000000] {line}\n Call Trace:\n"
    assert splats(console) == (f"[    5.000000] {line}",)


def test_what_is_regular() -> None:
    assert splats(GOOD) == ()
    assert splats("") == ()
    many = "BUG: a\n" * 99
    assert len(splats(many)) == 5


def test_the_selftest_fails_with_the_kernel() -> None:
    console = (
        "1..1\nok 1 - x\nWARNING: possible recursive locking detected\n"
        "testbed: the selftest ended with 0\n"
    )
    found = read_console(console)
    assert found.passed == 1
    (why,) = found.failed
    assert "recursive locking" in why


def test_a_warning_of_linux_itself() -> None:
    warning = "WARNING: CPU: 0 PID: 35 at vfio_group_{}+0x7e/0x90"
    case = "ok 1 - mkdir: each of 79 allocations refused once, 39 errors"
    console = (
        f"{case}\n{warning}\n1..1\n"
        "testbed: the selftest ended with 0\n"
    )
    assert read_console(console.format("release")).failed == ()
    assert len(read_console(console.format("open")).failed) == 1
    # Nothing else gets there.
    early = f"{warning.format('release')}\n{console.format('release')}"
    assert len(read_console(early).failed) == 1
    assert len(splats(console.format("release"))) == 1
