# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks of open files, and file systems on which they do not hold."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from vfio_p2p.errors import UsageError

_LACKING = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_MOUNTS = Path("/proc/self/mountinfo")
# NFS with one of these locks files within one machine only (nfs(5)).
_LOCAL = {"nolock", "local_lock=flock", "local_lock=all"}

# Whether locks hold, by the number of the file system.
_KNOWN: dict[int, bool] = {}


def take(fd: int, path: Path, operation: int) -> None:
    """Lock an open file or folder; see flock(2).

    :param fd: Its descriptor.
    :param path: Its path, for messages.
    :param operation: The argument of flock(2).
    :raise BlockingIOError: When another one has locked it.
    :raise UsageError: When its file system has no locks.
    """
    try:
        fcntl.flock(fd, operation)
    except OSError as err:
        if err.errno not in _LACKING:
            raise
        raise _no_locks(path, os.strerror(err.errno)) from err


def _no_locks(path: Path, why: str) -> UsageError:
    """Return the error that says that a cache cannot be locked.

    :param path: A file or folder that was to be locked.
    :param why: What is wrong with its locks.
    """
    return UsageError(
        f"the file system of {path.parent} has no locks that hold: {why}",
        "Set XDG_CACHE_HOME to a folder on a disk of this machine.",
    )


def holds(fd: int, path: Path) -> bool:
    """Return whether a lock keeps others out, as it should.

    :param fd: The descriptor of a file or folder that is locked, and not
        shared.
    :param path: Its path.
    """
    device = os.fstat(fd).st_dev
    if device not in _KNOWN:
        mounts = ""
        with suppress(OSError):
            mounts = _MOUNTS.read_text(errors="replace")
        _KNOWN[device] = _keeps_out(path) and not _is_local(device, mounts)
    return _KNOWN[device]


def check_holds(fd: int, path: Path) -> None:
    """See that a lock keeps others out; the parameters are as for `holds`.

    :raise UsageError: When it does not.
    """
    if not holds(fd, path):
        raise _no_locks(path, "two processes can have the same one")


def _keeps_out(path: Path) -> bool:
    other = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(other)
    return False


def _is_local(device: int, mounts: str) -> bool:
    """Return whether other machines do not see the locks."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, *_, options = after.split(" ")
        if before.split(" ")[2] == number and kind in ("nfs", "nfs4"):
            return not _LOCAL.isdisjoint(options.split(","))
    return False
