# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are either whole or absent, and locks between processes.

Three locks guard the cache. `exclusive` keeps two processes from making the
same entry. `used` keeps an entry from being pruned, for as long as a process
may read it. `unused` is what pruning takes: it fails while an entry is used.
A cache whose file system has no such locks is refused.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vfio_p2p.errors import NoSpaceError, UsageError
from vfio_p2p.machine.flock import check_holds, holds, take
from vfio_p2p.machine.temporary import PREFIX, temporary_folder

_LIBC = ctypes.CDLL(None, use_errno=True)

# renameat2(2)
_AT_FDCWD = -100
_EXCHANGE = 2

_FULL = (errno.ENOSPC, errno.EDQUOT)

# Descriptors of the entries that `used` holds, by device and inode.
_HELD: dict[tuple[int, int], int] = {}


@contextmanager
def exclusive(
    path: Path, waiting: Callable[[], None] | None = None
) -> Iterator[int]:
    """Hold a lock between processes; yields its file descriptor.

    A child that inherits the descriptor holds the lock as well. Pass it
    to children that would continue to work if this process were killed.

    :param path: The lock's file, made when it is missing.
    :param waiting: Called once if another process holds the lock.
    :raise UsageError: When there can be no lock: the folder is read-only,
        or its file system has no locks that hold.
    """
    with _locked(path, waiting, wait=True) as fd:
        assert fd is not None
        yield fd


@contextmanager
def exclusive_if_free(path: Path) -> Iterator[bool]:
    """Hold a lock as `exclusive` does, or yield False if it is taken.

    :param path: The lock's file, made when it is missing. It may be
                 removed while the lock is held: whoever waits for it
                 makes a new one.
    :raise UsageError: As `exclusive`.
    """
    with _locked(path, None, wait=False) as fd:
        yield fd is not None


