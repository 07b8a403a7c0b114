# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that does nothing, for others to look at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any


def sleeper(folder: Path, stderr: Any) -> subprocess.Popen[bytes]:
    """Start a process that has a certain stderr."""
    return subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=stderr,
    )
