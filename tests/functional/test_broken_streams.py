# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU refuses broken device streams, and the test notices if it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from avocado import Test

ROOT = Path(__file__).parents[2]

# The descriptor of the device's data stays open.
_LEAK = """\
From: A <a@b.c>
Subject: [PATCH] leak

---
--- a/hw/vfio/migration.c
+++ b/hw/vfio/migration.c
@@ -298,2 +298,1 @@
-    close(migration->data_fd);
     migration->data_fd = -1;
"""


class BrokenStreams(Test):
    """A few of those that 'make fuzz-load' loads, without AddressSanitizer."""

    timeout = 1800

    def load(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Load 2,000 streams."""
        return subprocess.run(
            [
                sys.executable, ROOT / "tools" / "fuzz-load.py", "--plain",
                "--streams", "2000", *words,
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def test_no_stream_ends_qemu(self) -> None:
        done = self.load()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("2000 streams were loaded", done.stdout)
        self.assertNotIn("\tnew\t", done.stdout)

    def test_a_descriptor_that_stays_open_is_noticed(self) -> None:
        patch = Path(self.workdir, "leak.patch")
        patch.write_text(_LEAK)
        done = self.load("--variant", f"patched+{patch}")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("new\ta descriptor was left open", done.stdout)
