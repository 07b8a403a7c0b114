# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures of a document that a service may keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.document import Document
from vfio_p2p.report.groups import grouped
from vfio_p2p.report.run import Run
from vfio_p2p.report.spread import BLACKOUT, figures


@dataclass(frozen=True)
class MeasuredTree:
    """What one tree has measured in one scenario.

    :param scenario: The name of the scenario.
    :param tree: The name of the tree.
    :param runs: The runs, at least one.
    :param times_ns: The times of each figure, as of
        `vfio_p2p.report.spread.figures`, in nanoseconds.
    :param bounds_ns: How far the blackout of each run may be off, because two
        clocks were read; 0 if it was one.
    """

    scenario: str
    tree: str
    runs: tuple[Run, ...]
    times_ns: dict[str, list[int]]
    bounds_ns: tuple[int, ...]

    def range_ns(self, name: str) -> tuple[int, int] | None:
        """Return where the times of a figure are, with their bounds.

        :param name: The name of the figure.
        :return: The least and the largest time; None of one exact time.
        """
        times = self.times_ns[name]
        bounds = self.bounds_ns if name == BLACKOUT else (0,) * len(times)
        if len(times) == 1 and not any(bounds):
            return None
        pairs = [*zip(times, bounds, strict=True)]
        return min(x - y for x, y in pairs), max(x + y for x, y in pairs)

    @property
    def name(self) -> str:
        """A name that tells it from the others of its document."""
        return f"{self.scenario}/{self.tree}"


def measured(document: Document) -> Iterator[MeasuredTree]:
    """Yield the figures of runs that have passed.

    A figure says nothing of the verdict on its run, so a service would take
    the figures of other runs for good ones.

    :param document: The document.
    """
    for group in grouped(document.runs):
        passed = tuple(
            x for x in group.runs if x.verdict is Verdict.PASS
        )
        times: dict[str, list[int]] = {}
        for run in passed:
            for name, time_ns in figures(run).items():
                times.setdefault(name, []).append(time_ns)
        if times:
            bounds = tuple(
                run.blackout_bound_ns or 0
                for run in passed
                if run.blackout_ns is not None
            )
            yield MeasuredTree(
                group.scenario, group.tree, passed, times, bounds
            )
