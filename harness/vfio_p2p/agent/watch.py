# SPDX-License-Identifier: GPL-2.0-or-later
"""Run one program on this host for as long as the controller wants it.

The controller sends a request on one line, ``{"argv", "cwd", "env", "log",
"stderr"}``, and then any line at least every eight seconds.  The program is
killed, with its whole session, when stdin ends, when no line has come for
that long, or upon ``{"kill": true}``.  If this process is killed, the kernel
kills the program.

The answers are ``{"pid": N}``, then ``{"log": BASE64}`` and ``{"stderr":
BASE64}`` for what the two files have got, and last ``{"status": N, "silent":
BOOL}``, where `silent` says that the controller was silent for too long.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from vfio_p2p.agent.controller import LEASE_S, Controller, serve
from vfio_p2p.agent.failure import HOST, INPUT, AgentError
from vfio_p2p.agent.roots import Roots

_POLL_S = 0.05
_KILL_S = 10.0
# A controller that was stopped hears the answer when it goes on.
_LINGER_S = 600.0

_PIECE_BYTES = 1 << 15
# While this much waits to be read by the controller, files are not read.
_PENDING_BYTES = 1 << 18

# The kernel's signal does not come if we died before it was asked for.
_IF_PARENT_LIVES = '[ "$PPID" = "$1" ] || exit 127; shift; exec "$@"'


def run(arguments: list[str], roots: Roots) -> None:
    """Run the program of a request.

    :param arguments: None.
    :param roots: Where the processes are.
    :raise AgentError: When the program cannot be run, or does not end.
    """
    serve("watch", arguments, lambda x, y: _watch(x, y, roots.proc))


def _watch(controller: Controller, text: bytes, proc: Path) -> None:
    request = _checked(text)
    process = _start(request)
    try:
        controller.send({"pid": process.pid})
        silent = _follow(process, controller, request)
    finally:
        _end(process, proc)
    controller.send({"status": process.returncode, "silent": silent})
    deadline = time.monotonic() + _LINGER_S
    while controller.pending and not controller.ended:
        controller.wait(_POLL_S)
        if time.monotonic() > deadline:
            break


def _checked(text: bytes) -> dict[str, Any]:
    try:
        request = json.loads(text)
        known = {
            "argv": list, "cwd": str, "env": dict, "log": str, "stderr": str
        }  # fmt: skip
        for key, kind in known.items():
            if not isinstance(request[key], kind):
                raise TypeError(f"{key} is no {kind.__name__}")
        if not request["argv"]:
            raise ValueError("argv is empty")
    except (KeyError, TypeError, ValueError) as err:
        raise AgentError(
            f"the request is wrong: {err!r}", "Send it as JSON.", INPUT
        ) from err
    checked: dict[str, Any] = request
    return checked


def _start(request: dict[str, Any]) -> subprocess.Popen[bytes]:
    path = os.environ.get("PATH", os.defpath)
    setpriv = shutil.which("setpriv", path=f"{path}:/usr/sbin:/sbin")
    if setpriv is None:
        raise AgentError(
            "setpriv is missing", "Install the package util-linux there."
        )
    os.makedirs(request["cwd"], 0o700, exist_ok=True)
    with open(request["stderr"], "wb") as stderr:
        return subprocess.Popen(
            [
                setpriv, "--pdeathsig", "KILL",
                "/bin/sh", "-c", _IF_PARENT_LIVES, "sh", str(os.getpid()),
                *request["argv"],
            ],
            cwd=request["cwd"],
            env={**os.environ, **request["env"]},
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
        )  # fmt: skip


def _follow(
    process: subprocess.Popen[bytes],
    controller: Controller,
    request: dict[str, Any],
) -> bool:
    """Send what files get until the program ends, or has to.

    :return: Whether the controller was silent for too long.
    """
    files = [Tail(request[key], key) for key in ("log", "stderr")]
    try:
        heard = time.monotonic()
        while True:
            # Asked for first: what the program wrote before is then read.
            over = process.poll() is not None
            more = [file.read(controller) for file in files]
            if over and not any(more):
                return False
            # What is pending is sent as soon as it can be.
            idle = controller.pending or not any(more)
            controller.wait(_POLL_S if idle else 0.0)
            if controller.ended:
                return False
            if controller.received:
                heard = time.monotonic()
            for text in controller.received:
                if b'"kill"' in text:
                    process.kill()
            controller.received.clear()
            if time.monotonic() - heard > LEASE_S:
                return True
    finally:
        for file in files:
            file.close()


def _end(process: subprocess.Popen[bytes], proc: Path) -> None:
    """Kill all that is left of the program's session."""
    deadline = time.monotonic() + _KILL_S
    while True:
        # The leader is reaped last: until then, nobody else can get its
        # number, which is the session's.
        led = process.returncode is None
        members = _members(process.pid, proc)
        if not members or (not led and process.pid in members):
            break
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise AgentError(
                f"process {members[0]} cannot be killed",
                "It waits for a device; look into the kernel's log.",
                HOST,
            )
        time.sleep(0.01)
    process.wait()


def _members(session: int, proc: Path) -> list[int]:
    """Return the processes of a session, without zombies."""
    members = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            text = (entry / "stat").read_text(errors="replace")
            fields = text.rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                members.append(int(entry.name))
    return members


class Tail:
    """What a file has got since it was last asked.

    :param path: The file; it need not exist yet.
    :param key: Its key in the answers.
    """

    def __init__(self, path: str, key: str) -> None:
        self._path = path
        self._key = key
        self._fd: int | None = None

    def read(self, controller: Controller) -> bool:
        """Send the next piece, if there is one and it can be taken.

        :param controller: Who gets the piece.
        :return: Whether there may be more.
        """
        if self._fd is None:
            try:
                self._fd = os.open(self._path, os.O_RDONLY)
            except FileNotFoundError:
                return False
        if len(controller.pending) > _PENDING_BYTES:
            return True
        piece = os.read(self._fd, _PIECE_BYTES)
        if piece:
            controller.send({self._key: base64.b64encode(piece).decode()})
        return bool(piece)

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
