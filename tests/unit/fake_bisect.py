# SPDX-License-Identifier: GPL-2.0-or-later
"""A bisection in which each commit's file ``value`` is its measurement.

``fake_bisect.py HOME`` is the program that git runs; with more arguments it
is the command ``vfio-p2p bisect``.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from histories import MS, entry
from vfio_p2p.cli.bisect import report
from vfio_p2p.cli.context import Context, Printer
from vfio_p2p.cli.entry import guarded, make_parser, trap_signals
from vfio_p2p.errors import BuildError, NoSpaceError
from vfio_p2p.history.database import Entry
from vfio_p2p.plans.bisect.__main__ import main as step
from vfio_p2p.plans.bisect.search import Steps
from vfio_p2p.plans.bisect.step import NoFigureError, Probe
from vfio_p2p.plans.bisect.tree import ask
from vfio_p2p.progress import Progress
from vfio_p2p.scenario.model import Scenario

SCRIPT = (str(Path(__file__).resolve()),)


def measure(
    tree: Path,
    home: Path,
    probe: Probe,
    scenario: Scenario,
    progress: Progress,
) -> Entry:
    """Return the value of the file; with some values, never return."""
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
    return replace(entry(int(float(value) * MS), commit), seed=probe.seed)


def command(arguments: list[str]) -> int:
    """Run the command with these steps."""
    parsed = make_parser("bisect").parse_args(["bisect", *arguments])
    trap_signals()
    context = Context(Printer(), json=parsed.json)
    return report(parsed.request(parsed), context, Steps(measure, SCRIPT))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit(step(Path(sys.argv[1]), measure))
    sys.exit(guarded(lambda: command(sys.argv[1:])))
