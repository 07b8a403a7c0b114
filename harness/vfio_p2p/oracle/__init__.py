# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules, findings and verdicts: what the series promises, checked."""

from vfio_p2p.oracle.judge import judge
from vfio_p2p.oracle.model import (
    Criteria,
    Doubt,
    Finding,
    Judgement,
    PairRule,
    Promise,
    Rule,
)
from vfio_p2p.oracle.rules import RULES

__all__ = [
    "RULES",
    "Criteria",
    "Doubt",
    "Finding",
    "Judgement",
    "PairRule",
    "Promise",
    "Rule",
    "judge",
]
