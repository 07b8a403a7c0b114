# SPDX-License-Identifier: GPL-2.0-or-later
"""What the reports show."""

from __future__ import annotations

from dataclasses import dataclass

from harness.assess import Assessment
from harness.verdict import Verdict, worst


@dataclass(frozen=True)
class Row:
    """One run.

    :param variant: Name of the tree.
    :param scenario: Name of the scenario.
    :param seed: Its seed.
    :param assessment: What came of it.
    :param bundle: Where its bundle is; empty without one.
    :param digest: The bundle's digest; empty without one.
    :param latencies: What `harness.scenario.profile.latencies` says.
    """

    variant: str
    scenario: str
    seed: int
    assessment: Assessment
    bundle: str
    digest: str
    latencies: str = ""


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
    def verdict(self) -> Verdict:
        """Verdict over all runs."""
        return worst(row.assessment.verdict for row in self.rows)
