# SPDX-License-Identifier: GPL-2.0-or-later
"""Change points of long rows."""

from __future__ import annotations

from itertools import combinations
from math import exp, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from vfio_p2p.history.changes import LONGEST, change_points
from vfio_p2p.history.seeded import best_splits, seeded_changes


@pytest.mark.parametrize("sides", [(1, 1), (1, 8), (2, 3), (4, 4), (3, 9)])
def test_the_bound_holds_for_all_sizes_of_the_sides(
    sides: tuple[int, int],
) -> None:
    """All orders are counted."""
    left, right = sides
    count = left + right
    sums = np.array([sum(x) for x in combinations(range(count), left)])
    scale = sqrt(left * right * (count + 1) / 12)
    sizes = abs(sums - left * (count - 1) / 2) / scale
    for size in sizes:
        share = np.mean(sizes >= size * (1 - 1e-9))
        assert share <= 2 * exp(-(size**2) / 2)


def naive(row: list[float], first: int) -> float:
    """Return the largest statistic of a row by its definition."""
    ranks = rankdata(row)
    count = len(row)
    return max(
        float(abs(sum(ranks[:left]) - left * (count + 1) / 2))
        / sqrt(left * (count - left) * (count + 1) / 12)
        for left in range(first, count - first + 1)
    )


@given(
    st.lists(st.integers(0, 9).map(float), min_size=6, max_size=40),
    st.integers(2, 3),
)
@settings(max_examples=100)
def test_the_statistic_is_that_of_its_definition(
    row: list[float], first: int
) -> None:
    rows = np.array([row[::-1], row])
    at, size = best_splits(rows, first)
    assert size[1] == pytest.approx(naive(row, first))
    assert size[0] == pytest.approx(size[1])
    assert first <= at[1] <= len(row) - first


@pytest.mark.parametrize("level", [0.05, 0.5])
@pytest.mark.parametrize("kind", ["normal", "skewed", "steps", "outliers"])
def test_noise_alone_is_found_no_more_often_than_stated(
    level: float, kind: str
) -> None:
    random = np.random.default_rng(11)
    rows = 100
    found = 0
    for _ in range(rows):
        row = random.normal(100, 3, LONGEST + 44)
        if kind == "skewed":
            row = random.pareto(1, len(row))
        elif kind == "steps":
            row = (random.random(len(row)) < 0.02).astype(float)
        elif kind == "outliers":
            row[random.integers(len(row), size=20)] += 10_000
        found += bool(change_points(row, level=level))
    # Three standard deviations of a binomial distribution.
    assert found <= rows * level + 3 * (rows * level * (1 - level)) ** 0.5


def test_planted_changes_are_found_where_they_are() -> None:
    random = np.random.default_rng(7)
    exact = 0
    for _ in range(20):
        row = random.normal(100, 0.3, 2000)
        row[300:360] += 5
        row[1200:] += 1
        found = {x.index for x in change_points(row)}
        for change in (300, 360, 1200):
            assert found & {change - 1, change, change + 1}
        exact += found == {300, 360, 1200}
    assert exact >= 16


def test_a_level_that_does_not_last_is_not_lost_in_a_long_row() -> None:
    """The values before and behind it are of one level."""
    random = np.random.default_rng(3)
    row = random.normal(100, 1, 20_000)
    row[9000:9050] += 6
    assert [x.index for x in change_points(row)] == [9000, 9050]


def test_small_changes_between_large_ones() -> None:
    row = np.repeat([100.0, 900.0, 903.0, 100.0], 300)
    row += np.random.default_rng(5).normal(0, 1, len(row))
    found = [(x.index, round(x.difference)) for x in change_points(row)]
    assert found == [(300, 800), (600, 3), (900, -803)]


def test_exact_runs_are_told_without_any_noise() -> None:
    row = [300.0] * 400 + [303.0] * 20 + [300.0] * 400
    found = [(x.index, x.before, x.after) for x in change_points(row)]
    assert found == [(400, 300, 303), (420, 303, 300)]


def test_a_short_level_of_a_long_row_is_searched_as_a_short_row() -> None:
    """Within 60 values, six are enough to be told."""
    row = [1.0] * 300 + [5.0] * 27 + [7.0] * 6 + [5.0] * 27 + [1.0] * 300
    found = [x.index for x in change_points(row)]
    assert found == [300, 327, 333, 360]


@given(st.integers(0, 2**32 - 1), st.integers(2, 20), st.integers(257, 700))
@settings(max_examples=40, deadline=None)
def test_properties_of_change_points(
    seed: int, min_segment: int, count: int
) -> None:
    random = np.random.default_rng(seed)
    row = np.repeat(random.normal(0, 3, 1 + count // 20), 20)[:count]
    row += random.normal(0, 1, len(row))
    found = seeded_changes(row, 0.2, min_segment)
    assert found == seeded_changes(row, 0.2, min_segment)
    bounds = [0, *(index for index, _ in found), len(row)]
    if found:
        assert min(np.diff(bounds)) >= min_segment
    assert all(0 < p_value <= 0.2 for _, p_value in found)


def test_a_row_that_is_too_short_for_two_levels() -> None:
    assert seeded_changes(np.arange(5.0), 0.5, 3) == []
