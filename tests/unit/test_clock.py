# SPDX-License-Identifier: GPL-2.0-or-later
"""Clock offsets: whatever the network does, the truth is within the bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vfio_p2p.clock import (
    ClockOffset,
    Exchange,
    combine,
    difference,
    estimate,
)

_DELAY_NS = st.integers(0, 10**9)
_OFFSET_NS = st.integers(-(10**12), 10**12)
_NOW_NS = 1_800_000_000_000_000_000


def _exchange(offset_ns: int, there_ns: int, back_ns: int) -> Exchange:
    return Exchange(
        _NOW_NS,
        _NOW_NS + there_ns + offset_ns,
        _NOW_NS + there_ns + back_ns,
    )


@given(_OFFSET_NS, st.lists(st.tuples(_DELAY_NS, _DELAY_NS), min_size=1))
def test_the_true_offset_is_within_the_bound(
    offset_ns: int, delays: list[tuple[int, int]]
) -> None:
    found = estimate(_exchange(offset_ns, *both) for both in delays)
    assert abs(found.offset_ns - offset_ns) <= found.bound_ns
    assert found.round_trip_ns == min(map(sum, delays))
    assert found.exchanges == len(delays)


@given(_OFFSET_NS, _OFFSET_NS, *[_DELAY_NS] * 4)
def test_so_it_is_by_way_of_a_third_clock(
    source_ns: int, destination_ns: int, a: int, b: int, c: int, d: int
) -> None:
    found = difference(
        estimate([_exchange(source_ns, a, b)]),
        estimate([_exchange(destination_ns, c, d)]),
    )
    error_ns = found.offset_ns - (destination_ns - source_ns)
    assert abs(error_ns) <= found.bound_ns


@given(_OFFSET_NS, _OFFSET_NS, *[_DELAY_NS] * 4)
def test_a_drift_is_covered(
    before_ns: int, after_ns: int, a: int, b: int, c: int, d: int
) -> None:
    found = combine(
        estimate([_exchange(before_ns, a, b)]),
        estimate([_exchange(after_ns, c, d)]),
    )
    for true_ns in (before_ns, after_ns, (before_ns + after_ns) // 2):
        assert abs(found.offset_ns - true_ns) <= found.bound_ns


def test_a_clock_that_was_set_back_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="set back"):
        estimate([Exchange(10, 5, 9)])


def test_the_bound_is_not_negative() -> None:
    one = ClockOffset(
        offset_ns=5, bound_ns=0, round_trip_ns=0, exchanges=1
    )
    assert combine(one, one).bound_ns == 0
    assert combine(one, one).offset_ns == 5
