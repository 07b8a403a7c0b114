# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the kernel's folders are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Roots:
    """The folders that the agent reads and writes.

    They are parameters of functions, so that other folders can stand in for
    them; nothing that a user could set by accident does so.

    :param sys: The folder of sysfs, with debugfs below it.
    :param proc: The folder of processes.
    :param dev: The folder of device nodes.
    :param run: The folder of what is forgotten when the host restarts.
    :param lock: The folder of locks, to which every user may write.
    :param modules: The folder of kernel modules, by kernel.
    :param tools: Where root's programs are; a user's PATH may lack them.
    """

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    run: Path = Path("/run")
    lock: Path = Path("/run/lock")
    modules: Path = Path("/lib/modules")
    tools: tuple[str, ...] = ("/usr/sbin", "/sbin", "/usr/local/sbin")
