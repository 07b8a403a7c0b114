# SPDX-License-Identifier: GPL-2.0-or-later
"""Claims of the documentation: the saving of patch 1, and `reproduce`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from avocado import Test
from testbed import program, run
from vfio_p2p.downtime.metrics import metrics
from vfio_p2p.scenario.load import load, load_profile
from vfio_p2p.verdict.reading import read_run


class Downtime(Test):
    """Figures that follow from what is known of the devices."""

    timeout = 1800

    def test_patch_1_saves_what_the_arc_takes(self) -> None:
        profile = load_profile("cx7")
        scenario = profile.replace(load("little-device-state"))
        saved_ns = profile.latency_us["STOP_COPY>STOP"] * 1000
        before, after = (
            metrics(
                read_run(
                    run(program(tree), scenario, Path(self.workdir, tree))
                ).breakdown
            )
            for tree in ("base", "patch-1")
        )
        # The phase takes what the arc takes, to the microsecond.  The rest
        # of the blackout also depends on where timers fire.
        phase = "phase.device-data-saved"
        self.assertAlmostEqual(
            before[phase] - after[phase], saved_ns, delta=saved_ns / 100
        )
        self.assertGreater(before["blackout"], after["blackout"])

    def test_reproduced_from_a_bundle(self) -> None:
        path, again = (Path(self.workdir, name) for name in ("1", "2"))
        first = run(program("patched"), "two-devices", path)
        # main() is not called: avocado's tests run outside of the main thread.
        done = subprocess.run(
            [
                sys.executable, "-m", "vfio_p2p",
                "reproduce", str(path), "--out", str(again),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("identical", done.stdout)
        self.assertEqual(
            (again / "digest").read_bytes(), first.files["digest"]
        )
