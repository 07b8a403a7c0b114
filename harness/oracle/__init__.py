# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules, findings and verdicts: what the series promises, checked."""

from harness.oracle.judge import judge
from harness.oracle.model import (
    Doubt,
    Expectation,
    Finding,
    Judgement,
    PairRule,
    Promise,
    Rule,
)
from harness.oracle.rules import RULES

__all__ = [
    "RULES",
    "Doubt",
    "Expectation",
    "Finding",
    "Judgement",
    "PairRule",
    "Promise",
    "Rule",
    "judge",
]
