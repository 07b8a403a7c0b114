# SPDX-License-Identifier: GPL-2.0-or-later
"""Print a report of vfio-p2p as ``lava-test-case`` commands.

    python3 lava_results.py out/report.json | sh

Each run is a test case, with its blackout as the measurement. If the blackout
was measured with two clocks, a second test case has its bound.  It needs
Python 3.9 and nothing else.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Any other verdict is neither a success nor a failure.
_RESULTS = {"pass": "pass", "fail": "fail", "skip": "skip"}


def commands(document: dict[str, Any]) -> Iterator[str]:
    """Yield a shell command for each test case.

    :param document: The content of ``report.json``.
    """
    seen: dict[str, int] = {}
    for run in document["runs"]:
        name = re.sub(
            r"[^A-Za-z0-9_.-]+", "-", f"{run['variant']}.{run['scenario']}"
        )
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            name = f"{name}.{seen[name]}"
        result = _RESULTS.get(run["verdict"], "unknown")
        yield _command(name, result, run["blackout_ns"])
        bound_ns = run.get("blackout_bound_ns")
        if bound_ns is not None:
            yield _command(f"{name}.bound", result, bound_ns)


def _command(name: str, result: str, time_ns: int | None) -> str:
    words = ["lava-test-case", name, "--result", result]
    if time_ns is not None:
        words += ["--measurement", f"{time_ns / 1e6:.6f}", "--units", "ms"]
    return shlex.join(words)


if __name__ == "__main__":
    for line in commands(json.loads(Path(sys.argv[1]).read_text())):
        print(line)
