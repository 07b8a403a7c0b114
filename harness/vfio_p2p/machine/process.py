# SPDX-License-Identifier: GPL-2.0-or-later
"""Child processes that never outlive us."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1            # <linux/prctl.h>

# Looked up here, since little is safe between fork() and exec().
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(
    signum: signal.Signals = signal.SIGKILL,
) -> Callable[[], None]:
    """Make a ``preexec_fn`` after which the child dies when we die.

    The kernel means the *thread* that started the child: start it from
    one that lives as long as the child shall (prctl(2)).

    :param signum: The signal that the child gets.
    """
    parent = os.getpid()

    def arm() -> None:
        failed = _LIBC.prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        # The parent may have died before the prctl() took effect.
        if failed or os.getppid() != parent:
            os._exit(127)

    return arm


def session_members(session: int) -> list[int]:
    """Processes of a session, zombies left out.

    A group is not enough to catch them all: ninja gives every command
    a process group of its own.
    """
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):             # it ended meanwhile
            # The name, in parentheses, may contain anything.
            fields = (entry / "stat").read_text(
                errors="replace"
            ).rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                members.append(int(entry.name))
    return members


def kill_session(session: int, *, led: bool) -> bool:
    """Kill what is left of a session of ours; call it until that is gone.

    :param session: Number of the session, which is its leader's.
    :param led: Whether the leader has not been reaped yet.
    :return: Whether anything was there to be killed.
    """
    members = session_members(session)
    # The number is not given away before the session is empty: if somebody
    # has it whom we did not start, then nothing here is ours.
    if not led and session in members:
        return False
    for pid in members:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(members)


def end_session(process: subprocess.Popen[bytes], grace_s: float = 3) -> None:
    """End the leader of a session, and whatever else is in it.

    :param process: Started with ``start_new_session=True``.
    :param grace_s: Time for the leader to end by itself on SIGTERM.
    """
    if process.returncode is not None:
        return
    # Nothing is reaped before the end: until then the number of the
    # session cannot pass to somebody else.
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while process.pid in session_members(process.pid):
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    while kill_session(process.pid, led=True):
        time.sleep(0.01)
    process.wait()


@contextmanager
def owned(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    pass_fds: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a session of its own, gone on every way out of here.

    Its stdout is a pipe that takes stderr too; its stdin is empty. When
    we are killed it gets SIGTERM, on which ninja ends its own children.

    :param argv: Program and arguments.
    :param cwd: Its working directory.
    :param env: Its whole environment.
    :param pass_fds: File descriptors that it, and its children, inherit.
    """
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env=env,
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
    try:
        yield process
    finally:
        end_session(process)
        if process.stdout:
            process.stdout.close()
