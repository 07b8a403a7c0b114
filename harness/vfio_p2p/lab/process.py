# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMUs of a lab, which outlive the command that has started them.

A process is known by two adjacent arguments that no other process has: the
option ``-pidfile`` and a path in the folder of the lab.  So it is found even
if whoever started it was killed at once, or if the folder was deleted.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vfio_p2p.errors import HostError

_PROC = Path("/proc")
# SIGKILL takes as long as the kernel needs to free the VM's memory.
_KILLED_S = 60.0


def find_processes(marker: Sequence[str]) -> list[int]:
    """Find the processes that have some adjacent arguments.

    :param marker: The arguments.
    :return: Their PIDs.
    """
    numbers = (int(x.name) for x in _PROC.iterdir() if x.name.isdigit())
    return sorted(pid for pid in numbers if _has(pid, marker))


def _has(pid: int, marker: Sequence[str]) -> bool:
    wanted = [os.fsencode(x) for x in marker]
    try:
        line = (_PROC / f"{pid}" / "cmdline").read_bytes()
    except OSError:
        return False
    arguments = line.split(b"\0")
    return any(
        arguments[i : i + len(wanted)] == wanted
        for i in range(len(arguments) - len(wanted))
    )


def end_processes(marker: Sequence[str], grace_s: float = 5.0) -> int:
    """End the processes that have some adjacent arguments, and wait for it.

    :param marker: The arguments.
    :param grace_s: The time that they have to end upon SIGTERM.
    :return: Their number.
    :raise HostError: When one cannot be ended.
    """
    ended = 0
    for pid in find_processes(marker):
        with _handle(pid, marker) as fd:
            if fd is None:
                continue
            ended += 1
            _send(pid, fd, signal.SIGTERM)
            # A process that was stopped would not see the signal.
            _send(pid, fd, signal.SIGCONT)
            if _over(fd, grace_s):
                continue
            _send(pid, fd, signal.SIGKILL)
            if not _over(fd, _KILLED_S):
                raise HostError(
                    f"process {pid} of the lab does not end",
                    "Look for the reason with 'ps' and 'dmesg'.",
                )
    return ended


@contextmanager
def _handle(pid: int, marker: Sequence[str]) -> Iterator[int | None]:
    """Open a process; None if the number now belongs to another one."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # The number cannot go to another process from now on unnoticed.
        yield fd if _has(pid, marker) else None
    finally:
        os.close(fd)


def _send(pid: int, fd: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        pass
    except PermissionError as err:
        raise HostError(
            f"process {pid} of the lab belongs to another user",
            "End the lab as the user who has started it.",
        ) from err


def _over(fd: int, limit_s: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(limit_s * 1000))
