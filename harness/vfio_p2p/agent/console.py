# SPDX-License-Identifier: GPL-2.0-or-later
"""Read the console of a guest on this host, and note when its lines came.

The controller sends a request on one line, ``{"path", "log", "wait_for"}``:
the Unix socket to listen on for QEMU's character device, the file to write,
and a text to look for, or an empty one.  The answers are ``{"listening":
true}``, then ``{"seen": NS}`` as soon as the text has come and ``{"closed":
HOW}`` when QEMU closes its end, and last ``{"how": HOW, "count": N, "last":
TEXT}``, with the last line, when the controller's next line has come.  The
file is whole only after that.

The file is described in docs/formats.md.  It holds the first and the last
lines of the console.  The figures on the guest's beats cover all of them.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import struct
import time
from collections import deque
from contextlib import suppress
from typing import Any

from vfio_p2p.agent.controller import Controller, serve
from vfio_p2p.agent.failure import INPUT, AgentError
from vfio_p2p.agent.roots import Roots

HEADER = "vfio-p2p-console version=1 clock=CLOCK_REALTIME"

# How many lines are kept of the beginning, and how many of the end.
KEPT_LINES = 1000
# What is longer is cut: a guest that writes no ends of lines has one line.
LINE_BYTES = 400

_READ_BYTES = 1 << 16
_POLL_S = 0.5
# QEMU closes its console a moment before it ends.
_END_S = 5.0
_MODULUS = 1 << 32
_BEAT = re.compile(rb"beat (\d{1,10})")


def run(arguments: list[str], roots: Roots) -> None:
    """Read a console until the controller has enough.

    :param arguments: None.
    :param roots: Where the processes are.
    :raise AgentError: When the request is wrong.
    """
    serve(
        "console", arguments, lambda x, y: _serve(x, _checked(y), roots)
    )


def _checked(text: bytes) -> dict[str, str]:
    try:
        request: dict[str, Any] = json.loads(text)
        for key in ("path", "log", "wait_for"):
            if not isinstance(request[key], str):
                raise TypeError(f"{key} is no str")
    except (KeyError, TypeError, ValueError) as err:
        raise AgentError(
            f"the request is wrong: {err!r}", "Send it as JSON.", INPUT
        ) from err
    return request


def _serve(
    controller: Controller, request: dict[str, str], roots: Roots
) -> None:
    with socket.socket(socket.AF_UNIX) as listener, open(
        request["log"], "w", encoding="ascii", newline="\n"
    ) as file:
        with suppress(FileNotFoundError):
            os.unlink(request["path"])
        listener.bind(request["path"])
        listener.listen(1)
        console = Console(request["wait_for"].encode())
        controller.send({"listening": True})
        how = _read(controller, listener, console, roots)
        file.write(console.text(how))
        file.flush()
        os.fsync(file.fileno())
    controller.send(
        {"how": how, "count": console.beats.count, "last": console.last}
    )
    while controller.pending and not controller.ended:
        controller.wait(_POLL_S)


def _read(
    controller: Controller,
    listener: socket.socket,
    console: Console,
    roots: Roots,
) -> str:
    """Read until the controller says that it is enough.

    :return: How the console ended, as the file says it.
    """
    peer: socket.socket | None = None
    pid = 0
    how = "none"
    told = False
    try:
        while True:
            sources: list[Any] = [0]
            if how in _OPEN:
                sources.append(peer or listener)
            ready, _, _ = select.select(sources, [], [], _POLL_S)
            # Asked for at once: everything else can wait.
            now_ns = time.time_ns()
            if peer is not None and peer in ready:
                data = _received(peer)
                console.take(data, now_ns)
                if not data:
                    how = _end(pid, roots)
                    peer.close()
                    peer = None
                    controller.send({"closed": how})
            elif listener in ready:
                peer, _ = listener.accept()
                pid = _peer(peer)
                how = "open"
            if console.seen_ns is not None and not told:
                told = True
                controller.send({"seen": console.seen_ns})
            if controller.pending or 0 in ready:
                controller.wait(0.0)
            if controller.received or controller.ended:
                if peer is not None and _rest(peer, console):
                    how = _end(pid, roots)
                return how
    finally:
        if peer is not None:
            peer.close()


# In these cases there is something to wait for.
_OPEN = ("none", "open")


def _received(peer: socket.socket) -> bytes:
    try:
        return peer.recv(_READ_BYTES)
    except OSError:
        return b""


def _rest(peer: socket.socket, console: Console) -> bool:
    """Take what has come already.

    :return: Whether that is the end.
    """
    while select.select([peer], [], [], 0.0)[0]:
        now_ns = time.time_ns()
        data = _received(peer)
        if not data:
            return True
        console.take(data, now_ns)
    return False


def _peer(peer: socket.socket) -> int:
    """Return the process at the other end of a socket."""
    size = struct.calcsize("3i")
    data = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid: int = struct.unpack("3i", data)[0]
    return pid


def _end(pid: int, roots: Roots) -> str:
    """Say why a process closed its end of the socket."""
    return "closed" if _ended(pid, roots) else "lost"


def _ended(pid: int, roots: Roots) -> bool:
    """Return whether a process is over, or soon will be."""
    deadline = time.monotonic() + _END_S
    while time.monotonic() < deadline:
        try:
            text = (roots.proc / str(pid) / "stat").read_text(
                errors="replace"
            )
        except OSError:
            return True
        if text.rpartition(")")[2].split()[0] in "ZX":
            return True
        time.sleep(0.01)
    return False


class Console:
    """What has come from a console so far.

    :param wanted: The text to look for; empty for none.
    """

    def __init__(self, wanted: bytes = b"") -> None:
        self._wanted = wanted
        self._window = b""
        self._rest = b""
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=KEPT_LINES)
        self._lines = 0
        self._time_ns = 0
        self.last = ""
        self.seen_ns: int | None = None
        self.beats = Beats()

    def take(self, data: bytes, now_ns: int) -> None:
        """Take what was read.

        :param data: The bytes.
        :param now_ns: When they were read.
        """
        if data:
            self._time_ns = now_ns
        if self._wanted and self.seen_ns is None:
            self._window += data
            if self._wanted in self._window:
                self.seen_ns = now_ns
            self._window = self._window[-len(self._wanted) :]
        *ended, rest = (self._rest + data).split(b"\n")
        while len(rest) >= LINE_BYTES:
            ended.append(rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        self._rest = rest
        for raw in ended:
            self._note(raw.rstrip(b"\r"), now_ns)

    def _note(
        self, raw: bytes, now_ns: int, *, ended: bool = True
    ) -> None:
        match = _BEAT.fullmatch(raw)
        # The rest of a number may be written elsewhere.
        if match and ended:
            self.beats.add(int(match[1]), now_ns)
        self._lines += 1
        text = printable(raw[:LINE_BYTES])
        shown = f"{now_ns} {text}\n"
        self.last = text or self.last
        if len(self._first) < KEPT_LINES:
            self._first.append(shown)
        else:
            self._last.append(shown)

    def text(self, how: str) -> str:
        """Return the content of the file.

        :param how: How the console ended.
        """
        cut = bool(self._rest)
        if cut:
            self._note(self._rest, self._time_ns, ended=False)
            self._rest = b""
        left_out = self._lines - len(self._first) - len(self._last)
        middle = [f"vfio-p2p-console dropped {left_out}\n"] if left_out else []
        return "".join(
            [
                f"{HEADER}\n",
                *self._first,
                *middle,
                *self._last,
                f"vfio-p2p-console end how={how} cut={cut:d} "
                f"{self.beats.text()}\n",
            ]
        )


def printable(raw: bytes) -> str:
    """Write bytes with ASCII characters that can be shown.

    :param raw: The bytes.
    """
    text = raw.decode("latin-1").replace("\\", "\\\\")
    return "".join(
        x if " " <= x <= "~" else f"\\x{ord(x):02x}" for x in text
    )


class Beats:
    """The figures on a guest's beats, which are those of p2psim."""

    def __init__(self) -> None:
        self.count = 0
        self._first = self._last = (0, 0)
        self._gap = (0, 0)
        self._missed = 0
        self._repeated = 0

    def add(self, number: int, now_ns: int) -> None:
        """Take one beat.

        :param number: Its number.
        :param now_ns: When it came.
        """
        if self.count:
            before, before_ns = self._last
            step = (number - before) % _MODULUS
            if 1 <= step < _MODULUS // 2:
                self._missed += step - 1
            else:
                self._repeated += 1
            if now_ns - before_ns > self._gap[1] - self._gap[0]:
                self._gap = (before_ns, now_ns)
        else:
            self._first = (number, now_ns)
            self._gap = (now_ns, now_ns)
        self._last = (number, now_ns)
        self.count += 1

    def text(self) -> str:
        """Return the figures as the file has them."""
        figures = {
            "count": self.count,
            "first": self._first[0],
            "first_ns": self._first[1],
            "last": self._last[0],
            "last_ns": self._last[1],
            "gap_start_ns": self._gap[0],
            "gap_end_ns": self._gap[1],
            "missed": self._missed,
            "repeated": self._repeated,
        }
        return " ".join(f"{key}={value}" for key, value in figures.items())
