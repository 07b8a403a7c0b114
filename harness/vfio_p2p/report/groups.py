# SPDX-License-Identifier: GPL-2.0-or-later
"""The runs of a document by tree and scenario."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from statistics import median, quantiles

from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.report.document import Document
from vfio_p2p.report.run import Run


@dataclass(frozen=True)
class RunGroup:
    """The runs of one tree through one scenario.

    :param tree: The name of the tree.
    :param scenario: The name of the scenario.
    :param runs: The runs, at least one.
    """

    tree: str
    scenario: str
    runs: tuple[Run, ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict over all runs."""
        return worst(run.verdict for run in self.runs)

    @property
    def worst(self) -> tuple[Run, ...]:
        """The runs that have this verdict."""
        return tuple(x for x in self.runs if x.verdict is self.verdict)

    @property
    def passed(self) -> str:
        """How many of the runs passed, e.g. ``2/3``."""
        passed = sum(run.verdict is Verdict.PASS for run in self.runs)
        return f"{passed}/{len(self.runs)}"

    @property
    def counts(self) -> str:
        """How many runs have which verdict."""
        found = Counter(run.verdict for run in self.runs)
        return ", ".join(f"{n} {name}" for name, n in found.most_common())

    @property
    def outcomes(self) -> str:
        """How the runs ended."""
        return ", ".join(dict.fromkeys(run.summary for run in self.runs))

    @property
    def seeds(self) -> str:
        """The seeds, e.g. ``1-10, 42``; empty if the runs have none."""
        return ranges([x.seed for x in self.runs if x.seed is not None])

    @property
    def names(self) -> str:
        """The runs by their seeds, or how many there are without a seed."""
        plural = "" if len(self.runs) == 1 else "s"
        if self.seeds:
            return f"seed{plural} {self.seeds}"
        return f"{len(self.runs)} run{plural}"

    @property
    def blackouts(self) -> tuple[int, ...]:
        """All blackouts, nanoseconds."""
        return tuple(
            run.blackout_ns
            for run in self.runs
            if run.blackout_ns is not None
        )

    @property
    def middle_ns(self) -> float | None:
        """The median of the blackouts, nanoseconds."""
        return middle(self.blackouts)

    @property
    def qmp_downtime_ms(self) -> float | None:
        """The median of the downtimes that QMP reports."""
        return middle(
            [
                run.qmp_downtime_ms
                for run in self.runs
                if run.qmp_downtime_ms is not None
            ]
        )

    @property
    def middle(self) -> Run | None:
        """The run with the median blackout, the lower of two."""
        known = sorted(
            (run for run in self.runs if run.blackout_ns is not None),
            key=lambda run: (run.blackout_ns, run.seed or 0),
        )
        return known[(len(known) - 1) // 2] if known else None

    @property
    def traffic(self) -> Traffic | None:
        """The transactions between devices, of all runs together."""
        return reduce(
            lambda a, b: a + b if a and b else a or b,
            (run.traffic for run in self.runs),
        )


def grouped(runs: Iterable[Run]) -> tuple[RunGroup, ...]:
    """Group runs by tree and scenario, in order of appearance.

    :param runs: The runs.
    """
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.tree, run.scenario), []).append(run)
    return tuple(RunGroup(*key, tuple(x)) for key, x in found.items())


def by_scenario(document: Document) -> tuple[RunGroup, ...]:
    """Group the runs of a document, scenario by scenario.

    :param document: The document.
    """
    found = {(x.scenario, x.tree): x for x in grouped(document.runs)}
    return tuple(
        found[scenario, tree]
        for scenario in document.scenarios
        for tree in document.tree_names
        if (scenario, tree) in found
    )


def ranges(numbers: Sequence[int]) -> str:
    """Shorten a list of numbers.

    :param numbers: The numbers in any order, e.g. 3, 1, 2, 7 for
        ``1-3, 7``.
    """
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and parts[-1][-1] == number - 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def middle(values: Sequence[int]) -> float | None:
    """The median; None of nothing.

    :param values: The values.
    """
    return median(values) if values else None


def quartiles(values: Sequence[int]) -> tuple[float, float, float]:
    """The first quartile, the median and the third quartile.

    :param values: The values, at least one.
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle_, high = quantiles(values, n=4, method="inclusive")
    return low, middle_, high
