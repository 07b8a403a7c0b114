# SPDX-License-Identifier: GPL-2.0-or-later
"""The QMP monitors of a QEMU, and whether somebody holds them.

The kernel's lists of sockets tell which ones a process listens on and which
of those have a client, so that nobody need be disturbed to find out.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfio_p2p.agent import files
from vfio_p2p.agent.roots import Roots

_SOCKET = re.compile(r"socket:\[(\d+)\]")
# include/uapi/linux/net.h: SO_ACCEPTCON.
_LISTENS = 0x10000
# include/net/tcp_states.h.
_TCP_ESTABLISHED = "01"


@dataclass(frozen=True)
class MonitorSocket:
    """A socket on which a QEMU serves QMP.

    :param kind: ``unix`` or ``tcp``.
    :param address: Its path, or its ``HOST:PORT``.
    :param held: Whether a client is connected, or waits to be.
    """

    kind: str
    address: str
    held: bool

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"kind": self.kind, "address": self.address, "held": self.held}


@dataclass(frozen=True)
class UnixSocket:
    """One line of /proc/net/unix.

    :param inode: Its inode; 0 while it waits to be accepted.
    :param path: Its path; empty if it has none.
    :param listens: Whether it is being listened on.
    """

    inode: int
    path: str
    listens: bool


def unix_sockets(roots: Roots, pid: int) -> list[UnixSocket]:
    """Return the Unix sockets in the network namespace of a process.

    :param roots: Where the process is.
    :param pid: The process.
    """
    found = []
    text = files.text(roots.proc / str(pid) / "net/unix")
    for line in text.split("\n")[1:]:
        fields = line.split(None, 7)
        if len(fields) < 7:
            continue
        found.append(
            UnixSocket(
                int(fields[6]),
                fields[7] if len(fields) > 7 else "",
                bool(int(fields[3], 16) & _LISTENS),
            )
        )
    return found


def monitors_of(
    roots: Roots, pid: int, argv: list[str]
) -> list[MonitorSocket]:
    """Return the QMP monitors that a QEMU listens on.

    :param roots: Where its process is.
    :param pid: Its process.
    :param argv: Its command line.
    """
    process = roots.proc / str(pid)
    sockets = unix_sockets(roots, pid)
    own = _inodes(process / "fd")
    listening = [
        x.path for x in sockets if x.inode in own and x.listens and x.path
    ]
    found = []
    for path in _unix_paths(argv, listening):
        # The server's end of a connection has the path of the socket that
        # listens, also while it waits to be accepted.
        held = any(x.path == path and not x.listens for x in sockets)
        try:
            address = os.path.join(os.readlink(process / "cwd"), path)
        except OSError:
            address = path
        found.append(MonitorSocket("unix", address, held))
    for host, port in _tcp_addresses(argv):
        held = _tcp_held(process, port)
        found.append(MonitorSocket("tcp", f"{host}:{port}", held))
    return found


def _inodes(folder: Path) -> set[int]:
    found = set()
    for name in files.names(folder):
        try:
            link = _SOCKET.fullmatch(os.readlink(folder / name))
        except OSError:
            continue
        if link:
            found.add(int(link[1]))
    return found


def _options(argv: list[str]) -> list[tuple[str, str]]:
    return [
        (name.lstrip("-"), value)
        for name, value in zip(argv, argv[1:])
        if name.startswith("-")
    ]


def _pairs(value: str) -> dict[str, str]:
    first, *rest = value.split(",")
    found = {"": first}
    for part in rest:
        key, _, text = part.partition("=")
        found[key] = text or "on"
    return found


def _chardevs(argv: list[str]) -> dict[str, dict[str, str]]:
    """Return the character devices of all QMP monitors, by id."""
    chardevs = {}
    wanted = []
    for option, value in _options(argv):
        pairs = _pairs(value)
        if option == "chardev":
            chardevs[pairs.get("id", "")] = pairs
        elif option == "mon" and pairs.get("mode") == "control":
            wanted.append(pairs.get("chardev", pairs[""]))
        elif option == "object" and pairs[""].endswith("monitor-qmp"):
            wanted.append(pairs.get("chardev", ""))
        elif option in ("qmp", "qmp-pretty"):
            kind, _, rest = value.partition(":")
            direct = _pairs(rest)
            direct["kind"] = kind
            name = f"-{option}{len(wanted)}"
            chardevs[name] = direct
            wanted.append(name)
    # "-mon chardev=ID" may write the key first.
    names = [x.partition("chardev=")[2] or x for x in wanted]
    return {x: chardevs[x] for x in names if x in chardevs}


def _unix_paths(argv: list[str], listening: list[str]) -> list[str]:
    found = []
    for pairs in _chardevs(argv).values():
        if pairs.get("kind") == "unix":
            found.append(pairs[""])
        elif pairs.get("kind") is None and "path" in pairs:
            found.append(pairs["path"])
        elif pairs.get("kind") is None and "fd" in pairs:
            # libvirt passes a socket that it has bound: its monitor.
            found += [x for x in listening if "monitor" in x]
    return list(dict.fromkeys(found))


def _tcp_addresses(argv: list[str]) -> list[tuple[str, str]]:
    found = []
    for pairs in _chardevs(argv).values():
        if pairs.get("kind") in ("tcp", "telnet"):
            host, _, port = pairs[""].rpartition(":")
            found.append((host or "127.0.0.1", port))
        elif pairs.get("kind") is None and "port" in pairs:
            host = pairs.get("host", "127.0.0.1")
            found.append((host, pairs["port"]))
    return found


def _tcp_held(process: Path, port: str) -> bool:
    if not port.isdigit():
        return False
    wanted = f"{int(port):04X}"
    for name in ("tcp", "tcp6"):
        for line in files.text(process / "net" / name).split("\n")[1:]:
            fields = line.split()
            if (
                len(fields) > 3
                and fields[1].rpartition(":")[2] == wanted
                and fields[3] == _TCP_ESTABLISHED
            ):
                return True
    return False
