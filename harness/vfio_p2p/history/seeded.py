# SPDX-License-Identifier: GPL-2.0-or-later
"""Change points of long rows, in O(n log^2 n).

Seeded binary segmentation (Kovács, Bühlmann, Li and Munk, Biometrika 110,
2023) looks at intervals of all lengths: each length is shorter than the one
before by the square root of two, and the intervals of one length overlap by
half.  So each change is somewhere in the middle of an interval that has no
other one.  Of all intervals with a certain change, the narrowest ones are
taken (Baranowski, Chen and Fryzlewicz, JRSS B 81, 2019).

The two sides of an interval are compared by the statistic of Wilcoxon, Mann
and Whitney, which knows the order of values only: no distribution is assumed,
and a few very large values do no harm.  If no order of the values is likelier
than another, a standardised statistic is above z in size with a probability
of at most 2 exp(-z²/2).  That holds for all sizes of the two sides, not only
for large ones.  The logarithm of its moment generating function is ::

    sum over i = 1...m of  g((n + i) s / 2) - g(i s / 2)

for sides of m and n values and g(x) = log(sinh(x) / x) (Mann and Whitney,
1947).  As g(x) - x²/6 decreases for positive x, this is not more than the
logarithm of a normal distribution of the same variance.  Equal values only
make it smaller: their common rank is the mean of those that they would have
got by drawing lots.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

_Row = NDArray[np.float64]


@dataclass
class _Found:
    """A change, and the length and the statistic of its interval."""

    split: int
    length: int
    size: float


def seeded_changes(
    row: _Row, level: float, min_segment: int
) -> list[tuple[int, float]]:
    """Find the change points of a row, with the p-value of each.

    :param row: The values in their order.
    :param level: How often noise alone may at most be taken for a change.
    :param min_segment: The smallest number of values of a level.
    """
    count = len(row)
    lengths = list(_lengths(count, 2 * min_segment))
    splits = sum(
        len(_starts(count, length)) * (length - 2 * min_segment + 1)
        for length in lengths
    )
    if not splits:
        return []
    least = sqrt(2 * log(2 * splits / level))
    found: list[_Found] = []
    for length in reversed(lengths):
        # Two halves without a common value are the clearest change there is.
        if length * sqrt(0.75 / (length + 1)) < least:
            continue
        starts = _starts(count, length)
        at, sizes = best_splits(
            row[starts[:, None] + np.arange(length)], min_segment
        )
        for index in np.argsort(-sizes, kind="stable"):
            if sizes[index] < least:
                break
            start = int(starts[index])
            # Narrower intervals have told what changes inside of this one.
            inside = bisect_right(found, start, key=lambda x: x.split)
            beyond = bisect_left(found, start + length, key=lambda x: x.split)
            if inside == beyond:
                one = _Found(start + int(at[index]), length, sizes[index])
                found.insert(inside, one)
    _place(row, found, min_segment)
    return [
        (x.split, min(level, 2 * splits * exp(-(x.size**2) / 2)))
        for x in found
    ]


def _place(row: _Row, found: list[_Found], min_segment: int) -> None:
    """Put each change where it belongs by the values on both sides of it.

    Ranks do not tell a value that is near another level from one that is far
    from it.
    """
    before = 0
    ends = [*(x.split for x in found[1:]), len(row)]
    for change, after in zip(found, ends, strict=False):
        # Values that are far away would hide a level that does not last.
        start = max(before, change.split - change.length)
        end = min(after, change.split + change.length)
        old, new = row[start : change.split], row[change.split : end]
        around = row[start:end]
        nearer = np.cumsum(
            abs(around - np.median(new)) - abs(around - np.median(old))
        )
        there = nearer[min_segment - 1 : end - start - min_segment]
        before = start + min_segment + int(np.argmax(there))
        change.split = before


def best_splits(
    rows: NDArray[np.float64], min_segment: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find where the sides of each row differ most; return also how much.

    :param rows: Rows of one length, shape (rows, length).
    :param min_segment: The smallest number of values on a side.
    :returns: The index of the first value behind each split, and the size of
        the standardised statistic there.
    """
    length = rows.shape[1]
    left = np.arange(min_segment, length - min_segment + 1.0)
    sums = np.cumsum(_ranks(rows), axis=1)
    sums = sums[:, min_segment - 1 : length - min_segment]
    sums -= left * ((length - 1) / 2)
    sums /= np.sqrt(left * (length - left) * ((length + 1) / 12))
    sizes = np.abs(sums, out=sums)
    at = np.argmax(sizes, axis=1)
    return at + min_segment, sizes[np.arange(len(rows)), at]


def _ranks(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks in each row, from 0; equal values share their mean."""
    order = np.argsort(rows, axis=1)
    ordered = np.take_along_axis(rows, order, axis=1)
    index = np.arange(rows.shape[1])
    new = np.ones(rows.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(new, index, 0), axis=1)
    # The last one of equal values stands before the next new one.
    new[:, :-1] = new[:, 1:]
    new[:, -1] = True
    last = np.where(new, index, rows.shape[1])[:, ::-1]
    last = np.minimum.accumulate(last, axis=1)[:, ::-1]
    ranks = np.empty(rows.shape)
    np.put_along_axis(ranks, order, (first + last) / 2, axis=1)
    return ranks


def _lengths(count: int, least: int) -> Iterator[int]:
    length = float(count)
    while round(length) >= least:
        yield round(length)
        length /= sqrt(2)


def _starts(count: int, length: int) -> NDArray[np.int64]:
    """Return where the intervals of one length begin."""
    number = 1 + -(-(count - length) // max(1, length // 2))
    return np.linspace(0, count - length, number).astype(np.int64)
