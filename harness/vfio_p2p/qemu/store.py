# SPDX-License-Identifier: GPL-2.0-or-later
"""The store of builds: a folder per build, named by what went in.

A folder that is there is whole: it is filled under another name and
renamed. It may be removed at any time, and is made again when needed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vfio_p2p.machine.files import exclusive, publishing, used
from vfio_p2p.machine.process import bound
from vfio_p2p.qemu.job import FORMAT, Job
from vfio_p2p.qemu.ninja import check_status
from vfio_p2p.qemu.worktree import BINARY


class BuildInfo(msgspec.Struct, frozen=True):
    """``build.json``.

    :param inputs: See `Job.inputs`.
    :param origin: Where the source was from when it was built.
    :param revision: Its commit then, if git looked after it.
    :param revision_s: When that was committed.
    :param version: First line of what the binary says to ``--version``.
    :param binary_bytes: Size of the stripped binary.
    :param binary_sha256: Its digest.
    """

    format: int
    inputs: dict[str, Any]
    origin: str
    version: str
    binary_bytes: int
    binary_sha256: str
    revision: str = ""
    revision_s: int | None = None


@dataclass(frozen=True)
class Stored:
    """A build in the store.

    :param directory: Has the binary, ``build.json`` and ``build.log``.
    :param info: Its ``build.json``.
    """

    directory: Path
    info: BuildInfo

    @property
    def binary(self) -> Path:
        """The stripped ``qemu-system-x86_64``."""
        return self.directory / BINARY


@dataclass(frozen=True)
class Store:
    """A folder of builds.

    :param home: The folder.
    """

    home: Path

    def find(self, key: str) -> Stored | None:
        """Find a build; None if it is missing or damaged.

        A build that was found is not pruned before this process ends.
        """
        directory = self.home / key
        if not used(directory):
            return None
        try:
            info = msgspec.json.decode(
                (directory / "build.json").read_bytes(), type=BuildInfo
            )
            digest = _sha256(directory / BINARY)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        if digest != info.binary_sha256:
            return None
        return Stored(directory, info)

    def add(self, job: Job, binary: Path, log: Path) -> Stored:
        """Put a build in, unless another folder's work brought it already.

        :param job: What was built.
        :param binary: What came out, not stripped.
        :param log: What was printed on the way; gets what is printed here.
        :raise BuildError: When it cannot be stripped, or does not run.
        """
        with exclusive(self.home / "lock"):
            stored = self.find(job.key)
            if stored:
                return stored
            directory = self.home / job.key
            with publishing(directory) as partial:
                info = _fill(partial, job, binary, log)
            used(directory)
        return Stored(directory, info)


def _fill(folder: Path, job: Job, binary: Path, log: Path) -> BuildInfo:
    stripped = folder / BINARY
    revision = job.source.revision
    _run(log, "strip", "-o", str(stripped), str(binary))
    info = BuildInfo(
        format=FORMAT,
        inputs=job.inputs(),
        origin=job.source.origin,
        version=_run(log, str(stripped), "--version").partition("\n")[0],
        binary_bytes=stripped.stat().st_size,
        binary_sha256=_sha256(stripped),
        revision=revision.commit if revision else "",
        revision_s=revision.time_s if revision else None,
    )
    text = msgspec.json.format(msgspec.json.encode(info)) + b"\n"
    (folder / "build.json").write_bytes(text)
    shutil.copyfile(log, folder / "build.log")
    return info


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(log: Path, *argv: str) -> str:
    done = subprocess.run(
        bound(argv),
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    with log.open("a") as file:
        file.write(done.stderr)
    check_status(argv[0], done.returncode, log, done.stderr.rstrip())
    return done.stdout
