# SPDX-License-Identifier: GPL-2.0-or-later
"""Change points: all that were planted are found, and no others."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vfio_p2p.history.changes import ChangePoint, _Splitter, change_points

# So few permutations allow many rows to be tried.
FEW = 99

values = st.lists(
    st.integers(0, 10**9).map(float), min_size=0, max_size=40
)


# What apache-otava 0.8.0 found in these rows with its own implementation of
# the same algorithm.  It cannot be installed next to the harness: it pins
# numpy to 2.2.0, and requires the clients of BigQuery, Slack and PostgreSQL.
OTAVA = json.loads(
    (Path(__file__).parent / "data" / "otava-0.8.0.json").read_text()
)["rows"]


def planted(
    random: np.random.Generator, *levels: tuple[int, float]
) -> list[float]:
    """Make a row of levels, each with noise of 1 % and so many values."""
    return [
        float(x)
        for count, level in levels
        for x in random.normal(level, level / 100, count)
    ]


def naive(row: list[float], first: int) -> tuple[int, float]:
    """Return the best split by its definition."""

    def mean(a: list[float], b: list[float]) -> float:
        return float(np.mean([abs(x - y) for x in a for y in b]))

    def within(a: list[float]) -> float:
        return sum(abs(x - y) for x in a for y in a) / (
            len(a) * (len(a) - 1)
        )

    best = (0, -np.inf)
    for split in range(first, len(row) - first + 1):
        for end in range(split + first, len(row) + 1):
            a, b = row[:split], row[split:end]
            energy = 2 * mean(a, b) - within(a) - within(b)
            energy *= len(a) * len(b) / (len(a) + len(b))
            if energy > best[1]:
                best = split, energy
    return best


@pytest.mark.parametrize("count", [4, 7, 12])
def test_the_energy_is_that_of_its_definition(count: int) -> None:
    random = np.random.default_rng(count)
    for _ in range(5):
        row = random.normal(size=count)
        split, energy = _Splitter(count, 2).best(row)
        expected = naive(list(row), 2)
        assert split == expected[0]
        assert energy == pytest.approx(expected[1])


def test_one_percent_in_noise_of_less() -> None:
    random = np.random.default_rng(3)
    row = [
        float(x)
        for level in (300.0, 303.0)
        for x in random.normal(level, 1, 15)
    ]
    (change,) = change_points(row)
    assert change.index == 15
    assert change.percent == pytest.approx(1, abs=0.3)
    assert change.p_value <= 0.01


def test_exact_runs_are_told_without_any_noise() -> None:
    row = [300.0] * 6 + [303.0] * 6
    (change,) = change_points(row)
    assert (change.index, change.before, change.after) == (6, 300, 303)
    assert (change.difference, change.percent) == (3, 1)


def test_planted_changes_are_found_where_they_are() -> None:
    random = np.random.default_rng(7)
    exact = 0
    for _ in range(20):
        row = planted(random, (12, 100), (10, 110), (14, 95))
        found = [x.index for x in change_points(row)]
        assert len(found) >= 2
        exact += found == [12, 22]
    assert exact >= 18


def test_an_excursion_does_not_hide_behind_what_follows() -> None:
    row = [1.0] * 20 + [9.0] * 4 + [1.0] * 20
    found = [(x.index, x.before, x.after) for x in change_points(row)]
    assert found == [(20, 1, 9), (24, 9, 1)]


def test_an_outlier_is_no_level() -> None:
    random = np.random.default_rng(5)
    row = planted(random, (30, 100))
    row[17] = 500
    assert change_points(row) == []


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("kind", ["normal", "skewed", "steps"])
def test_noise_alone_is_found_as_often_as_stated(
    level: float, kind: str
) -> None:
    random = np.random.default_rng(11)
    rows = 300
    found = 0
    for _ in range(rows):
        row = random.normal(100, 3, 20)
        if kind == "skewed":
            row = random.pareto(2, 20)
        elif kind == "steps":
            row = random.integers(0, 3, 20).astype(float)
        found += bool(change_points(row, level=level, permutations=FEW))
    # Three standard deviations of a binomial distribution.
    assert found <= rows * level + 3 * (rows * level * (1 - level)) ** 0.5


def test_the_stated_level_is_used() -> None:
    random = np.random.default_rng(13)
    found = sum(
        bool(change_points(random.normal(size=20), level=0.5))
        for _ in range(100)
    )
    assert 35 <= found <= 65


@given(values, st.integers(2, 5))
@settings(max_examples=50)
def test_properties_of_change_points(
    row: list[float], min_segment: int
) -> None:
    found = change_points(
        row, level=0.2, min_segment=min_segment, permutations=FEW
    )
    assert found == change_points(
        row, level=0.2, min_segment=min_segment, permutations=FEW
    )
    bounds = [0, *(x.index for x in found), len(row)]
    if found:
        assert min(b - a for a, b in pairwise(bounds)) >= min_segment
    for change in found:
        assert 0 < change.p_value <= 0.2
    assert [x.after for x in found[:-1]] == [x.before for x in found[1:]]


@given(values, st.integers(-50, 50))
@settings(max_examples=50)
def test_units_do_not_matter(row: list[float], offset: int) -> None:
    def where(values: list[float]) -> list[int]:
        found = change_points(values, level=0.2, permutations=FEW)
        return [x.index for x in found]

    # Powers of two, so that nothing is rounded.
    assert where([4 * (x + offset) for x in row]) == where(row)


def test_a_level_of_one_value_has_no_spread() -> None:
    with pytest.raises(ValueError, match="two values"):
        change_points([1.0, 2.0], min_segment=1)


def test_a_level_of_zero_has_no_percents() -> None:
    assert ChangePoint(3, 0, 5, 0.01).percent is None


@pytest.mark.parametrize("row", OTAVA, ids=lambda row: row["name"])
def test_the_same_change_points_as_another_implementation(
    row: dict[str, Any],
) -> None:
    found = [change.index for change in change_points(row["values"])]
    assert found == row["indices"]


def test_the_other_implementation_found_something() -> None:
    assert sum(len(row["indices"]) for row in OTAVA) > 10
    assert any(not row["indices"] for row in OTAVA)
