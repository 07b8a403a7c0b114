# SPDX-License-Identifier: GPL-2.0-or-later
"""Blackouts, taken apart into phases and compared with known certainty."""

from vfio_p2p.downtime.guest import guest_gap
from vfio_p2p.downtime.model import (
    Beside,
    BlackoutPhase,
    Breakdown,
    CriticalLink,
    GuestGap,
    Interval,
    NotObservable,
    PhaseName,
)
from vfio_p2p.downtime.phases import phases
from vfio_p2p.downtime.transcript import stop_to_resume_ns

__all__ = [
    "Beside",
    "BlackoutPhase",
    "Breakdown",
    "CriticalLink",
    "GuestGap",
    "Interval",
    "NotObservable",
    "PhaseName",
    "guest_gap",
    "phases",
    "stop_to_resume_ns",
]
