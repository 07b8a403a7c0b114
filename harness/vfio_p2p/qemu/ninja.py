# SPDX-License-Identifier: GPL-2.0-or-later
"""Running configure and ninja, with their progress and their log."""

from __future__ import annotations

import errno
import os
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from vfio_p2p.errors import BuildError
from vfio_p2p.machine.process import owned
from vfio_p2p.progress import Progress
from vfio_p2p.qemu.recipe import build_environment

TAIL_LINES = 20

# The format is that of NINJA_STATUS in build_environment().
_STEP = re.compile(rb"\[(\d+)/(\d+)\] ")


def run_logged(
    argv: Sequence[str],
    cwd: Path,
    log: Path,
    lock: int,
    progress: Progress,
) -> None:
    """Run a tool, and append its output to the log.

    :param argv: The program and its arguments.
    :param cwd: The working directory of the tool.
    :param log: The log.
    :param lock: The descriptor of a lock that the tool's processes inherit.
                 If this process is killed, the lock is released when the
                 last of them is gone.
    :param progress: Told the count of steps that ninja prints.
    :raise BuildError: When the tool fails. It has ended by itself then.
    :raise OSError: With ENOSPC, when the tool failed for lack of room.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with (
        log.open("ab") as file,
        owned(
            argv, cwd=cwd, env=build_environment(), pass_fds=[lock],
            network=False,
        ) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            file.write(line)
            tail.append(line.decode(errors="replace").rstrip())
            step = _STEP.match(line)
            if step:
                progress(int(step[1]), int(step[2]), "compiling")
        status = process.wait()
    check_status(argv[0], status, log, "\n".join(tail))


def check_status(program: str, status: int, log: Path, text: str) -> None:
    """Check that a tool succeeded.

    :param program: The tool's path.
    :param status: The tool's exit status.
    :param log: The log.
    :param text: The last lines that the tool printed, in English.
    :raise BuildError: When the tool failed. It has ended by itself then.
    :raise OSError: With ENOSPC, when the tool failed for lack of room.
    """
    if not status:
        return
    if os.strerror(errno.ENOSPC) in text:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    name = Path(program).name
    raise BuildError(f"{name} failed with status {status}", log, text)
