# SPDX-License-Identifier: GPL-2.0-or-later
"""The last sync of dirty pages, for which a stopped VM waits."""

from __future__ import annotations

from pathlib import Path

import pytest
from qemu_log import FakeQemu, boot, devices, receive, timeline
from vfio_p2p.downtime import Breakdown, NotObservable, PhaseName, phases
from vfio_p2p.downtime.metrics import blind, metrics
from vfio_p2p.timeline import Side
from vfio_p2p.trace import Kind
from vfio_p2p.trace.processes import role_of

N = PhaseName
DATA = Path(__file__).with_name("data")
SYNC = b"migration_bitmap_sync_end"


def lines(version: str, side: Side, of: str = "") -> list[bytes]:
    log = DATA / f"qemu-{version}-dirty-sync{of}.{side}.log"
    return log.read_bytes().splitlines(keepends=True)


def real(version: str, *without: bytes, of: str = "") -> Breakdown:
    """Return the breakdown of a real run, without some lines."""
    source, destination = (
        timeline(
            b"".join(
                x
                for x in lines(version, side, of)
                if not any(text in x for text in without)
            ),
            side,
        )
        for side in Side
    )
    return phases(source, destination)


def unseen(found: Breakdown, name: PhaseName) -> NotObservable:
    """Return what is said of a phase that is not observable."""
    assert found.phase(name) is None
    (missing,) = (x for x in found.not_observable if x.what == name)
    return missing


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
    missing = unseen(found, N.DIRTY_SYNC)
    assert missing.within is within
    assert missing.why.endswith("--trace migration_bitmap_sync_end")
    whole = real(version)
    merged = blind([found, whole])
    assert metrics(found, merged) == metrics(whole, merged)


def test_syncs_of_precopy_do_not_count() -> None:
    (*_, last) = (x for x in lines("10.0.13", Side.SOURCE) if SYNC in x)
    found = real("10.0.13", last)
    assert unseen(found, N.DIRTY_SYNC).why == (
        "no migration_bitmap_sync_end after the stop in the source's log"
    )


def test_without_the_status_the_sync_begins_at_the_stop() -> None:
    found = real("10.0.13", b"migrate_set_state")
    assert lengths_us(found)[N.DIRTY_SYNC] == 602_855 - 600_319
    assert unseen(found, N.VM_STOPPED).within is N.DIRTY_SYNC


def test_only_a_source_prints_it() -> None:
    records = timeline(
        b"".join(lines("11.1.3", Side.SOURCE)), Side.SOURCE
    ).others
    assert {role_of(x) for x in records if x.event == SYNC.decode()} == {
        Side.SOURCE
    }


def test_before_10_0_the_status_does_not_tell_of_the_stop() -> None:
    source = FakeQemu(devices("a"), "9.2", "thread")
    boot(source).setup()
    source.vm(False, "finish-migrate")
    source.emit(Kind.OTHER, SYNC.decode(), pages=1)
    source.complete()
    # The destination starts meanwhile.
    source.begin_ns += 2_000_000_000
    source.status("completed")
    source.cleanup()
    target = receive(FakeQemu(devices("a"), "9.2", "thread"))
    found = phases(source.timeline(), target.timeline(Side.DESTINATION))
    assert found.phase(N.DIRTY_SYNC) is not None
    assert found.phase(N.VM_STOPPED) is None
    assert N.VM_STOPPED not in {x.what for x in found.not_observable}


def test_devices_that_are_saved_during_the_sync() -> None:
    """With multifd, up to 11.0, their threads start before the sync."""
    found = real("10.0.13", of="-multifd")
    assert unseen(found, N.DIRTY_SYNC).why.startswith("devices were saved")
    assert lengths_us(found) == {
        N.VM_STOPPED: 518_592 - 518_460,
        N.RAM: 518_989 - 518_592,
    }
    assert [x.what for x in found.not_observable] == [N.DIRTY_SYNC]


def test_a_sync_when_all_devices_are_saved() -> None:
    """With postcopy, 8.1 has one more."""
    source = lines("10.0.13", Side.SOURCE)
    (*_, sync) = (x for x in source if SYNC in x)
    at = next(i for i, x in enumerate(source) if b"iterable-saved" in x)
    late = sync.replace(b".602855", b".604691")
    source.insert(at, late)
    side = timeline(b"".join(source), Side.SOURCE)
    destination = timeline(
        b"".join(lines("10.0.13", Side.DESTINATION)), Side.DESTINATION
    )
    assert phases(side, destination) == real("10.0.13")