@contextmanager
def _locked(
    path: Path, waiting: Callable[[], None] | None, *, wait: bool
) -> Iterator[int | None]:
    while True:
        fd = _open_lock(path)
        try:
            try:
                take(fd, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    yield None
                    return
                if waiting:
                    waiting()
                    waiting = None
                take(fd, path, fcntl.LOCK_EX)
            # A cache may be deleted at any time, including its locks. If
            # the file was, the next process will lock another one.
            if _same_file(fd, path):
                check_holds(fd, path)
                # Closed and not unlocked: unlocking would take the
                # lock away from children that still run.
                yield fd
                return
        finally:
            os.close(fd)


def _open_lock(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as err:
        if err.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise UsageError(
            f"{path.parent} cannot be written: {err.strerror}",
            "Set XDG_CACHE_HOME to a folder that you can write to.",
        ) from err


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def touch(path: Path) -> None:
    """Note that an entry of the cache is used now.

    :param path: A file or folder. A cache that is read-only, and an entry
                 that is missing, are left as they are.
    """
    with suppress(OSError):
        os.utime(path)


def used(path: Path) -> bool:
    """Note that an entry is used now, and until this process ends.

    Until then `unused` fails for it, so that it is not pruned. Call it
    before the entry is looked at: an entry that is there after the call
    stays.

    :param path: A file or folder.
    :return: Whether the entry is there.
    """
    fd = _hold(path)
    if fd is None:
        return False
    inode = os.fstat(fd)
    key = inode.st_dev, inode.st_ino
    if key in _HELD:
        os.close(fd)
    else:
        _HELD[key] = fd
    return True


@contextmanager
def using(path: Path) -> Iterator[bool]:
    """Use an entry within the block, as `used` does for a whole process.

    It is for entries of which a process uses many, one after another. It
    yields whether the entry is there.

    :param path: A file or folder.
    """
    fd = _hold(path)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)


def _hold(path: Path) -> int | None:
    """Open and lock an entry for its users; None if it is missing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # The wait is for a renaming at most.
        take(fd, path, fcntl.LOCK_SH)
        if _same_file(fd, path):
            touch(path)
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Keep others from beginning to use an entry; False if it is used.

    Rename the entry within the block if it shall go: whoever waits to use
    it then finds it missing.

    :param path: A file or folder; it counts as used when it is missing.
    :raise UsageError: When its file system has no locks that hold.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            take(fd, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        check_holds(fd, path)
        yield _same_file(fd, path)
    finally:
        os.close(fd)


@contextmanager
def publishing(final: Path) -> Iterator[Path]:
    """Make a folder under another name, and rename it when it is whole.

    Call it with a lock held that covers `final`. A folder of that name is
    replaced.

    :param final: The folder's final name.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    # Those that killed processes have left there are removed, too.
    with temporary_folder(final.parent) as folder:
        partial = folder / final.name
        partial.mkdir()
        yield partial
        _sync(partial)
        # An old folder is there until the new one is.
        if not _exchange(partial, final):
            remove_tree(final)
            partial.rename(final)
        _sync(final.parent)


def _exchange(new: Path, old: Path) -> bool:
    """Let two paths change places in one step.

    :return: Whether it was done: both must exist, on a file system that can
             do it.
    """
    renameat2 = getattr(_LIBC, "renameat2", None)
    if renameat2 is None:
        # musl has none.
        return False
    done: int = renameat2(
        _AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _EXCHANGE
    )
    return done == 0


def copy_files(source: Path, target: Path) -> None:
    """Copy the content of a folder: its files, and the folders in it.

    Permissions are those of new files: another user may have made the
    folder, with another umask.

    :param source: The folder.
    :param target: An empty folder.
    """
    for entry in os.scandir(source):
        copy = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            copy.mkdir()
            copy_files(Path(entry.path), copy)
        else:
            shutil.copyfile(entry.path, copy)


def _sync(folder: Path) -> None:
    """Write everything on the folder's file system to the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        if _LIBC.syncfs(fd):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(fd)


def write_whole(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Replace a file in one step; its folder is made if it is missing.

    :param path: The file.
    :param data: Its new content.
    :param mode: Its permissions, less those that the umask takes away.
    :raise UsageError: When something is there that is no regular file: a
                       device, a pipe, a folder or a link.
    :raise NoSpaceError: When the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise UsageError(
                f"{path} exists, and is not a regular file",
                "Name another file.",
            )
    try:
        new, fd = _beside(path, mode)
    except OSError as err:
        # The user knows this name.
        err.filename = str(path)
        raise
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            # Its lock keeps others from removing it.
            new.rename(path)
    except BaseException as err:
        new.unlink(missing_ok=True)
        if isinstance(err, OSError) and err.errno in _FULL:
            raise NoSpaceError(path) from err
        raise


def _beside(path: Path, mode: int) -> tuple[Path, int]:
    """Make the file that is going to be `path`, and open it.

    It has the same name each time, so that what a killed process has left is
    found, and is locked while its process writes it.  If another process
    does so, or there are no locks, it has a name of its own.
    """
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    usual = path.with_name(f".vfio-p2p.{name}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with suppress(OSError, UsageError):
        _discard(usual)
    with suppress(FileExistsError):
        fd = os.open(usual, flags, mode)
        try:
            take(fd, usual, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same_file(fd, usual):
                if holds(fd, usual):
                    return usual, fd
                usual.unlink()
        except BlockingIOError:
            # Who took it for one that is left removes it.
            pass
        except UsageError:
            usual.unlink(missing_ok=True)
        os.close(fd)
    own = path.with_name(f".vfio-p2p.{secrets.token_hex(8)}")
    return own, os.open(own, flags, mode)


def _discard(path: Path) -> None:
    """Remove a file, unless it is locked."""
    fd = os.open(
        path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    )
    try:
        take(fd, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _same_file(fd, path):
            path.unlink()
    finally:
        os.close(fd)


def remove_tree(path: Path) -> None:
    """Remove a folder and everything in it, if it is there.

    The folder is renamed first: one that is half removed must not be
    mistaken for a whole one.

    :param path: The folder. If it is a link, only the link is removed.
    """
    doomed = path.with_name(f".{path.name}.doomed")
    remove(doomed)
    if os.path.lexists(path):
        path.rename(doomed)
        remove(doomed)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it.

    :param path: It need not exist.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def nearest(path: Path) -> Path:
    """Return a path, or the nearest folder above it that exists.

    :param path: It need not exist yet.
    """
    return next(x for x in (path, *path.parents) if x.exists())


@contextmanager
def room_for(path: Path, needed_bytes: int) -> Iterator[None]:
    """Do work that needs room on the disk.

    :param path: Where the work is done; need not exist yet.
    :param needed_bytes: How much room the work needs.
    :raise NoSpaceError: When there is too little room, or when the work
                         has filled the disk.
    """
    if shutil.disk_usage(nearest(path)).free < needed_bytes:
        raise out_of_space(path, needed_bytes)
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise out_of_space(path, needed_bytes) from error


def out_of_space(path: Path, needed_bytes: int) -> NoSpaceError:
    """Return the error that says how much room is left under `path`."""
    for folder in path.parents:
        # It is gone when the message is read.
        if folder.name.startswith(f".{PREFIX}"):
            path = folder.parent
    free_bytes = shutil.disk_usage(nearest(path)).free
    return NoSpaceError(path, needed_bytes, free_bytes)
