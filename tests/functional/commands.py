# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests that run the command in a folder of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from avocado import Test

_LIMIT_S = 800.0


class CommandTest(Test):
    """A test of ``vfio-p2p run``."""

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command in a folder of its own."""
        return subprocess.run(
            [sys.executable, "-m", "vfio_p2p", *words],
            cwd=self.workdir,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )

    def reported(self, status: int, *words: str) -> dict[str, Any]:
        """Make a run, and return what is reported of it."""
        done = self.command("run", *words, "--json")
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        (found,) = json.loads(done.stdout)["runs"]
        return dict(found)
