# SPDX-License-Identifier: GPL-2.0-or-later
"""The lines by which a LAVA dispatcher learns of test cases.

They are what ``lava-test-case`` prints, of lava-dispatcher 2026.10.  Each run
is a test case, with its blackout as the measurement; if two clocks were read,
another one has its bound.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.document import Document
from vfio_p2p.report.run import Run

# Any other verdict is neither a success nor a failure.
_RESULTS = {
    Verdict.PASS: "pass", Verdict.FAIL: "fail", Verdict.SKIP: "skip",
}  # fmt: skip


def render(document: Document) -> str:
    """Render all runs.

    :param document: The document.
    """
    seen: Counter[str] = Counter()
    lines: list[str] = []
    for run in document.runs:
        name = re.sub(
            r"[^A-Za-z0-9_.-]+", "-", f"{run.variant}.{run.scenario}"
        )
        seen[name] += 1
        if seen[name] > 1:
            name = f"{name}.{seen[name]}"
        lines += _cases(run, name)
    return "".join(f"<LAVA_SIGNAL_TESTCASE {line}>\n" for line in lines)


def _cases(run: Run, name: str) -> Iterator[str]:
    result = _RESULTS.get(run.verdict, "unknown")
    yield _case(name, result, run.blackout_ns)
    if run.blackout_bound_ns is not None:
        yield _case(f"{name}.bound", result, run.blackout_bound_ns)


def _case(name: str, result: str, time_ns: int | None) -> str:
    line = f"TEST_CASE_ID={name} RESULT={result}"
    if time_ns is None:
        return line
    return f"{line} UNITS=ms MEASUREMENT={time_ns / 1e6:.6f}"
