# SPDX-License-Identifier: GPL-2.0-or-later
"""The heartbeats that come to a guest's console rather than to devices."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bundles import good_destination, good_source
from test_guest_gap import (
    AFTER_NS,
    BEFORE_NS,
    PERIOD_NS,
    beats,
    running_ns,
    stop_ns,
)
from vfio_p2p.downtime import GuestGap, NotObservable, guest_gap
from vfio_p2p.downtime.guest import LATE_NS
from vfio_p2p.oracle import Criteria, Judgement, judge
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Side, Timeline, blackout
from vfio_p2p.trace import ConsoleLog, LogEntry, continued
from vfio_p2p.trace.device import Heartbeat

CRITERIA = replace(
    Criteria.of_patches(6, devices=2), consoles=frozenset(Side)
)


def console(how: str, figures: dict[str, int]) -> ConsoleLog:
    """Make the log of a console."""
    figures = {"untimely": 0, **figures}
    end = Heartbeat("console.log", 9, 0, "the end", when="close", **figures)
    return ConsoleLog("console.log", (), 0, how, False, end)


def sides(
    source: dict[str, int] | None = None,
    destination: dict[str, int] | None = None,
    how: str = "closed",
) -> tuple[Timeline, Timeline]:
    """Make both sides of a migration, whose guest was read all the time.

    :param source: Figures that differ at the source's console.
    :param destination: Figures that differ at the destination's console.
    :param how: How the source's console ended.
    """
    before, after = good_source(), good_destination()
    last_ns = stop_ns(before) - BEFORE_NS
    first_ns = running_ns(after) + AFTER_NS
    told = (
        beats(1, last_ns - 9 * PERIOD_NS, 10, last_ns),
        beats(11, first_ns, 20, first_ns + 9 * PERIOD_NS),
    )
    return (
        replace(
            before.timeline(),
            console=console(how, {**told[0], **(source or {})}),
        ),
        replace(
            after.timeline(Side.DESTINATION),
            console=console("closed", {**told[1], **(destination or {})}),
        ),
    )


def gap_of(found: tuple[Timeline, Timeline]) -> GuestGap | NotObservable:
    """Measure the gap between both sides."""
    return guest_gap(*found, blackout(*found))


def judged(found: tuple[Timeline, Timeline]) -> Judgement:
    """Judge both sides."""
    return judge(*found, CRITERIA)


def late_ns(late: int) -> dict[str, int]:
    """Figures of a source whose last beat came after the stop."""
    return {"last_ns": stop_ns(good_source()) + late}


def test_the_gap_is_that_of_the_console() -> None:
    gap = gap_of(sides())
    assert isinstance(gap, GuestGap)
    assert gap.device == "console"
    assert (gap.rest_ns, gap.after_ns) == (BEFORE_NS, AFTER_NS)
    assert gap.bound_ns is None


def test_two_clocks_give_it_a_bound() -> None:
    before, after = sides()
    gap = gap_of((before, replace(after, bound_ns=123)))
    assert isinstance(gap, GuestGap)
    assert gap.bound_ns == 123


def test_a_beat_that_was_read_late() -> None:
    gap = gap_of(sides(late_ns(1000)))
    assert isinstance(gap, GuestGap)
    assert (gap.rest_ns, gap.pause_ns) == (0, 0)
    assert gap.start_ns == stop_ns(good_source())
    gap = gap_of(sides(late_ns(LATE_NS)))
    assert isinstance(gap, NotObservable)
    assert "a console while its VM stood" in gap.why


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (sides({"count": 0}), "no heartbeat came to the source's console"),
        (sides(None, {"count": 0}), "came to the destination's console"),
    ],
)
def test_a_gap_that_is_unknown(
    found: tuple[Timeline, Timeline], why: str
) -> None:
    gap = gap_of(found)
    assert isinstance(gap, NotObservable)
    assert why in gap.why


def test_good_consoles_pass() -> None:
    assert judged(sides()).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (sides({"count": 0}), "the console of the source had no heartbeat"),
        (sides(None, {"count": 0}), "of the destination had no heartbeat"),
        (sides({"missed": 2}), "the console of the source had 2 missed"),
        (sides(None, {"repeated": 1}), "0 missed, 1 repeated"),
        (
            sides(None, {"first": 12}),
            "heartbeat 10 at the source was followed by 12 at the dest",
        ),
    ],
)
def test_each_mistake_is_found(
    found: tuple[Timeline, Timeline], why: str
) -> None:
    judgement = judged(found)
    assert judgement.verdict is Verdict.FAIL
    (finding,) = judgement.findings
    assert finding.rule == "heartbeat"
    assert why in finding.message


def test_a_console_that_nobody_read() -> None:
    before, after = sides()
    judgement = judged((before, replace(after, console=None)))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    (note,) = judgement.notes
    assert "no log of the console of the destination" in note.message


def test_a_console_that_was_lost() -> None:
    judgement = judged(sides(how="lost"))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert any("lost the console" in x.message for x in judgement.notes)


def halves(*, whole: bool = True) -> tuple[Timeline, Timeline]:
    """Make both sides of a guest that migrates in the middle of a line."""
    before, after = sides()
    assert before.console
    assert after.console
    beats = after.console.beats
    rest = LogEntry("console.log", 2, beats.first_ns, "at 11")
    begun = LogEntry("console.log", 2, beats.first_ns - 9, "be")
    # Its reader knew the second beat as the first.
    later = replace(beats, first=12, first_ns=beats.first_ns + PERIOD_NS)
    return (
        replace(
            before,
            console=replace(before.console, lines=(begun,), cut=whole),
        ),
        replace(
            after, console=replace(after.console, lines=(rest,), beats=later)
        ),
    )


def test_a_line_that_begins_here_and_ends_there() -> None:
    assert judged(halves()).verdict is Verdict.PASS
    gap, usual = gap_of(halves()), gap_of(sides())
    assert isinstance(gap, GuestGap)
    assert isinstance(usual, GuestGap)
    assert gap.end_ns == usual.end_ns
    # Without the first half, a beat is missing.
    (finding,) = judged(halves(whole=False)).findings
    assert "followed by 12" in finding.message


def test_the_only_beat_may_be_split() -> None:
    before, after = halves()
    assert before.console
    assert after.console
    none = replace(after.console.beats, count=0, first=0, last=0)
    found = continued(before.console, replace(after.console, beats=none))
    assert (found.count, found.first, found.last) == (1, 11, 11)
    # The second half is none: its line may go on.
    open_ = replace(after.console, beats=none, cut=True)
    assert continued(before.console, open_).count == 0
