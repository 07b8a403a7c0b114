# SPDX-License-Identifier: GPL-2.0-or-later
"""Running configure and ninja: progress, log, and the end of the log."""

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

# As NINJA_STATUS in build_environment() has it.
_STEP = re.compile(rb"\[(\d+)/(\d+)\] ")


def run_logged(
    argv: Sequence[str],
    cwd: Path,
    log: Path,
    lock: int,
    progress: Progress,
) -> None:
    """Run a tool; what it prints is appended to the log.

    :param argv: Program and arguments.
    :param cwd: Where it runs.
    :param log: The log.
    :param lock: Descriptor of a lock that the tool's processes inherit:
                 if we are killed, it is free when the last one is gone.
    :param progress: Is told ninja's own step count.
    :raise BuildError: When the tool fails; it ended by itself then.
    :raise OSError: ENOSPC, when it failed for want of room.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with (
        log.open("ab") as file,
        owned(
            argv, cwd=cwd, env=build_environment(), pass_fds=[lock]
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
    """See whether a tool has done its work.

    :param program: Its path.
    :param status: Its exit status.
    :param log: The log.
    :param text: The last lines that it printed, in English.
    :raise BuildError: When it failed; it ended by itself then.
    :raise OSError: ENOSPC, when it failed for want of room.
    """
    if not status:
        return
    if os.strerror(errno.ENOSPC) in text:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    name = Path(program).name
    raise BuildError(f"{name} failed with status {status}", log, text)
