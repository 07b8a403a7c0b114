# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes that have VFIO devices open."""

from __future__ import annotations

import os
import pwd
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vfio_p2p.agent import files
from vfio_p2p.agent.roots import Roots

# In a container, a node may be seen below another folder.
_GROUP = re.compile(r"(?:.*/)?vfio/(\d+)(?: \(deleted\))?")
_CDEV = re.compile(r"(?:.*/)?vfio/devices/(vfio\d+)(?: \(deleted\))?")
_DEVICE = "anon_inode:[vfio-device]"
_BOOTED = re.compile(r"^btime (\d+)$", re.MULTILINE)
# Where proc(5) has starttime behind the name of the program.
_STARTTIME = 19
# Linux 6.18 and later.
_SYSPATH = re.compile(r"^vfio-device-syspath:\s*(\S+)", re.MULTILINE)


@dataclass
class Users:
    """Who has what open.

    :param groups: Processes by the number of the IOMMU group.
    :param cdevs: Processes by the name of the device's node.
    :param addresses: Processes by the device's PCI address.
    :param unknown: Processes that have a device open, of which is not known
        which one it is.
    :param complete: Whether all processes could be looked at.
    """

    groups: dict[int, set[int]] = field(
        default_factory=lambda: defaultdict(set)
    )
    cdevs: dict[str, set[int]] = field(
        default_factory=lambda: defaultdict(set)
    )
    addresses: dict[str, set[int]] = field(
        default_factory=lambda: defaultdict(set)
    )
    unknown: set[int] = field(default_factory=set)
    complete: bool = True

    def of(self, function: dict[str, Any]) -> set[int]:
        """Return the processes that have a function open.

        A process that has one of a group's devices has the group.

        :param function: The description of the function.
        """
        found = set(self.addresses.get(function["address"], ()))
        if function["iommu_group"] is not None:
            found |= self.groups.get(function["iommu_group"], set())
        if function["vfio"]["cdev"]:
            found |= self.cdevs.get(function["vfio"]["cdev"], set())
        return found


def look(roots: Roots, own: int) -> Users:
    """Find all processes that have VFIO devices open.

    :param roots: Where the kernel's folders are.
    :param own: The number of this process, which does not count.
    """
    users = Users()
    # A procfs may hide the processes of other users altogether.
    if not (roots.proc / "1").exists():
        users.complete = False
    for name in files.names(roots.proc):
        if name.isdigit() and int(name) != own:
            _look_at(roots.proc / name, users)
    return users


def _look_at(process: Path, users: Users) -> None:
    pid = int(process.name)
    try:
        descriptors = os.listdir(process / "fd")
    except PermissionError:
        users.complete = False
        return
    except OSError:
        # It has ended.
        return
    known = device = False
    for each in descriptors:
        try:
            link = os.readlink(process / "fd" / each)
        except OSError:
            continue
        group, cdev = _GROUP.fullmatch(link), _CDEV.fullmatch(link)
        if group:
            users.groups[int(group[1])].add(pid)
            known = True
        elif cdev:
            users.cdevs[cdev[1]].add(pid)
            known = True
        elif link == _DEVICE:
            told = _SYSPATH.search(files.text(process / "fdinfo" / each))
            if told:
                users.addresses[os.path.basename(told[1])].add(pid)
                known = True
            device = True
    if device and not known:
        users.unknown.add(pid)


def describe(roots: Roots, pid: int) -> dict[str, Any]:
    """Return the number, program and user of a process.

    :param roots: Where the kernel's folders are.
    :param pid: The number of the process.
    """
    process = roots.proc / str(pid)
    # The name that the kernel keeps is cut.
    program = files.text(process / "cmdline").split("\0")[0]
    try:
        uid = process.stat().st_uid
    except OSError:
        user = ""
    else:
        user = user_name(uid)
    return {
        "pid": pid,
        "name": os.path.basename(program) or files.text(process / "comm"),
        "user": user,
    }


def started_s(roots: Roots, pid: int) -> float | None:
    """Return when a process started, in seconds since 1970.

    :param roots: Where the kernel's folders are.
    :param pid: The number of the process.
    :return: None if the process has ended.
    """
    boot = _BOOTED.search(files.text(roots.proc / "stat"))
    # The name in parentheses may contain anything.
    fields = files.text(roots.proc / str(pid) / "stat").rpartition(")")[2]
    words = fields.split()
    if boot is None or len(words) <= _STARTTIME:
        return None
    ticks = int(words[_STARTTIME])
    return int(boot[1]) + ticks / os.sysconf("SC_CLK_TCK")


def user_name(uid: int) -> str:
    """Return the name of a user, or the number if there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
