# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the guest was gone, as its devices saw it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import good_destination, good_source, make_bundle
from qemu_log import FakeQemu
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.downtime import GuestGap, NotObservable
from vfio_p2p.downtime.guest import guest_gap
from vfio_p2p.downtime.metrics import metrics
from vfio_p2p.report import figures
from vfio_p2p.report.collect import collect
from vfio_p2p.report.mail import render
from vfio_p2p.timeline import Blackout, Side, Timeline, blackout
from vfio_p2p.timeline.blackout import final_stop, last_running
from vfio_p2p.trace import Backend
from vfio_p2p.verdict.reading import read_run

PERIOD_NS = 1_000_000
# Before QEMU reports the stop, and after the last device is RUNNING.
BEFORE_NS = 300_001
AFTER_NS = 700_002


def beats(
    first: int, first_ns: int, last: int, last_ns: int, **other: int
) -> dict[str, int]:
    """Return what a device logs about a guest that beats evenly."""
    return {
        "count": last - first + 1,
        "first": first,
        "first_ns": first_ns,
        "last": last,
        "last_ns": last_ns,
        "gap_start_ns": last_ns - PERIOD_NS,
        "gap_end_ns": last_ns,
        "missed": 0,
        "repeated": 0,
        "untimely": 0,
        **other,
    }


def stop_ns(source: FakeQemu) -> int:
    """Return when the last run-state change of a source began."""
    stop = final_stop(source.timeline())
    assert stop is not None
    assert stop.notify is not None
    assert stop.notify.time_ns is not None
    return stop.notify.time_ns


def running_ns(destination: FakeQemu) -> int:
    """Return when the last device of a destination ran."""
    record = last_running(destination.timeline(Side.DESTINATION))
    assert record is not None
    assert record.time_ns is not None
    return record.time_ns


def heard(
    *, source: Mapping[str, int] = {}, destination: Mapping[str, int] = {}
) -> tuple[FakeQemu, FakeQemu]:
    """Make both sides of a migration, with devices that got all beats.

    :param source: Values that differ for the source's second device.
    :param destination: Values that differ for the destination's second one.
    """
    sides = good_source(), good_destination()
    last_ns = stop_ns(sides[0]) - BEFORE_NS
    first_ns = running_ns(sides[1]) + AFTER_NS
    told = (
        beats(1, last_ns - 9 * PERIOD_NS, 10, last_ns),
        beats(11, first_ns, 20, first_ns + 9 * PERIOD_NS),
    )
    for qemu, one, other in zip(
        sides, told, (source, destination), strict=True
    ):
        first, second = qemu.devices
        qemu.device(first).heartbeat = one
        qemu.device(second).heartbeat = {**one, **other}
    return sides


def witnessed(sides: tuple[FakeQemu, FakeQemu]) -> tuple[Timeline, Timeline]:
    return sides[0].witnessed(), sides[1].witnessed(Side.DESTINATION)


def gap_of(
    sides: tuple[FakeQemu, FakeQemu],
) -> tuple[GuestGap | NotObservable, Blackout]:
    source, destination = witnessed(sides)
    whole = blackout(source, destination)
    return guest_gap(source, destination, whole), whole


def unseen(sides: tuple[FakeQemu, FakeQemu]) -> str:
    """Return why the gap cannot be told."""
    found, _ = gap_of(sides)
    assert isinstance(found, NotObservable)
    assert found.what == "guest-visible gap"
    return found.why


def test_its_parts_are_the_gap() -> None:
    found, whole = gap_of(heard())
    assert isinstance(found, GuestGap)
    assert whole.duration_ns is not None
    assert (found.rest_ns, found.pause_ns) == (BEFORE_NS, 0)
    assert found.after_ns == AFTER_NS
    assert found.stop_request_ns > 0
    assert found.duration_ns == (
        BEFORE_NS + found.stop_request_ns + whole.duration_ns + AFTER_NS
    )
    assert found.period_ns == PERIOD_NS
    assert found.longest_ns == found.duration_ns


@pytest.mark.parametrize(
    ("early_ns", "rest_ns"),
    [(200_001, 100_000), (400_000, 0), (-1, BEFORE_NS)],
)
def test_pausing_the_vcpu(early_ns: int, rest_ns: int) -> None:
    # QEMU begins this long before it reports the stop.  After that report,
    # the line would belong to another stop.
    sides = heard()
    source, destination = witnessed(sides)
    said = source.marks[0]._replace(
        event="vmstate_downtime_checkpoint",
        time_ns=stop_ns(sides[0]) - early_ns,
        fields={"checkpoint": "src-downtime-start"},
    )
    found = guest_gap(
        replace(source, others=(said,)),
        destination,
        blackout(source, destination),
    )
    assert isinstance(found, GuestGap)
    assert found.rest_ns == rest_ns
    assert found.rest_ns + found.pause_ns == BEFORE_NS


