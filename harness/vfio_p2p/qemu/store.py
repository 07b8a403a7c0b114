# SPDX-License-Identifier: GPL-2.0-or-later
"""The store of builds: a folder for each build, named by its inputs.

Every folder in the store is whole: it is filled under another name, and
then renamed. It may be removed at any time, and is made again when needed.
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

from vfio_p2p.foreign import NOT_JSON, check_format
from vfio_p2p.machine.files import exclusive, publishing, used
from vfio_p2p.machine.process import bound
from vfio_p2p.qemu.job import FORMAT, BuildJob
from vfio_p2p.qemu.ninja import check_status
from vfio_p2p.qemu.worktree import BINARY

INFO = "build.json"


class BuildInfo(msgspec.Struct, frozen=True):
    """``build.json``.

    :param inputs: See `BuildJob.inputs`.
    :param origin: Where the source was from.
    :param revision: The commit of the source, if it was a git checkout.
    :param revision_s: The time of that commit, in Unix time.
    :param version: The first line that the binary prints on ``--version``.
    :param binary_bytes: The size of the stripped binary.
    :param binary_sha256: The digest of the stripped binary.
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

    :param directory: Holds the binary, ``build.json`` and ``build.log``.
    :param info: The content of ``build.json``.
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

        :raise UsageError: When a newer vfio-p2p has stored it.
        """
        directory = self.home / key
        if not used(directory):
            return None
        path = directory / INFO
        try:
            data = path.read_bytes()
            check_format(path, data, FORMAT)
            info = msgspec.json.decode(data, type=BuildInfo)
            digest = _sha256(directory / BINARY)
        except (FileNotFoundError, *NOT_JSON):
            return None
        if digest != info.binary_sha256:
            return None
        return Stored(directory, info)

    def add(self, job: BuildJob, binary: Path, log: Path) -> Stored:
        """Store a build, unless it was stored meanwhile.

        The same build may come from two work folders.

        :param job: The job that was built.
        :param binary: The binary, not stripped.
        :param log: The log of the build, to which this method appends.
        :raise BuildError: When the binary cannot be stripped or run.
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


def _fill(folder: Path, job: BuildJob, binary: Path, log: Path) -> BuildInfo:
    stripped = folder / BINARY
    revision = job.source.revision
    what = "--strip-debug" if job.symbols else "--strip-all"
    _run(log, "strip", what, "-o", str(stripped), str(binary))
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
    (folder / INFO).write_bytes(text)
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
