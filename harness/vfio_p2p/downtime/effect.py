# SPDX-License-Identifier: GPL-2.0-or-later
"""A difference between two groups of runs, and how far it can be trusted.

`LEVEL` is that of a two-sided question, with a risk of 5 % for each side: "is
it slower?" and "is it faster?"  Five pairs can show no less than 2/32, which
the level admits; four pairs can never show anything.
"""

from __future__ import annotations

from dataclasses import dataclass

LEVEL = 0.1


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference, and how far it can be trusted.

    :param difference_ns: The median of the pairs' differences, or the
        difference of the medians, in nanoseconds.
    :param low_ns: The lower end of its confidence interval, 1 - `LEVEL`.
    :param high_ns: The upper end.
    :param p: The probability that chance alone shows as much.
    :param smallest_ns: The smallest difference that this number of runs,
        with this scatter, could have shown; None if they could show none.
    :param same: Whether no pair differs at all, so that chance can have
        hidden nothing.
    """

    difference_ns: float
    low_ns: float
    high_ns: float
    p: float
    smallest_ns: float | None
    same: bool = False

    @property
    def shown(self) -> bool:
        """Whether chance is an unlikely explanation."""
        return not self.same and self.p <= LEVEL
