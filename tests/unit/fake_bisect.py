# SPDX-License-Identifier: GPL-2.0-or-later
"""A bisection in which a commit's file ``value`` says what is measured.

``fake_bisect.py HOME`` is what git runs; with more arguments it is the
command ``vfio-p2p bisect``.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from histories import MS, entry

from harness import cli
from harness.bisect import __main__ as step_main
from harness.bisect import driver
from harness.bisect.step import Job, NoFigureError
from harness.bisect.tree import ask
from harness.downtime.history import Entry
from harness.errors import BuildError, NoSpaceError
from harness.progress import Progress
from harness.scenario.model import Scenario

SCRIPT = (str(Path(__file__).resolve()),)


def measure(
    tree: Path, home: Path, job: Job, scenario: Scenario, progress: Progress
) -> Entry:
    """Measure what the file says; some of it takes for ever."""
    value = (tree / "value").read_text().strip()
    progress(0, 0, "measuring")
    if value == "slow":
        (home / "pid").write_text(str(os.getpid()))
        progress(0, 0, "sleeping")
        time.sleep(600)
    if value == "broken":
        raise BuildError("ninja failed with status 1", Path("log"))
    if value == "refused":
        raise NoFigureError("no blackout")
    if value == "full":
        raise NoSpaceError(home)
    commit = ask(tree, "rev-parse", "HEAD")
    return replace(entry(int(float(value) * MS), commit), seed=job.seed)


if __name__ == "__main__":
    patch = pytest.MonkeyPatch()
    if len(sys.argv) == 2:
        patch.setattr(step_main, "measure", measure)
        sys.exit(step_main.main(Path(sys.argv[1])))
    patch.setattr(driver, "measure", measure)
    patch.setattr(driver, "_SCRIPT", SCRIPT)
    sys.exit(cli.main(["bisect", *sys.argv[1:]]))
