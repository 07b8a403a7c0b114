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
from vfio_p2p import cli
from vfio_p2p.errors import BuildError, NoSpaceError
from vfio_p2p.history.database import Entry
from vfio_p2p.plans.bisect import __main__ as step_main
from vfio_p2p.plans.bisect import driver
from vfio_p2p.plans.bisect.step import Job, NoFigureError
from vfio_p2p.plans.bisect.tree import ask
from vfio_p2p.progress import Progress
from vfio_p2p.scenario.model import Scenario

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
