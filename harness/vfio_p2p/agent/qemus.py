# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the QEMUs of this host, and what a companion needs to know of them.

Nothing is connected to: a monitor serves one client at a time, and a
connection that was tried keeps its place in the queue even if it is closed.

``qemus`` prints ``{"qemus": [...], "complete": BOOL}``; ``complete`` tells
whether all processes could be looked at.  ``qemus --pid N`` prints the one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vfio_p2p.agent import files, users
from vfio_p2p.agent.arguments import AgentParser
from vfio_p2p.agent.failure import SKIP, AgentError
from vfio_p2p.agent.monitors import monitors_of
from vfio_p2p.agent.roots import Roots

# A loader may be the program, with the binary as its argument.
_PROGRAM = re.compile(r"(?:.*/)?qemu-(?:system-[\w-]+|kvm)(?: \(deleted\))?")
_FIRST = 4
_VFIO = ("vfio-pci", "vfio-pci-nohotplug")


def run(arguments: list[str], roots: Roots) -> object:
    """Describe QEMUs.

    :param arguments: ``--pid N``, or nothing.
    :param roots: Where the processes are.
    :raise AgentError: When there is no such QEMU.
    """
    parser = AgentParser("qemus")
    parser.add_argument("--pid", type=int)
    wanted = parser.parse_args(arguments).pid
    found = []
    complete = True
    for name in files.names(roots.proc):
        if not name.isdigit() or (wanted and int(name) != wanted):
            continue
        argv = command_line(roots, int(name))
        if wanted or is_qemu(argv):
            described = describe(roots, int(name), argv)
            complete = complete and described["complete"]
            found.append(described)
    if wanted:
        if not found or not is_qemu(found[0]["argv"]):
            raise AgentError(
                f"process {wanted} is no QEMU"
                if found
                else f"there is no process {wanted}",
                "'vfio-p2p watch --list' lists the QEMUs of this host.",
                SKIP,
            )
        return found[0]
    return {"qemus": found, "complete": complete}


