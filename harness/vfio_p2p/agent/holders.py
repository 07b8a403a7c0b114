# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes that keep functions from being changed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vfio_p2p.agent import files, users
from vfio_p2p.agent.failure import SKIP, AgentError
from vfio_p2p.agent.functions import (
    folder_of,
    group_node,
    netdevs_up,
    own_node,
)
from vfio_p2p.agent.roots import Roots


def vfio_users(
    roots: Roots, addresses: Iterable[str]
) -> dict[str, set[int]]:
    """Return the processes that have functions open with VFIO.

    :param roots: Where the kernel's folders are.
    :param addresses: The functions. Those without users are left out.
    """
    seen = users.look(roots, os.getpid())
    found = {}
    for address in addresses:
        node = group_node(roots, address)
        group = int(node.name) if node and node.name.isdigit() else None
        own = own_node(roots, address)
        pids = seen.of({
            "address": address,
            "iommu_group": group,
            "vfio": {"cdev": own.name if own else ""},
        })
        if pids:
            found[address] = pids
    return found


def other_uses(roots: Roots, address: str) -> list[str]:
    """Say what uses a function through a driver that is not of VFIO.

    :return: Network devices that are up, mounted file systems, and processes
        that have one of the function's nodes open, such as those of RDMA.
    """
    found = [f"{name} is up" for name in netdevs_up(roots, address)]
    numbers = set()
    for folder, _, names in os.walk(folder_of(roots, address).resolve()):
        if "dev" in names:
            numbers.add(files.text(Path(folder) / "dev"))
    if numbers:
        for line in files.text(roots.proc / "self/mountinfo").split("\n"):
            fields = line.split()
            if len(fields) > 4 and fields[2] in numbers:
                found.append(f"it is mounted on {fields[4]}")
        found += [
            f"{named(roots, pid)} has it open"
            for pid in sorted(_with_nodes(roots, numbers))
        ]
    return found


def _with_nodes(roots: Roots, numbers: set[str]) -> set[int]:
    found = set()
    for name in files.names(roots.proc):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        folder = roots.proc / name / "fd"
        for each in files.names(folder):
            try:
                node = (folder / each).stat()
            except OSError:
                continue
            number = f"{os.major(node.st_rdev)}:{os.minor(node.st_rdev)}"
            if number in numbers:
                found.add(int(name))
    return found


def named(roots: Roots, pid: int) -> str:
    """Name a process by its number, program and user."""
    found = users.describe(roots, pid)
    return f"PID {pid} ({found['name']}, user {found['user']})"


def holders_of(roots: Roots, addresses: Iterable[str]) -> str:
    """Name the processes that have functions open with VFIO, or nobody."""
    pids = set().union(*vfio_users(roots, addresses).values(), set())
    return ", ".join(named(roots, pid) for pid in sorted(pids))


def refuse_used(roots: Roots, addresses: Iterable[str]) -> None:
    """Refuse to change functions that a process has open with VFIO.

    :raise AgentError: When there is such a process.
    """
    for address, pids in vfio_users(roots, addresses).items():
        who = ", ".join(named(roots, pid) for pid in sorted(pids))
        raise AgentError(
            f"{address} is in use by {who}",
            "Wait until that process ends, or end it, and repeat the "
            "command.",
            SKIP,
        )
