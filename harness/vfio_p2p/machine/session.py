# SPDX-License-Identifier: GPL-2.0-or-later
"""Sessions of processes, and their end."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def session_members(session: int) -> list[int]:
    """Return the processes of a session, without zombies.

    A process group would not cover them all: ninja gives every command
    a process group of its own.
    """
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):             # the process ended meanwhile
            # The name, in parentheses, may contain anything.
            fields = (entry / "stat").read_text(
                errors="replace"
            ).rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                members.append(int(entry.name))
    return members


def kill_session(session: int, *, led: bool) -> bool:
    """Kill the remaining processes of a session that we started.

    Call it until it returns False: a process may fork meanwhile.

    :param session: Number of the session, which is its leader's PID.
    :param led: Whether the leader has not been reaped yet.
    :return: Whether there was anything to kill.
    """
    members = session_members(session)
    # The kernel does not reuse the number before the session is empty. If
    # a process that we did not start has it, the session is not ours.
    if not led and session in members:
        return False
    for pid in members:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(members)
