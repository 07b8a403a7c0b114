# SPDX-License-Identifier: GPL-2.0-or-later
"""A runner that is killed takes its QEMUs along."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

from bench import FAKE, SIDES, SOURCE, Bench, alive

VICTIM = """\
import asyncio
from pathlib import Path
from bench import DEVICES, SCENARIO, fakes
from vfio_p2p.scenario.argv import Launcher
from vfio_p2p.scenario.runner import run
from vfio_p2p.side import Side
asyncio.run(run(SCENARIO, fakes(Path({plan!r})), DEVICES, Path({out!r})))
"""


def test_sigkill_of_the_runner_takes_its_qemus_along(bench: Bench) -> None:
    plan = bench.plan(source={"active": [["mark"], ["hang"]]})
    bench.out.mkdir()
    script = VICTIM.format(plan=str(plan), out=str(bench.out))
    search = os.pathsep.join([str(FAKE.parent), *sys.path])
    environment = {
        **os.environ,
        "TMPDIR": str(bench.private),
        "PYTHONPATH": search,
    }
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment
    ) as victim:
        try:
            bench.wait_for(SOURCE)
            assert {alive(pid) for pid in bench.pids().values()} == {True}
        finally:
            victim.kill()
    # SIGKILL is pending when the runner is gone; death may take a moment.
    for _ in range(6000):
        if not any(map(alive, bench.pids().values())):
            break
        time.sleep(0.01)
    assert set(bench.pids()) == set(SIDES)
    # No process is left to remove the runner's folder of sockets.
    for path in bench.private.iterdir():
        shutil.rmtree(path)
