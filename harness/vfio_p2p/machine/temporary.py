# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders that do not outlive their process for long.

A process that is killed removes nothing.  So a folder is locked as long as
its process lives, and whoever makes the next one removes those that are not.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vfio_p2p.errors import UsageError
from vfio_p2p.machine.flock import holds, take

PREFIX = "vfio-p2p-tmp-"


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make a folder, and remove it at the end.

    Folders that killed processes of the same user have left beside it are
    removed as well.

    :param parent: Where it is made; by default the folder for temporary
        files.  In other folders, its name begins with a dot.
    """
    prefix = f".{PREFIX}" if parent else PREFIX
    where = parent or Path(tempfile.gettempdir())
    folder, fd = _locked(where, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def _locked(where: Path, prefix: str) -> tuple[Path, int]:
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
        except OSError as err:
            # The user knows this name.
            err.filename = str(where)
            raise
        # Somebody may take it for one that is left, and remove it.
        with suppress(FileNotFoundError):
            fd = _open(folder)
            try:
                take(fd, folder, fcntl.LOCK_EX)
            except UsageError:
                # Nobody can lock it, and so nobody removes it.
                return folder, fd
            if folder.exists():
                if holds(fd, folder):
                    sweep(where, prefix)
                return folder, fd
            os.close(fd)


def sweep(where: Path, prefix: str = f".{PREFIX}") -> None:
    """Remove the folders that killed processes of the same user have left.

    :param where: The folder that they are in.
    :param prefix: How their names begin.
    """
    for folder in where.glob(f"{prefix}*"):
        # Of another user, or removed by somebody else meanwhile.
        with suppress(OSError):
            fd = _open(folder)
            try:
                if os.fstat(fd).st_uid == os.geteuid():
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
            finally:
                os.close(fd)


def _open(folder: Path) -> int:
    return os.open(
        folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    )
