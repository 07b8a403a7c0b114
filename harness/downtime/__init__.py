# SPDX-License-Identifier: GPL-2.0-or-later
"""Blackouts: taken apart into phases, and compared with certainty."""

from harness.downtime.model import (
    Beside,
    Breakdown,
    Interval,
    Link,
    NotObservable,
    Phase,
    PhaseName,
    Section,
    Work,
)

__all__ = [
    "Beside",
    "Breakdown",
    "Interval",
    "Link",
    "NotObservable",
    "Phase",
    "PhaseName",
    "Section",
    "Work",
]
