# SPDX-License-Identifier: GPL-2.0-or-later
"""From a value to its place on an axis."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A linear scale.

    :param low: The least value.
    :param high: The greatest value.
    :param start: The place of the least value.
    :param end: The place of the greatest value; it may be less than
        `start`, as on an axis that points upwards.
    """

    low: float
    high: float
    start: float
    end: float

    @property
    def per_unit(self) -> float:
        """How far apart the places of two values are that differ by one."""
        return (self.end - self.start) / (self.high - self.low)

    def at(self, value: float) -> float:
        """The place of a value.

        A value outside has the place of the nearest that is inside.  If
        there is only one value, it is in the middle.

        :param value: The value.
        """
        if self.high <= self.low:
            return (self.start + self.end) / 2
        inside = min(max(value, self.low), self.high)
        return self.start + (inside - self.low) * self.per_unit