def command_line(roots: Roots, pid: int) -> list[str]:
    """Return the command line of a process; empty if it has none."""
    try:
        data = (roots.proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return data.decode(errors="surrogateescape").split("\0")[:-1]


def is_qemu(argv: list[str]) -> bool:
    """Return whether a command line is that of a QEMU that runs a VM."""
    named = any(_PROGRAM.fullmatch(x) for x in argv[:_FIRST])
    # A firmware or a test of another name is known by its options.
    return named or ("-device" in argv and "-machine" in argv)


def describe(roots: Roots, pid: int, argv: list[str]) -> dict[str, Any]:
    """Describe one QEMU.

    :param roots: Where its process is.
    :param pid: Its process.
    :param argv: Its command line.
    """
    process = roots.proc / str(pid)
    try:
        os.listdir(process / "fd")
        complete = True
    except OSError:
        complete = False
    return {
        **users.describe(roots, pid),
        "argv": argv,
        "started": started(roots, pid),
        "threads": sorted(
            int(x) for x in files.names(process / "task") if x.isdigit()
        ),
        "guest": guest_of(argv),
        "devices": list(vfio_devices(argv)),
        "incoming": (["", *values(argv, "incoming")])[-1],
        "log": log_of(roots, pid, argv),
        "timestamps": stamps(argv),
        "monitors": [
            x.document() for x in monitors_of(roots, pid, argv)
        ],
        "complete": complete,
    }


def started(roots: Roots, pid: int) -> int:
    """Return when a process started, in ticks since the host did.

    :param roots: Where the process is.
    :param pid: The process.
    :return: 0 if there is no such process, or it has ended.
    """
    text = files.text(roots.proc / str(pid) / "stat")
    fields = text.rpartition(")")[2].split()
    ended = len(fields) < 20 or fields[0] in "ZX"
    return 0 if ended else int(fields[19])


def values(argv: list[str], option: str) -> list[str]:
    """Return the values of an option of QEMU, in order."""
    names = (f"-{option}", f"--{option}")
    return [
        value
        for name, value in zip(argv, argv[1:])
        if name in names
    ]


def guest_of(argv: list[str]) -> str:
    """Return the name of a QEMU's guest; empty if it has none."""
    for value in values(argv, "name"):
        for part in value.split(","):
            key, equals, text = part.partition("=")
            if not equals:
                return key
            if key == "guest":
                return text
    return ""


def vfio_devices(argv: list[str]) -> Iterator[str]:
    """Yield the VFIO devices of a command line, as QEMU's traces call them."""
    for value in values(argv, "device"):
        if value.startswith("{"):
            # libvirt writes JSON; a regular expression is enough for it.
            found = dict(
                re.findall(r'"(driver|host|sysfsdev)"\s*:\s*"([^"]*)"', value)
            )
        else:
            driver, *rest = value.split(",")
            pairs = (x.partition("=") for x in rest)
            found = {"driver": driver, **{k: v for k, _, v in pairs}}
        if found.get("driver") not in _VFIO:
            continue
        if "sysfsdev" in found:
            yield os.path.basename(found["sysfsdev"])
        elif "host" in found:
            host = found["host"]
            yield host if host.count(":") == 2 else f"0000:{host}"


def stamps(argv: list[str]) -> bool:
    """Return whether QEMU was told to write times before its messages."""
    wanted = False
    for value in values(argv, "msg"):
        for part in value.split(","):
            key, _, text = part.partition("=")
            if key == "timestamp":
                wanted = text in ("", "on", "yes", "true", "y")
    return wanted


def log_of(roots: Roots, pid: int, argv: list[str]) -> dict[str, str]:
    """Return where the traces of a QEMU go.

    :return: ``path`` as this process can open it, and ``how``: ``-D``,
        ``stderr``, ``virtlogd``, or why there is no path.
    """
    process = roots.proc / str(pid)
    for value in reversed(values(argv, "D")):
        path = value if value.startswith("/") else os.path.join(
            _link(process / "cwd"), value
        )
        return {"path": _seen(process, path), "how": "-D"}
    link = _link(process / "fd/2")
    if link.startswith("pipe:["):
        path = _log_behind(roots, link, guest_of(argv))
        if path:
            return {"path": path, "how": "virtlogd"}
        return {"path": "", "how": "a pipe whose reader is not known"}
    if link == "/dev/null":
        return {"path": "", "how": "/dev/null"}
    if link.startswith(("/dev/pts/", "/dev/tty")):
        return {"path": "", "how": "a terminal"}
    if link.startswith("/"):
        gone = link.endswith(" (deleted)")
        return {
            "path": str(process / "fd/2") if gone else _seen(process, link),
            "how": "stderr",
        }
    return {"path": "", "how": link or "not known"}


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _seen(process: Path, path: str) -> str:
    """Return a path of a process, as seen from here."""
    if os.path.exists(path):
        return path
    other = f"{process}/root{path}"
    return other if os.path.exists(other) else path


def _log_behind(roots: Roots, pipe: str, guest: str) -> str:
    """Return the log that virtlogd writes what it reads from a pipe to."""
    for name in files.names(roots.proc):
        if not name.isdigit():
            continue
        if "virtlogd" not in files.text(roots.proc / name / "comm"):
            continue
        folder = roots.proc / name / "fd"
        links = {x: _link(folder / x) for x in files.names(folder)}
        readers = sorted(int(x) for x, y in links.items() if y == pipe)
        logs = {
            int(x): y for x, y in links.items() if y.endswith(".log")
        }
        # It names the log after the guest.  At first, the log's descriptor is
        # also next to its pipe's; after a rotation it may be any.
        for reader in readers:
            near = sorted(
                logs,
                key=lambda x: (
                    os.path.basename(logs[x]) != f"{guest}.log",
                    abs(x - reader),
                ),
            )
            if near:
                return logs[near[0]]
    return ""
