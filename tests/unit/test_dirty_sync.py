# SPDX-License-Identifier: GPL-2.0-or-later
"""The last sync of dirty pages, for which a stopped VM waits."""

from __future__ import annotations

from pathlib import Path

import pytest
from qemu_log import timeline
from vfio_p2p.downtime import Breakdown, PhaseName, phases
from vfio_p2p.downtime.metrics import blind, metrics
from vfio_p2p.timeline import Side
from vfio_p2p.trace.processes import role_of

N = PhaseName
DATA = Path(__file__).with_name("data")
SYNC = b"migration_bitmap_sync_end"


def lines(version: str, side: Side) -> list[bytes]:
    log = DATA / f"qemu-{version}-dirty-sync.{side}.log"
    return log.read_bytes().splitlines(keepends=True)


def real(version: str, *without: bytes) -> Breakdown:
    """Return the breakdown of a real run, without some lines."""
    source, destination = (
        timeline(
            b"".join(
                x
                for x in lines(version, side)
                if not any(text in x for text in without)
            ),
            side,
        )
        for side in Side
    )
    return phases(source, destination)


def lengths_us(found: Breakdown) -> dict[PhaseName, int]:
    names = (N.VM_STOPPED, N.DIRTY_SYNC, N.FINAL_QUERY, N.RAM)
    return {
        x.name: x.duration_ns // 1000 for x in found.phases if x.name in names
    }


# Calculated by hand from the lines of the logs.
@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            "10.0.13",
            {
                N.VM_STOPPED: 600_451 - 600_319,
                N.DIRTY_SYNC: 602_855 - 600_451,
                N.RAM: 603_240 - 602_855,
            },
        ),
        (
            "11.1.3",
            {
                N.VM_STOPPED: 192_926 - 192_778,
                N.DIRTY_SYNC: 195_493 - 192_926,
                N.FINAL_QUERY: 195_533 - 195_493,
                N.RAM: 195_719 - 195_533,
            },
        ),
    ],
)
def test_the_sync_is_a_phase(
    version: str, expected: dict[PhaseName, int]
) -> None:
    found = real(version)
    assert lengths_us(found) == expected
    assert sum(x.duration_ns for x in found.phases) == (
        found.blackout.duration_ns
    )
    assert N.DIRTY_SYNC not in {x.what for x in found.not_observable}


@pytest.mark.parametrize(
    ("version", "within"), [("10.0.13", N.RAM), ("11.1.3", N.FINAL_QUERY)]
)
def test_a_sync_that_was_not_traced(version: str, within: PhaseName) -> None:
    found = real(version, SYNC)
    assert found.phase(N.DIRTY_SYNC) is None
    (missing,) = (x for x in found.not_observable if x.what == N.DIRTY_SYNC)
    assert missing.within is within
    assert missing.why.endswith("--trace migration_bitmap_sync_end")
    whole = real(version)
    merged = blind([found, whole])
    assert metrics(found, merged) == metrics(whole, merged)


def test_syncs_of_precopy_do_not_count() -> None:
    (*_, last) = (x for x in lines("10.0.13", Side.SOURCE) if SYNC in x)
    found = real("10.0.13", last)
    assert found.phase(N.DIRTY_SYNC) is None


def test_without_the_status_the_sync_begins_at_the_stop() -> None:
    found = real("10.0.13", b"migrate_set_state")
    assert lengths_us(found)[N.DIRTY_SYNC] == 602_855 - 600_319
    (missing,) = (x for x in found.not_observable if x.what == N.VM_STOPPED)
    assert missing.within is N.DIRTY_SYNC


def test_only_a_source_prints_it() -> None:
    records = timeline(
        b"".join(lines("11.1.3", Side.SOURCE)), Side.SOURCE
    ).others
    assert {role_of(x) for x in records if x.event == SYNC.decode()} == {
        Side.SOURCE
    }
