# SPDX-License-Identifier: GPL-2.0-or-later
"""One lock per physical function, for exclusive use of its virtual ones.

The locks are files in a folder to which every user may write, so what is
found there is not trusted. They are never removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vfio_p2p.agent import files, users
from vfio_p2p.agent.arguments import WHO
from vfio_p2p.agent.failure import HOST, SKIP, AgentError
from vfio_p2p.agent.roots import Roots

# Everybody may lock the file, but only its owner may write to it.
_MODE = 0o644

# A killed agent's last write to the kernel may take a moment to end.
PATIENCE_S = 10.0

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_SHOWN = 160


@contextmanager
def locked(
    roots: Roots, pfs: Iterable[str], patience_s: float = PATIENCE_S
) -> Iterator[tuple[int, ...]]:
    """Hold the locks of physical functions; yields the open files.

    A child that inherits one of the files holds the lock as well.

    :param roots: Where the kernel's folders are.
    :param pfs: The addresses of the physical functions.
    :param patience_s: How long the last write of a killed agent may take.
    :raise AgentError: When another process has one of the locks.
    """
    taken: list[int] = []
    try:
        # The order is the same for everybody.
        for pf in sorted(set(pfs)):
            taken.append(_take(roots, pf, patience_s))
        yield tuple(taken)
    finally:
        for fd in taken:
            os.close(fd)


def lock_path(roots: Roots, pf: str) -> Path:
    """Return the file that is locked for a physical function."""
    return roots.lock / f"vfio-p2p-{pf}.lock"


def _take(roots: Roots, pf: str, patience_s: float) -> int:
    path = lock_path(roots, pf)
    until_s = time.monotonic() + patience_s
    while True:
        fd = _open(path)
        try:
            if _lock(fd, roots, pf, until_s) and _same_file(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        # The file was removed, or the lock may be free in a moment.
        os.close(fd)


def _lock(fd: int, roots: Roots, pf: str, until_s: float) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = holder(roots, fd)
        if pid is not None:
            raise _taken(roots, pf, pid) from None
        if time.monotonic() >= until_s:
            raise _unfinished(roots, pf, fd) from None
        time.sleep(0.05)
        return False
    return True


def _open(path: Path) -> int:
    for _ in range(2):
        # With O_CREAT, the kernel would refuse a file of another user
        # (fs.protected_regular).
        for flags in (_OPEN, _OPEN | os.O_CREAT | os.O_EXCL):
            try:
                fd = os.open(path, flags, _MODE)
            except (FileNotFoundError, FileExistsError):
                continue
            except OSError as err:
                raise _bad_lock(path, err.strerror or str(err)) from err
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise _bad_lock(path, "not a file")
            if flags != _OPEN:
                # Whatever our umask is.
                os.fchmod(fd, _MODE)
            return fd
    raise _bad_lock(path, os.strerror(errno.ENOENT))


def _bad_lock(path: Path, why: str) -> AgentError:
    return AgentError(
        f"{path}: {why}",
        "Every user must be able to read the file. Root makes it: 'vfio-p2p "
        "host prepare'.",
        HOST,
    )


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _taken(roots: Roots, pf: str, pid: int) -> AgentError:
    user = users.describe(roots, pid)["user"]
    since_s = users.started_s(roots, pid)
    since = ""
    if since_s is not None:
        # The clock is the host's, and so is its time zone.
        moment = time.localtime(since_s)
        since = time.strftime(", since %Y-%m-%d %H:%M:%S %Z", moment)
    return AgentError(
        f"{pf} is taken by {_command(roots, pid)}{since} (PID {pid}, user "
        f"{user})",
        "Wait until that process ends.",
        SKIP,
    )


def _unfinished(roots: Roots, pf: str, fd: int) -> AgentError:
    writers = sorted(_openers(roots, fd))
    who = f"PID {writers[0]}" if writers else "a process"
    return AgentError(
        f"{pf} is taken by {who}, a change that the kernel has not finished",
        "It waits for a device that is in use: end the process that has the "
        "device ('vfio-p2p host list' names it).",
        SKIP,
    )


def holder(roots: Roots, fd: int) -> int | None:
    """Return the process that locked a file.

    :param roots: Where the kernel's folders are.
    :param fd: The file, opened by us.
    :return: None if the process has ended, and a child holds the lock.
    """
    found = os.fstat(fd)
    major, minor = os.major(found.st_dev), os.minor(found.st_dev)
    exact = f"{major:02x}:{minor:02x}:{found.st_ino}"
    for line in files.text(roots.proc / "locks").split("\n"):
        # 1: FLOCK  ADVISORY  WRITE 337 00:19:1234 0 EOF
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == exact:
            pid = int(fields[4])
            if (roots.proc / str(pid)).exists():
                return pid
    return None


def _openers(roots: Roots, fd: int) -> Iterator[int]:
    """Yield the processes that have a file open."""
    wanted = os.fstat(fd)
    for name in files.names(roots.proc):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        for each in files.names(roots.proc / name / "fd"):
            with suppress(OSError):
                found = (roots.proc / name / "fd" / each).stat()
                if os.path.samestat(found, wanted):
                    yield int(name)
                    break


def _command(roots: Roots, pid: int) -> str:
    """Return what a process says that it does."""
    text = files.text(roots.proc / str(pid) / "cmdline")
    words = [x for x in text.split("\0") if x]
    if WHO in words[:-1]:
        shown = words[words.index(WHO) + 1]
    else:
        # Folders would take the room of what it is about.
        shown = " ".join(os.path.basename(x) for x in words)
    # The process is somebody else's, and may say anything.
    plain = "".join(x if x.isprintable() else "?" for x in shown)
    return plain[:_SHOWN] or "unknown"
