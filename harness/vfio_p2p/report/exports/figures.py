# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures of a document that a service may keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.document import Document
from vfio_p2p.report.groups import grouped
from vfio_p2p.report.run import Run
from vfio_p2p.report.spread import figures


@dataclass(frozen=True)
class Measured:
    """What one tree has measured in one scenario.

    :param scenario: The name of the scenario.
    :param tree: The name of the tree.
    :param runs: The runs, at least one.
    :param times_ns: The times of each figure, as of
        `vfio_p2p.report.spread.figures`, in nanoseconds.
    """

    scenario: str
    tree: str
    runs: tuple[Run, ...]
    times_ns: dict[str, list[int]]

    @property
    def name(self) -> str:
        """A name that tells it from the others of its document."""
        return f"{self.scenario}/{self.tree}"


def measured(document: Document) -> Iterator[Measured]:
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
            yield Measured(group.scenario, group.tree, passed, times)
