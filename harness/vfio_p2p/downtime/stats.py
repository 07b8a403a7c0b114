# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics for few runs: exact where possible, and honest where not.

Nothing is assumed about how downtimes scatter.  The tests count how many of
the arrangements that chance could have made of the same figures show at least
as much as was seen: with each pair swapped or not (Wilcoxon's signed ranks),
or with all runs dealt anew (Mann and Whitney's test).  Up to `_MOST`
arrangements are enumerated; beyond that, a fixed random sample is used, so
that the same figures always give the same answer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vfio_p2p.downtime.effect import LEVEL, Effect

# The resolution of the times in QEMU's traces.
RESOLUTION_NS = 1000

_MOST = 1 << 12
_RESAMPLES = 10_000
_AT_ONCE = 500
_SEED = 20230716

_Floats = NDArray[np.float64]


def paired(differences_ns: list[int]) -> Effect:
    """Return the effect that pairs of runs show.

    :param differences_ns: B - A for each pair; at least one.
    """
    found = np.array(differences_ns, dtype=np.float64)
    count = len(found)
    flips = _flips(count)

    def chance(values: _Floats) -> float:
        ranks = np.sign(values) * _ranks(np.abs(values))
        return _chance(flips @ ranks)

    middle = float(np.median(found))
    low, high = _ends(_medians(found))
    return Effect(
        middle,
        low,
        high,
        chance(found),
        _smallest(lambda by_ns: chance(found - middle + by_ns), found),
        same=not found.any(),
    )


def unpaired(first_ns: list[int], second_ns: list[int]) -> Effect:
    """Return the effect that two groups of runs show.

    :param first_ns: The runs of A; at least one.
    :param second_ns: The runs of B; at least one.
    """
    a = np.array(first_ns, dtype=np.float64)
    b = np.array(second_ns, dtype=np.float64)

    def chance(first: _Floats, second: _Floats) -> float:
        ranks = _ranks(np.concatenate((first, second)))
        ranks -= ranks.mean()
        ways = _rank_sums(len(second), np.sort(ranks).tobytes())
        seen = abs(ranks[len(first) :].sum()) - 1e-9
        # A sample of all arrangements need not contain the one that was seen.
        return (np.count_nonzero(ways >= seen) or 1) / len(ways)

    # If both groups were drawn alike, they would vary together.
    low, high = _ends(_medians(b, _SEED + 1) - _medians(a))
    own_a, own_b = a - np.median(a), b - np.median(b)
    return Effect(
        float(np.median(b) - np.median(a)),
        low,
        high,
        chance(a, b),
        _smallest(
            lambda by_ns: chance(own_a, own_b + by_ns),
            np.concatenate((own_a, own_b)),
        ),
    )


def together(rows: list[list[int]], count_a: int | None = None) -> list[float]:
    """Return probabilities for many rows, by Westfall and Young's max-T.

    Among many rows some look odd by chance.  These are the probabilities
    that *any* of them would look as odd as this one does.

    :param rows: The differences of pairs or, with `count_a`, the runs of A
        followed by those of B; all rows have the same length.
    :param count_a: The number of runs of A.
    """
    if not rows:
        return []
    values = np.array(rows, dtype=np.float64).T
    if count_a is None:
        odd = _t_paired(_flips(len(values)), values)
    else:
        odd = _t_unpaired(_deals(count_a, len(values) - count_a), values)
    most = odd.max(axis=1)
    return [
        float(np.mean(most >= seen * (1 - 1e-9))) if seen else 1.0
        for seen in odd[0]
    ]


def outliers(values_ns: list[int]) -> list[int]:
    """Return the values beyond Tukey's fences; they are shown, and kept.

    :param values_ns: Runs of one kind.
    """
    low, high = np.percentile(values_ns, (25, 75))
    reach = 1.5 * (high - low)
    return [x for x in values_ns if x < low - reach or x > high + reach]


# The following results are the same for each of many rows.
@lru_cache(maxsize=2)
def _flips(count: int) -> _Floats:
    """Return signs for each pair; the first row swaps none of them."""
    if 1 << count <= _MOST:
        return np.array(list(itertools.product((1.0, -1.0), repeat=count)))
    rng = np.random.default_rng(_SEED)
    ways = np.empty((_MOST, count))
    for start in range(0, _MOST, _AT_ONCE):
        part = ways[start : start + _AT_ONCE]
        part[:] = rng.choice((1.0, -1.0), size=part.shape)
    ways[0] = 1.0
    return ways


@lru_cache(maxsize=2)
def _deals(count_a: int, count_b: int) -> _Floats:
    """Return which runs are of B; the first row is the actual choice."""
    count = count_a + count_b
    own = tuple(range(count_a, count))
    if math.comb(count, count_b) <= _MOST:
        picks = [
            x for x in itertools.combinations(range(count), count_b)
            if x != own
        ]
        picks.insert(0, own)
    else:
        rng = np.random.default_rng(_SEED)
        picks = [own] + [
            tuple(rng.permutation(count)[:count_b]) for _ in range(_MOST - 1)
        ]
    deals = np.zeros((len(picks), count))
    np.put_along_axis(deals, np.array(picks), 1.0, axis=1)
    return deals


@lru_cache(maxsize=4)
def _places(count: int, seed: int) -> NDArray[np.int64]:
    """Return where the middle two of sorted values are in each resample."""
    rng = np.random.default_rng(seed)
    middle = [(count - 1) // 2, count // 2]
    # All of them at once would take hundreds of MiB.
    parts = []
    for _ in range(0, _RESAMPLES, _AT_ONCE):
        picks = rng.integers(count, size=(_AT_ONCE, count))
        picks.partition(middle, axis=1)
        parts.append(picks[:, middle])
    return np.concatenate(parts)


def _medians(values: _Floats, seed: int = _SEED) -> _Floats:
    """Return the medians of resamples."""
    found: _Floats = np.sort(values)[_places(len(values), seed)].mean(axis=1)
    return found


# The result depends on the ties only, not on whose the ranks are.
@lru_cache(maxsize=64)
def _rank_sums(count_b: int, ranks: bytes) -> _Floats:
    """Return how far B's rank sum is from the middle in each arrangement."""
    found = np.frombuffer(ranks)
    sums: _Floats = np.abs(_deals(len(found) - count_b, count_b) @ found)
    return sums


def _ranks(values: _Floats) -> _Floats:
    """Return ranks from 1; equal values share the mean of their ranks."""
    _, place, counts = np.unique(
        values, return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    middle: _Floats = (2 * last - counts + 1) / 2
    return middle[place]


def _chance(statistics: _Floats) -> float:
    """Return the share of values that are as far from zero as the first."""
    far = np.abs(statistics)
    return float(np.mean(far >= far[0] - 1e-9))


def _ends(resampled: _Floats) -> tuple[float, float]:
    low, high = np.percentile(resampled, (50 * LEVEL, 100 - 50 * LEVEL))
    return float(low), float(high)


def _smallest(
    chance: Callable[[float], float], values: _Floats
) -> float | None:
    """Return the smallest shift that would be shown, both up and down."""

    def shown(by_ns: float) -> bool:
        return chance(by_ns) <= LEVEL and chance(-by_ns) <= LEVEL

    # A shift beyond all scatter shows as much as any larger one.
    low, high = 0.0, 4 * float(np.ptp(values)) + 2 * RESOLUTION_NS
    if not shown(high):
        return None
    while high - low > RESOLUTION_NS / 2:
        middle = (low + high) / 2
        if shown(middle):
            high = middle
        else:
            low = middle
    return high


def _t_paired(flips: _Floats, values: _Floats) -> _Floats:
    """Return Student's t of each row for each arrangement."""
    count = len(values)
    means = flips @ values / count
    spread = (values**2).sum(axis=0) / count - means**2
    return _t(means, spread / max(count - 1, 1), count)


def _t_unpaired(deals: _Floats, values: _Floats) -> _Floats:
    values = values - values.mean(axis=0)
    found = []
    for who in (deals, 1 - deals):
        size = who[0].sum()
        mean = who @ values / size
        spread = who @ values**2 / size - mean**2
        found.append((mean, spread / max(size - 1, 1)))
    (mean_b, var_b), (mean_a, var_a) = found
    return _t(mean_b - mean_a, var_a + var_b, len(values))


def _t(means: _Floats, variances: _Floats, count: int) -> _Floats:
    # Nothing scatters less than the resolution of the traces.
    least = RESOLUTION_NS**2 / count
    result: _Floats = np.abs(means) / np.sqrt(np.maximum(variances, least))
    return result
