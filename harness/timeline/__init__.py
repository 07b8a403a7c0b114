# SPDX-License-Identifier: GPL-2.0-or-later
"""Epochs, arcs and intervals per device, from the records of one side."""

from harness.timeline.blackout import Blackout, blackout
from harness.timeline.build import build, read_log
from harness.timeline.model import (
    Arc,
    Cause,
    Epoch,
    Gap,
    Migration,
    Phase,
    Side,
    Step,
    Timeline,
)

__all__ = [
    "Arc",
    "Blackout",
    "Cause",
    "Epoch",
    "Gap",
    "Migration",
    "Phase",
    "Side",
    "Step",
    "Timeline",
    "blackout",
    "build",
    "read_log",
]
