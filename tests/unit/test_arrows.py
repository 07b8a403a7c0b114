# SPDX-License-Identifier: GPL-2.0-or-later
"""The arrows between the rooms of the package; see pyproject.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import vfio_p2p

CONFIGURATION = Path(__file__).parents[2] / "pyproject.toml"
PACKAGE = Path(vfio_p2p.__file__).parent
LINT = "from importlinter.cli import lint_imports_command as run; run()"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts on the package in a folder."""
    return subprocess.run(
        [
            sys.executable, "-c", LINT,
            str(CONFIGURATION), "--no-cache",
        ],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


def test_no_arrow_points_back() -> None:
    found = lint(PACKAGE.parent)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "4 kept, 0 broken" in found.stdout


def test_arrows_that_point_back_are_seen(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("data", "__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "vfio_p2p", ignore=ignored)
    for module, line in (
        ("trace/record.py", "from vfio_p2p.machine import files"),
        ("history/trend.py", "import vfio_p2p.places.sealed.cpio"),
        ("qemu/store.py", "from vfio_p2p.cli import options"),
        ("plans/matrix.py", "import argparse"),
        ("agent/roots.py", "import vfio_p2p.paths"),
    ):
        with (tmp_path / "vfio_p2p" / module).open("a") as file:
            file.write(f"{line}\n")
    found = lint(tmp_path)
    assert found.returncode == 1, found.stderr
    assert "0 kept, 4 broken" in found.stdout
    for arrow in (
        "vfio_p2p.trace.record -> vfio_p2p.machine.files",
        "vfio_p2p.history.trend -> vfio_p2p.places.sealed.cpio",
        "vfio_p2p.qemu.store -> vfio_p2p.cli",
        "vfio_p2p.plans.matrix -> argparse",
        "vfio_p2p.agent.roots -> vfio_p2p.paths",
    ):
        assert arrow in found.stdout