def test_explained_gaps() -> None:
    found, _ = gap_of(heard())
    assert isinstance(found, GuestGap)
    assert found.explained
    long = replace(found, start_ns=found.begin_ns - 2 * PERIOD_NS)
    assert not long.explained
    assert replace(long, start_ns=long.start_ns + 1).explained


def test_the_guest_may_be_as_slow_as_before() -> None:
    slow = {"gap_start_ns": 10**9, "gap_end_ns": 10**9 + 5 * PERIOD_NS}
    # The second device is the slow one, and waited longest.
    later = {"first_ns": running_ns(good_destination()) + AFTER_NS + 1}
    found, _ = gap_of(heard(source=slow, destination=later))
    assert isinstance(found, GuestGap)
    assert found.slowest_beat_ns == 5 * PERIOD_NS
    long = replace(found, start_ns=found.begin_ns - 5 * PERIOD_NS)
    assert not long.explained
    assert replace(long, start_ns=long.start_ns + 1).explained


def test_the_device_that_waited_longest() -> None:
    later_ns = running_ns(good_destination()) + AFTER_NS + 123
    found, _ = gap_of(heard(destination={"first_ns": later_ns}))
    assert isinstance(found, GuestGap)
    assert (found.device, found.after_ns) == ("dst1", AFTER_NS + 123)


def test_a_longer_stall_elsewhere() -> None:
    found, _ = gap_of(
        heard(source={"gap_start_ns": 10**9, "gap_end_ns": 3 * 10**9})
    )
    assert isinstance(found, GuestGap)
    assert found.longest_ns == 2 * 10**9
    assert found.duration_ns < 10**9


def test_gaps_that_cannot_be_told() -> None:
    silent = good_source(), good_destination()
    assert "no device's log has a guest's heartbeat" in unseen(silent)
    source, _ = heard()
    assert "no heartbeat came to the destin" in unseen((source, silent[1]))
    # With a beat within the blackout, the guest ran or a clock is wrong.
    early = {"first_ns": running_ns(silent[1]) - 1}
    late = {"last_ns": stop_ns(source) + 1}
    assert "device that was stopped" in unseen(heard(destination=early))
    assert "device that was stopped" in unseen(heard(source=late))


def test_another_clock() -> None:
    source, destination = witnessed(heard())
    whole = blackout(source, destination)
    summary = replace(source.summary, backend=Backend.SIMPLE)
    found = guest_gap(replace(source, summary=summary), destination, whole)
    assert isinstance(found, NotObservable)
    assert "clock" in found.why


def test_no_blackout() -> None:
    source, destination = witnessed(heard())
    found = guest_gap(source, destination, Blackout(None, False, "why not"))
    assert found == NotObservable("guest-visible gap", "why not")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    source, destination = heard()
    return make_bundle(
        tmp_path / "b", source=source, destination=destination
    )


def test_the_gap_of_a_bundle(bundle: Path) -> None:
    found = read_run(open_bundle(bundle)).breakdown
    gap = found.beside.guest_gap
    assert gap is not None
    assert not any("guest" in x.what for x in found.not_observable)
    figures_ = metrics(found)
    assert figures_["guest-gap"] == gap.duration_ns
    assert figures_["guest-gap.rest"] == BEFORE_NS
    assert figures_["guest-gap.pause"] == 0
    assert figures_["guest-gap.after"] == AFTER_NS


def test_a_bundle_without_heartbeats(tmp_path: Path) -> None:
    found = read_run(open_bundle(make_bundle(tmp_path / "b"))).breakdown
    assert found.beside.guest_gap is None
    assert found.not_observable[-1].what == "guest-visible gap"
    assert not any(name.startswith("guest") for name in metrics(found))


def test_the_gap_is_reported(bundle: Path, tmp_path: Path) -> None:
    document = collect([bundle])
    (table,) = figures.tables(document)
    rows = {row.name: row.medians[0] for row in table.beside}
    gap = document.runs[0].guest_gap
    assert gap is not None
    assert rows[figures.GUEST] == gap.duration_ns
    assert rows[figures.GUEST_REST] == BEFORE_NS
    assert rows[figures.GUEST_STOP] == gap.stop_request_ns
    assert rows[figures.GUEST_AFTER] == AFTER_NS
    text = render(document)
    assert "guest-visible gap" in text
    assert "not observable: guest-visible gap" not in text
    without = make_bundle(tmp_path / "without")
    assert "not observable: guest-visible gap" in render(collect([without]))
