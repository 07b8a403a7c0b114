# SPDX-License-Identifier: GPL-2.0-or-later
"""Our statistics give the figures that SciPy gives.

SciPy is too large a requirement for three tests, so the harness has its own.
"""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from vfio_p2p.downtime.effect import LEVEL
from vfio_p2p.downtime.stats import _ranks, paired, unpaired

# This allows all arrangements of the values that are compared here.
EXACT = stats.PermutationMethod(n_resamples=100_000)


def draw(seed: int, count: int, *, among: int = 10**9) -> list[int]:
    """Draw figures around zero; few different ones if `among` is small."""
    rng = random.Random(seed)
    return [rng.randint(-among, among) * 1000 for _ in range(count)]


@pytest.mark.parametrize("among", [3, 50, 10**9])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_ranks(count: int, among: int) -> None:
    values = np.array(draw(count, count, among=among), dtype=np.float64)
    assert _ranks(values).tolist() == stats.rankdata(values).tolist()


@pytest.mark.parametrize("among", [3, 50, 10**9])
@pytest.mark.parametrize("count", [5, 8, 12])
def test_signed_ranks(count: int, among: int) -> None:
    for seed in range(10):
        values = draw(seed, count, among=among)
        if not any(values):
            continue
        wanted = stats.wilcoxon(
            np.array(values, dtype=np.float64),
            zero_method="pratt",
            method=EXACT,
        ).pvalue
        assert paired(values).p == pytest.approx(wanted)


@pytest.mark.parametrize(("first", "second"), [(3, 3), (4, 6), (6, 6)])
def test_rank_sums(first: int, second: int) -> None:
    for seed in range(10):
        a, b = draw(seed, first), draw(seed + 100, second)
        assert len(set(a + b)) == first + second
        wanted = stats.mannwhitneyu(a, b, method="exact").pvalue
        assert unpaired(a, b).p == pytest.approx(wanted)


def test_rank_sums_with_ties() -> None:
    for seed in range(10):
        a, b = draw(seed, 5, among=4), draw(seed + 100, 6, among=4)
        ranks = stats.rankdata(a + b)
        mean = ranks.mean()

        def far(
            one: np.ndarray, _: np.ndarray, mean: float = mean
        ) -> float:
            return float(abs((one - mean).sum()))

        wanted = stats.permutation_test(
            (ranks[:5], ranks[5:]),
            far,
            n_resamples=np.inf,
            alternative="greater",
            vectorized=False,
        ).pvalue
        assert unpaired(a, b).p == pytest.approx(wanted)


def test_percentiles_of_the_bootstrap() -> None:
    values = sorted(draw(1, 25))
    found = paired(values)
    wanted = stats.bootstrap(
        (values,),
        np.median,
        confidence_level=1 - LEVEL,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    # A median of 25 is one of them, so both may differ by a neighbour.
    step = max(y - x for x, y in pairwise(values))
    assert found.low_ns == pytest.approx(wanted.low, abs=step)
    assert found.high_ns == pytest.approx(wanted.high, abs=step)


def test_percentiles_of_the_bootstrap_of_two_groups() -> None:
    a, b = draw(2, 30), [x + 10**12 for x in draw(3, 20)]
    found = unpaired(a, b)

    def difference(
        one: np.ndarray, two: np.ndarray, axis: int
    ) -> np.ndarray:
        return np.asarray(
            np.median(two, axis=axis) - np.median(one, axis=axis)
        )

    wanted = stats.bootstrap(
        (a, b),
        difference,
        confidence_level=1 - LEVEL,
        method="percentile",
        n_resamples=20_000,
        vectorized=True,
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = wanted.high - wanted.low
    assert found.low_ns == pytest.approx(wanted.low, abs=0.05 * width)
    assert found.high_ns == pytest.approx(wanted.high, abs=0.05 * width)
