# SPDX-License-Identifier: GPL-2.0-or-later
"""Our statistics give the figures of published tables."""

from __future__ import annotations

import random
import tracemalloc
from statistics import NormalDist

import pytest
from vfio_p2p.downtime import stats
from vfio_p2p.downtime.effect import LEVEL
from vfio_p2p.downtime.stats import outliers, paired, together, unpaired

MS = 10**6


def scatter(rng: random.Random, count: int, by_ns: int = MS) -> list[int]:
    """Return differences that are only chance."""
    return [round(rng.gauss(0, by_ns)) for _ in range(count)]


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        # Tables of Wilcoxon's T for n = 5 to 8: T = 0, and T = 3 of n = 8.
        ([1, 2, 3, 4, 5], 2 / 32),
        ([-1, -2, -3, -4, -5], 2 / 32),
        ([1, 2, 3, 4, 5, 6], 2 / 64),
        ([4, 5, -3, 6, 7, 8, 9, 10], 4 / 256),
        ([-1, -2, 3, 4, 5, 6, 7, 8], 10 / 256),
        # All values are equal, so only the signs count.
        ([7, 7, 7, 7, 7], 2 / 32),
        ([7, 7, 7, 7, -7], 12 / 32),
        # Equal values share the mean of their ranks; counted by hand.
        ([1, 1, -2, 3], 10 / 16),
        ([1, 2, 3, 4], 2 / 16),
        ([1], 1.0),
    ],
)
def test_signed_ranks(differences: list[int], p: float) -> None:
    assert paired([x * MS for x in differences]).p == pytest.approx(p)


def test_no_difference_at_all() -> None:
    for count in (1, 5, 20):
        found = paired([0] * count)
        assert found.same
        assert not found.shown
        assert (found.low_ns, found.high_ns, found.p) == (0, 0, 1)


def test_five_pairs_can_show_what_four_cannot() -> None:
    assert paired([590_000] * 5).shown
    four = paired([590_000] * 4)
    assert not four.shown
    assert four.smallest_ns is None


def test_smallest_is_the_smallest() -> None:
    rng = random.Random(1)
    found = paired(scatter(rng, 10))
    assert found.smallest_ns is not None
    shift = round(found.smallest_ns)
    centred = [x - found.difference_ns for x in scatter(random.Random(1), 10)]
    assert paired([round(x + shift) for x in centred]).shown
    assert paired([round(x - shift) for x in centred]).shown
    less = round(shift * 0.98 - 1000)
    assert not all(
        paired([round(x + way * less) for x in centred]).shown
        for way in (1, -1)
    )


def test_smallest_holds_up_and_down() -> None:
    # Two values suffice to lift all above zero, but not to sink them below.
    found = paired([x * MS for x in (0, 1, 2, 9, 10)])
    assert found.smallest_ns == pytest.approx(8 * MS, abs=2000)


@pytest.mark.parametrize(
    ("a", "b", "p"),
    [
        # Tables of Mann and Whitney's U.
        ([1, 2, 3], [4, 5, 6], 2 / 20),
        ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], 2 / 252),
        ([1, 2, 4], [3, 5, 6], 4 / 20),
        ([5, 5, 5], [5, 5, 5], 1.0),
    ],
)
def test_rank_sums(a: list[int], b: list[int], p: float) -> None:
    found = unpaired([x * MS for x in a], [x * MS for x in b])
    assert found.p == pytest.approx(p)
    assert found.difference_ns == sorted(b)[len(b) // 2] * MS - (
        sorted(a)[len(a) // 2] * MS
    )
    assert not found.same


def test_many_runs_are_sampled_and_always_alike() -> None:
    rng = random.Random(2)
    a, b = scatter(rng, 40), [x + 3 * MS for x in scatter(rng, 40)]
    found = unpaired(a, b)
    assert found.p < 0.001
    assert found == unpaired(a, b)
    assert found.low_ns < 3 * MS < found.high_ns
    assert paired(b) == paired(b)


def test_rank_sums_of_many_runs_are_normal() -> None:
    rng = random.Random(7)
    # The values are whole microseconds, so that some of them are equal.
    a = [round(rng.gauss(50_000, 5_000)) * 1000 for _ in range(250)]
    b = [round(rng.gauss(50_500, 5_000)) * 1000 for _ in range(230)]
    # Mann and Whitney's U, counted pair by pair, and its standard deviation.
    u = sum((y > x) + (y == x) / 2 for x in a for y in b)
    count = len(a) + len(b)
    spread = (len(a) * len(b) * (count + 1) / 12) ** 0.5
    far = abs(u - len(a) * len(b) / 2) / spread
    p = 2 * (1 - NormalDist().cdf(far))
    assert 0.05 < p < 0.95
    assert unpaired(a, b).p == pytest.approx(p, abs=0.03)


def test_the_order_of_the_runs_says_nothing() -> None:
    rng = random.Random(8)
    a, b = scatter(rng, 30), scatter(rng, 25)
    before = unpaired(a, b), paired(a)
    rng.shuffle(a)
    rng.shuffle(b)
    assert unpaired(a, b) == before[0]
    after = paired(a)
    assert (after.low_ns, after.high_ns) == (
        before[1].low_ns, before[1].high_ns
    )


def test_two_groups_vary_by_themselves() -> None:
    # If they were drawn alike, two equal groups would never differ.
    values = scatter(random.Random(9), 20)
    found = unpaired(values, values)
    assert found.low_ns < 0 < found.high_ns


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = random.Random(3)
    covered = 0
    for _ in range(200):
        found = paired([x + 2 * MS for x in scatter(rng, 12)])
        covered += found.low_ns <= 2 * MS <= found.high_ns
    assert covered / 200 == pytest.approx(1 - LEVEL, abs=0.06)


def test_many_rows_of_chance_are_rarely_odd() -> None:
    rng = random.Random(4)
    alarms = sum(
        min(together([scatter(rng, 10) for _ in range(25)])) <= LEVEL
        for _ in range(200)
    )
    assert alarms / 200 == pytest.approx(LEVEL, abs=0.06)
    alone = sum(
        min(paired(scatter(rng, 10)).p for _ in range(25)) <= LEVEL
        for _ in range(20)
    )
    assert alone > 15       # This is why `together` exists.


def test_one_real_row_among_many_is_found() -> None:
    rng = random.Random(5)
    rows = [scatter(rng, 5) for _ in range(25)]
    rows.append([500_000, 500_000, 501_000, 500_000, 499_000])
    rows.append([0] * 5)
    *others, real, zero = together(rows)
    assert real == pytest.approx(2 / 32)
    assert zero == 1
    assert min(others) > LEVEL
    # The same holds without pairs.
    rows = [scatter(rng, 10) for _ in range(25)]
    rows.append([*scatter(rng, 5, 10), *(x + MS for x in scatter(rng, 5, 10))])
    *others, real = together(rows, 5)
    assert real == pytest.approx(2 / 252)
    assert min(others) > LEVEL
    assert together([]) == []


def test_outliers_are_found() -> None:
    assert outliers([10, 11, 12, 11, 10, 99]) == [99]
    assert outliers([10, 11, 12]) == []


def test_thousands_of_pairs_take_little_memory() -> None:
    """All resamples at once took 320 MB, and their signs 130 MB."""
    stats._places.cache_clear()
    stats._flips.cache_clear()
    tracemalloc.start()
    try:
        paired(list(range(2000)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        stats._flips.cache_clear()
    assert peak_bytes < 120 << 20
