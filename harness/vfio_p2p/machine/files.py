# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are whole or not there, and locks that outlast a kill."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vfio_p2p.errors import NoSpaceError

_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def exclusive(
    path: Path, waiting: Callable[[], None] | None = None
) -> Iterator[int]:
    """Hold a lock between processes; yields its file descriptor.

    A child that inherits the descriptor holds the lock as well: pass it
    on to children that would go on working if we were killed.

    :param path: The lock's file, made when it is missing and never
                 removed by us.
    :param waiting: Called once if somebody else holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting:
                    waiting()
                fcntl.flock(fd, fcntl.LOCK_EX)
            # A cache may be deleted at any time, its locks included:
            # then this is not the file that the next one will lock.
            if _same_file(fd, path):
                # Closed and not unlocked: unlocking would take the
                # lock away from children that still run.
                yield fd
                return
        finally:
            os.close(fd)


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def publishing(final: Path) -> Iterator[Path]:
    """Make a folder under another name, and rename it when it is whole.

    Call it with a lock held that covers `final`; what is found there
    is replaced.

    :param final: The folder's name in the end.
    """
    partial = final.with_name(f".{final.name}.partial")
    remove_tree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        _sync(partial)
        remove_tree(final)
        partial.rename(final)
        _sync(final.parent)
    except BaseException:
        remove_tree(partial)
        raise


def _sync(folder: Path) -> None:
    """Write everything on the folder's file system to the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        if _LIBC.syncfs(fd):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(fd)


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file in one step; its folder is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
        os.rename(name, path)
    except BaseException:
        os.unlink(name)
        raise


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it, or nothing if it is gone.

    It gets another name first: a folder that is half removed must not
    be taken for a whole one.

    :param path: The folder; of a link, the link alone is removed.
    """
    doomed = path.with_name(f".{path.name}.doomed")
    _remove(doomed)
    if os.path.lexists(path):
        path.rename(doomed)
        _remove(doomed)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def room_for(path: Path, needed_bytes: int) -> Iterator[None]:
    """Work that needs room on the disk.

    :param path: Where it works; need not exist yet.
    :param needed_bytes: How much it needs.
    :raise NoSpaceError: When there is too little, or it ran out on the
                         way.
    """
    there = next(x for x in (path, *path.parents) if x.exists())
    if shutil.disk_usage(there).free < needed_bytes:
        raise out_of_space(path, needed_bytes)
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise out_of_space(path, needed_bytes) from error


def out_of_space(path: Path, needed_bytes: int) -> NoSpaceError:
    """The error that says how much room there is under `path` now."""
    there = next(x for x in (path, *path.parents) if x.exists())
    free_bytes = shutil.disk_usage(there).free
    return NoSpaceError(path, needed_bytes, free_bytes)
