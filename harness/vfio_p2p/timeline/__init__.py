# SPDX-License-Identifier: GPL-2.0-or-later
"""The epochs and arcs of each device, from the records of one side."""

from vfio_p2p.side import Side
from vfio_p2p.timeline.blackout import Blackout, blackout
from vfio_p2p.timeline.build import build, read_log
from vfio_p2p.timeline.events import build_events
from vfio_p2p.timeline.model import (
    Callback,
    Cause,
    Epoch,
    Gap,
    Pass,
    Timeline,
    TracedArc,
    TracedMigration,
)

__all__ = [
    "Blackout",
    "Callback",
    "Cause",
    "Epoch",
    "Gap",
    "Pass",
    "Side",
    "Timeline",
    "TracedArc",
    "TracedMigration",
    "blackout",
    "build",
    "build_events",
    "read_log",
]
