# SPDX-License-Identifier: GPL-2.0-or-later
"""Blackouts: taken apart into phases, and compared with certainty."""

from vfio_p2p.downtime.model import (
    Beside,
    Breakdown,
    GuestGap,
    Interval,
    Link,
    NotObservable,
    Phase,
    PhaseName,
    Section,
    Work,
)
from vfio_p2p.downtime.phases import phases

__all__ = [
    "Beside",
    "Breakdown",
    "GuestGap",
    "Interval",
    "Link",
    "NotObservable",
    "Phase",
    "PhaseName",
    "Section",
    "Work",
    "phases",
]
