# SPDX-License-Identifier: GPL-2.0-or-later
"""The five verdicts and their exit codes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Verdict(StrEnum):
    """The result of a check."""

    PASS = "pass"
    SKIP = "skip"
    INCONCLUSIVE = "inconclusive"
    FAIL = "fail"
    ERROR = "error"

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ends with this verdict."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Verdict.PASS: 0,
    Verdict.FAIL: 1,
    Verdict.INCONCLUSIVE: 3,
    Verdict.SKIP: 4,
    Verdict.ERROR: 5,
}


def decided(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict over several, some of which were not tried.

    What was skipped does not make the verdict on the rest less sure.
    """
    found = [*verdicts]
    tried = [x for x in found if x is not Verdict.SKIP]
    return worst(tried or found)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict over several: a broken rule outweighs an error.

    Without any verdict it is INCONCLUSIVE: no test ran, so nothing is known.
    """
    order = [
        Verdict.PASS,
        Verdict.SKIP,
        Verdict.INCONCLUSIVE,
        Verdict.ERROR,
        Verdict.FAIL,
    ]
    return max(verdicts, key=order.index, default=Verdict.INCONCLUSIVE)
