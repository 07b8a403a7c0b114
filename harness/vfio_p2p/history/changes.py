# SPDX-License-Identifier: GPL-2.0-or-later
"""Change points: where a row of values came to another level.

The algorithm is E-divisive (Matteson and James, "A Nonparametric Approach for
Multiple Change Point Analysis of Multivariate Data", JASA 109, 2014), for
single values.  A segment is split where the energy distance between its two
sides is largest.  The split is a change point if hardly any reordering of the
segment has an equally good split; then both sides are searched in the same
way.  Nothing is assumed about the distribution of the values.

The share of rows without a change that are said to have one is at most the
stated level: the one test that such a row gets is exact, as all orders are
equally likely.

All that is quadratic in the length of a segment.  Rows of more than `LONGEST`
values are therefore divided by `seeded_changes` first, which keeps the same
promise; then each level that is not longer is searched as above.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vfio_p2p.history.seeded import seeded_changes

LEVEL = 0.01
MIN_SEGMENT = 3
PERMUTATIONS = 199
LONGEST = 256

# Any number would do.  As it never changes, the answer is a function of the
# values.
_SEED = 1

_Row = NDArray[np.float64]


@dataclass(frozen=True)
class ChangePoint:
    """A change of level.

    :param index: The index of the new level's first value, from 0.
    :param before: The median of the level before, in the values' unit.
    :param after: The median of the new level, up to the next change.
    :param p_value: How often chance alone would show such a split.
    """

    index: int
    before: float
    after: float
    p_value: float

    @property
    def difference(self) -> float:
        """How far the level moved, in the values' unit."""
        return self.after - self.before

    @property
    def percent(self) -> float | None:
        """The same in percent of the level before; None if that is 0."""
        if not self.before:
            return None
        return 100 * self.difference / self.before


class _Splitter:
    """Finds the best split of segments of one length.

    A segment may be split at `t` with the values after any `k` cut off.
    Without the cut, later values would hide a short excursion.

    :param count: The number of values of a segment.
    :param min_segment: The smallest number of values on a side.
    """

    def __init__(self, count: int, min_segment: int) -> None:
        self._first = min_segment
        left = np.arange(min_segment, count - min_segment + 1.0)[:, None]
        right = np.arange(2.0 * min_segment, count + 1)[None, :] - left
        self._valid = right >= min_segment
        right = np.maximum(right, min_segment)
        both = left + right
        # The weights of the sums of distances in the energy: between the
        # sides, within the left one and within the right one.
        self._between = 2 / both
        self._left = right / (both * (left - 1))
        self._right = left / (both * (right - 1))

    def best(self, row: _Row) -> tuple[int, float]:
        """Return where the two sides differ most, and their energy."""
        count, first = len(row), self._first
        sums = np.zeros((count + 1, count + 1))
        np.abs(np.subtract.outer(row, row), out=sums[1:, 1:])
        np.cumsum(sums, axis=0, out=sums)
        np.cumsum(sums, axis=1, out=sums)
        # sums[t, k] is now the sum from the first t to the first k values.
        within = np.diagonal(sums)
        left = within[first : count - first + 1, None]
        both = sums[first : count - first + 1, 2 * first :]
        right = within[None, 2 * first :] - 2 * both + left
        energy = np.where(
            self._valid,
            self._between * (both - left)
            - self._left * left
            - self._right * right,
            -np.inf,
        )
        where = int(np.argmax(energy))
        return first + where // energy.shape[1], float(energy.flat[where])


def change_points(
    values: Sequence[float] | _Row,
    *,
    level: float = LEVEL,
    min_segment: int = MIN_SEGMENT,
    permutations: int = PERMUTATIONS,
) -> list[ChangePoint]:
    """Find the change points of a row of values; this is a pure function.

    :param values: The values in their order.
    :param level: How often noise alone may at most be taken for a change.
    :param min_segment: The smallest number of values of a level, at least 2.
        Fewer than twelve values in all have too few orders to be certain at
        the default level.
    :param permutations: The number of orders that are tried.
    """
    if min_segment < 2:
        raise ValueError("a level needs two values to have a spread")
    row = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(_SEED)

    def search(start: int, end: int) -> Iterator[tuple[int, float]]:
        if end - start < 2 * min_segment:
            return
        segment = row[start:end]
        splitter = _Splitter(end - start, min_segment)
        index, energy = splitter.best(segment)
        as_good = 1
        for _ in range(permutations):
            # Equal energies may differ by their rounding.
            _, other = splitter.best(random.permutation(segment))
            as_good += other >= energy * (1 - 1e-9)
            if as_good > level * (permutations + 1):
                return
        index += start
        yield from search(start, index)
        yield index, as_good / (permutations + 1)
        yield from search(index, end)

    found: list[tuple[int, float]] = []
    if len(row) > LONGEST:
        found += seeded_changes(row, level, min_segment)
    for start, end in pairwise([0, *(x for x, _ in found), len(row)]):
        if end - start <= LONGEST:
            found += search(start, end)
    found.sort()
    bounds = [0, *(index for index, _ in found), len(row)]
    levels = [
        float(np.median(row[start:end]))
        for start, end in pairwise(bounds)
        if found
    ]
    return [
        ChangePoint(index, before, after, p_value)
        for (index, p_value), (before, after) in zip(
            found, pairwise(levels), strict=True
        )
    ]
