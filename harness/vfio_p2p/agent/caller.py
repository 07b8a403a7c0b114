# SPDX-License-Identifier: GPL-2.0-or-later
"""What the user who runs the agent may do."""

from __future__ import annotations

import os
import resource
from typing import Any

from vfio_p2p.agent import files, tools
from vfio_p2p.agent.roots import Roots
from vfio_p2p.agent.users import user_name

_CAP_IPC_LOCK = 1 << 14


def caller(roots: Roots) -> dict[str, Any]:
    """Describe the user.

    :param roots: Where the kernel's folders are.
    """
    uid = os.geteuid()
    sudo = tools.find("sudo", roots)
    return {
        "uid": uid,
        "user": user_name(uid),
        "memlock_bytes": _memlock_bytes(roots),
        "root": uid == 0,
        "sudo": bool(sudo) and tools.ran([sudo, "-n", "true"]).ok,
    }


def _memlock_bytes(roots: Roots) -> int | None:
    """How much memory the user may lock; None if there is no limit."""
    for line in files.text(roots.proc / "self/status").split("\n"):
        name, _, value = line.partition(":")
        if name == "CapEff" and int(value, 16) & _CAP_IPC_LOCK:
            return None
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return None if limit == resource.RLIM_INFINITY else limit
