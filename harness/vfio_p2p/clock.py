# SPDX-License-Identifier: GPL-2.0-or-later
"""The difference between the clocks of two hosts, and how well it is known.

A host is asked for its time many times.  The answer was made at some moment
between the question and its arrival, so that half of the round trip is a hard
bound for the error, however unequal the two directions are.  The shortest
round trip gives the best bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

Ns = Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)]
LengthNs = Annotated[int, Meta(ge=0, le=1 << 62)]


class Exchange(NamedTuple):
    """One question and its answer; all times are nanoseconds since 1970.

    :param asked_ns: When we asked, on our clock.
    :param told_ns: What the other clock showed.
    :param heard_ns: When the answer came, on our clock.
    """

    asked_ns: int
    told_ns: int
    heard_ns: int

    @property
    def round_trip_ns(self) -> int:
        """The time from the question to the answer."""
        return self.heard_ns - self.asked_ns


class ClockOffset(msgspec.Struct, frozen=True, kw_only=True):
    """How far one host's clock is ahead of another's.

    :param offset_ns: The destination's clock minus the source's.
    :param bound_ns: The offset is wrong by at most this.
    :param round_trip_ns: The shortest round trip.
    :param exchanges: The number of exchanges.
    :param via: The way that they took, e.g. ``UDP, 10.9.0.1 to 10.9.0.2``.
    """

    offset_ns: Ns
    bound_ns: LengthNs
    round_trip_ns: LengthNs
    exchanges: Annotated[int, Meta(ge=1)]
    via: str = ""


def estimate(exchanges: Iterable[Exchange], via: str = "") -> ClockOffset:
    """Estimate the offset of the clock that was asked to the one that asked.

    :param exchanges: At least one exchange.
    :param via: The way that they took.
    :raise ValueError: When there is none, or a clock was set back meanwhile.
    """
    every = list(exchanges)
    best = min(every, key=lambda x: x.round_trip_ns)
    if best.round_trip_ns < 0:
        raise ValueError("a clock was set back while it was measured")
    middle_ns = best.asked_ns + best.round_trip_ns // 2
    return ClockOffset(
        offset_ns=best.told_ns - middle_ns,
        bound_ns=-(-best.round_trip_ns // 2),
        round_trip_ns=best.round_trip_ns,
        exchanges=len(every),
        via=via,
    )


def difference(source: ClockOffset, destination: ClockOffset) -> ClockOffset:
    """Return the offset between two hosts that a third one has asked.

    :param source: The offset of the source's clock to the third clock.
    :param destination: The same for the destination's.
    """
    return ClockOffset(
        offset_ns=destination.offset_ns - source.offset_ns,
        bound_ns=source.bound_ns + destination.bound_ns,
        round_trip_ns=source.round_trip_ns + destination.round_trip_ns,
        exchanges=min(source.exchanges, destination.exchanges),
        via="; ".join(x.via for x in (source, destination) if x.via),
    )


def combine(before: ClockOffset, after: ClockOffset) -> ClockOffset:
    """Return an offset that holds for all the time between two measurements.

    Clocks drift, and the offset between two measurements is taken to be
    between them.  The result covers both with their bounds.

    :param before: The measurement before a run.
    :param after: The measurement after it.
    """
    low_ns = min(x.offset_ns - x.bound_ns for x in (before, after))
    high_ns = max(x.offset_ns + x.bound_ns for x in (before, after))
    return ClockOffset(
        offset_ns=(low_ns + high_ns) // 2,
        bound_ns=-((low_ns - high_ns) // 2),
        round_trip_ns=max(before.round_trip_ns, after.round_trip_ns),
        exchanges=before.exchanges + after.exchanges,
        via=before.via,
    )
