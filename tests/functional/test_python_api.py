# SPDX-License-Identifier: GPL-2.0-or-later
"""The documented example of the Python API does what its page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from avocado import Test
from vfio_p2p.bundle.read import open_bundle

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "two_devices.py"


class PythonApi(Test):
    """A program that imports vfio_p2p can run what the commands run."""

    timeout = 900

    def test_two_devices_migrate_and_the_phases_add_up(self) -> None:
        out = Path(self.workdir)
        done = subprocess.run(
            [sys.executable, EXAMPLE, out],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
        first, blackout, *phases = done.stdout.splitlines()
        self.assertEqual(first, "patched, two-devices: pass, migrated")
        whole_ms = float(re.findall(r"blackout (\S+) ms", blackout)[0])
        parts_ms = [float(line.split()[1]) for line in phases]
        self.assertGreater(whole_ms, 10)
        self.assertEqual(len(parts_ms), 13)
        # Every figure is rounded to a microsecond.
        self.assertAlmostEqual(sum(parts_ms), whole_ms, delta=0.006)
        bundle = open_bundle(out / "two-devices")
        self.assertEqual(bundle.scenario.name, "two-devices")
