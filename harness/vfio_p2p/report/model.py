# SPDX-License-Identifier: GPL-2.0-or-later
"""What the reports show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.verdict.assess import Assessment


@dataclass(frozen=True)
class Row:
    """One run.

    :param variant: Name of the tree.
    :param scenario: Name of the scenario.
    :param seed: Its seed.
    :param assessment: What came of it.
    :param bundle: Where its bundle is; empty without one.
    :param digest: The bundle's digest; empty without one.
    :param latencies: What `vfio_p2p.scenario.profile.latencies` says.
    """

    variant: str
    scenario: str
    seed: int
    assessment: Assessment
    bundle: str
    digest: str
    latencies: str = ""


@dataclass(frozen=True)
class Group:
    """The runs of one tree through one scenario, with one seed or more.

    :param variant: Name of the tree.
    :param scenario: Name of the scenario.
    :param rows: The runs, at least one.
    """

    variant: str
    scenario: str
    rows: tuple[Row, ...]

    @property
    def verdict(self) -> Verdict:
        """Verdict over its runs."""
        return worst(row.assessment.verdict for row in self.rows)

    @property
    def worst(self) -> tuple[Row, ...]:
        """The runs that have this verdict."""
        return tuple(
            row
            for row in self.rows
            if row.assessment.verdict is self.verdict
        )

    @property
    def blackouts(self) -> tuple[int, ...]:
        """All blackouts, nanoseconds."""
        return tuple(
            row.assessment.blackout_ns
            for row in self.rows
            if row.assessment.blackout_ns is not None
        )

    @property
    def traffic(self) -> Traffic | None:
        """What devices sent to one another, in all runs together."""
        return reduce(
            lambda a, b: a + b if a and b else a or b,
            (row.assessment.traffic for row in self.rows),
        )


@dataclass(frozen=True)
class Report:
    """One validation.

    :param qemu: Version string of the QEMU under test.
    :param base: Name of the base.
    :param origin: Where the source is from.
    :param rows: The runs.
    """

    qemu: str
    base: str
    origin: str
    rows: tuple[Row, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        """Its runs by tree and scenario, in order of appearance."""
        found: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            found.setdefault((row.variant, row.scenario), []).append(row)
        return tuple(Group(*key, tuple(rows)) for key, rows in found.items())

    @property
    def verdict(self) -> Verdict:
        """Verdict over all runs."""
        return worst(row.assessment.verdict for row in self.rows)


def ranges(numbers: Sequence[int]) -> str:
    """Numbers in few words.

    :param numbers: In any order, e.g. 3, 1, 2, 7 for ``1-3, 7``.
    """
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and parts[-1][-1] == number - 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)
