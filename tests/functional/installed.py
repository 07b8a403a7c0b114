# SPDX-License-Identifier: GPL-2.0-or-later
"""The wheel, installed where there is no checkout, for a user without one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.paths import cache_dir

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "unit" / "data"

# The wheel is made from these; nothing else of the checkout is copied.
_SOURCES = (
    "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "harness",
    "images", "qemu-patches",
)
# The testbed and the builds are shared, so that nothing is built again.
_SHARED = ("builds", "downloads", "sources", "testbed")

# The user "nobody" of every Debian, whose home folder does not exist.
_NOBODY = 65534


@dataclass(frozen=True)
class Done:
    """A command that ended.

    :param code: Its exit code.
    """

    code: int
    out: str
    err: str


class Installed:
    """An installation of the wheel, and a user that has only that.

    The user is not root, has no HOME, and works in an empty folder that
    is read-only. The cache is a copy of ours.
    """

    def __init__(self) -> None:
        # A folder of the test may be closed to other users.
        self.root = Path(tempfile.mkdtemp(prefix="vfio-p2p-", dir="/var/tmp"))
        self.root.chmod(0o755)
        self.home = self.root / "user"
        self.empty = self.root / "empty"
        for folder in self.home, self.empty:
            folder.mkdir()
        self.empty.chmod(0o555)
        self.venv = self.root / "venv"

    def remove(self) -> None:
        """Remove the installation and everything that the user made."""
        shutil.rmtree(self.root)

    def install(self) -> None:
        """Build the sdist, the wheel from that, and install the wheel."""
        tree = self.root / "tree"
        tree.mkdir()
        for name in _SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(
                    ROOT / name,
                    tree / name,
                    symlinks=True,
                    ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"),
                )
            elif (ROOT / name).exists():
                shutil.copy(ROOT / name, tree)
        dist = self.root / "dist"
        dist.mkdir()
        self._call(
            sys.executable, "-c",
            "import sys; from setuptools import build_meta; "
            "build_meta.build_sdist(sys.argv[1])",
            str(dist), cwd=tree,
        )
        (sdist,) = dist.glob("*.tar.gz")
        self._call(
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps",
            "--no-index", "--no-build-isolation", f"--wheel-dir={dist}",
            str(sdist),
        )
        (wheel,) = dist.glob("*.whl")
        self._call(self._python(), "-m", "venv", str(self.venv))
        pip = (
            str(self.venv / "bin" / "python"), "-m", "pip", "install",
            "--quiet", "--disable-pip-version-check",
        )
        self._call(
            *pip, "--require-hashes", "-r", str(ROOT / "requirements.txt")
        )
        self._call(*pip, "--no-deps", "--no-index", str(wheel))
        shutil.rmtree(tree)

    def share_cache(self) -> None:
        """Give the user a copy of the builds and of the testbed."""
        there = self.home / "cache" / "vfio-p2p"
        there.mkdir(parents=True)
        for name in _SHARED:
            self._call("cp", "-a", str(cache_dir() / name), str(there))

    def give(self, path: Path) -> Path:
        """Copy a file or folder to the user; return where it is."""
        there = self.home / path.name
        self._call("cp", "-a", str(path), str(there))
        return there

    def run(
        self, *arguments: str | Path, codes: Collection[int] = (0,)
    ) -> Done:
        """Run ``vfio-p2p`` as the user.

        :param arguments: Its arguments.
        :param codes: The exit codes that are right.
        :raise AssertionError: When it ends with another one, or with a
                               traceback.
        """
        return self.run_program(
            [str(self.venv / "bin" / "vfio-p2p"), *map(str, arguments)],
            codes=codes,
        )

    def run_program(
        self, argv: Sequence[str], codes: Collection[int] = (0,)
    ) -> Done:
        """Run any program as the user; see `run`."""
        if os.geteuid() == 0:
            self._call("chown", "-R", f"{_NOBODY}:{_NOBODY}", str(self.home))
        kept = ("PATH", "http_proxy", "https_proxy", "no_proxy")
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in kept or name.startswith("PIP_")
        }
        done = subprocess.run(
            [*_as_user(), *argv],
            cwd=self.empty,
            env=environment
            | {
                "LC_ALL": "C.UTF-8",
                "XDG_CACHE_HOME": str(self.home / "cache"),
                "XDG_STATE_HOME": str(self.home / "state"),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        text = f"{argv[1:]} ended with {done.returncode}:\n{done.stderr}"
        assert "Traceback" not in done.stderr, text
        assert done.returncode in codes, text
        return Done(done.returncode, done.stdout, done.stderr)

    def commands(self) -> list[str]:
        """Return the names of all commands, as the help prints them."""
        return re.findall(
            r"^    ([a-z][a-z0-9-]*)\b", self.run("--help").out, re.MULTILINE
        )

    @staticmethod
    def _python() -> str:
        """Return a Python that the user can run, too."""
        for python in os.path.realpath(sys.executable), "/usr/bin/python3":
            code = "import sys, venv; sys.exit(sys.version_info < (3, 11))"
            done = subprocess.run(
                [*_as_user(), python, "-c", code],
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                return python
        raise AssertionError("another user than root has no Python here")

    @staticmethod
    def _call(*argv: str, cwd: Path | None = None) -> None:
        done = subprocess.run(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{argv}:\n{done.stdout}"


def _as_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    return [
        "setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}",
        # setpriv itself keeps its capabilities until it runs a program.
        "--clear-groups", "env",
    ]
