# SPDX-License-Identifier: GPL-2.0-or-later
"""Follow a process, and log files of it, also when they are rotated.

The controller sends a request on one line, ``{"pid": N, "started": TICKS,
"files": {KEY: {"path": PATH, "back_bytes": N, "since": TEXT}}}``, and then a
line of JSON at least every eight seconds; without one, or when stdin ends,
this ends.  A line ``{"mark": N}`` is answered by the same line, once
everything was sent that the files held when it came.  Reading begins N bytes
before the end that a file has at first.  If TEXT is not empty and is among
these bytes, reading begins at the last line with it.

The answers are ``{"following": [KEY, ...]}``, then for each piece of a file
``{"key": KEY, "data": BASE64}``, and ``{"key": KEY, "cut": WHY, "lost":
BOOL}`` where the file went on as another one, or was made shorter; ``lost``
tells whether something may have been written that could not be read any more.
``{"gone": true}`` comes once, when the process has ended and its files were
read.

Files that were rotated are expected next to the file, with a number at the end
of the name: ``NAME.0``, ``NAME.1``.
"""

from __future__ import annotations

import base64
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfio_p2p.agent import files
from vfio_p2p.agent.controller import LEASE_S, Controller, serve
from vfio_p2p.agent.failure import HOST, INPUT, AgentError
from vfio_p2p.agent.qemus import started
from vfio_p2p.agent.roots import Roots

# Each look costs the host, and each piece its SSH server, processor time that
# QEMU may need.
_POLL_S = 0.2
_LOOK_S = 0.5
_LOWEST = 19
_PIECE_BYTES = 1 << 16
_FLAGS = os.O_RDONLY | os.O_NONBLOCK
# How often to look again for a file that may be between two names.
_TRIES = 5
# Device, number and size of a file.
End = tuple[int, int, int]
# While this much waits to be read by the controller, files are not read.
_PENDING_BYTES = 1 << 20


def run(arguments: list[str], roots: Roots) -> None:
    """Follow the files of a request.

    :param arguments: None.
    :param roots: Where the process is.
    :raise AgentError: When a file cannot be read.
    """
    # QEMU may need the processors, and files can wait.
    os.nice(_LOWEST)
    serve(
        "follow", arguments, lambda x, y: _follow(x, _checked(y), roots)
    )


def _checked(text: bytes) -> FollowRequest:
    try:
        request = json.loads(text)
        return FollowRequest(
            int(request["pid"]),
            int(request["started"]),
            [
                FollowedFile(
                    str(key),
                    str(x["path"]),
                    int(x["back_bytes"]),
                    str(x.get("since", "")),
                )
                for key, x in request["files"].items()
            ],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise AgentError(
            f"the request is wrong: {err!r}", "Send it as JSON.", INPUT
        ) from err


def _follow(
    controller: Controller, request: FollowRequest, roots: Roots
) -> None:
    try:
        for file in request.files:
            file.open()
        controller.send({"following": [file.key for file in request.files]})
        heard = looked = time.monotonic()
        runs, told = True, False
        marks: list[tuple[int, dict[str, End | None]]] = []
        while not controller.ended:
            # Before reading: what it has written until now is read below.
            if runs and time.monotonic() - looked > _LOOK_S:
                looked = time.monotonic()
                runs = started(roots, request.pid) == request.started
            more = _read(controller, request.files)
            if not (runs or more or told):
                controller.send({"gone": True})
                told = True
            for mark in list(marks):
                # A log that grows all the time never has nothing more.
                if not more or _past(request.files, mark[1]):
                    controller.send({"mark": mark[0]})
                    marks.remove(mark)
            controller.wait(0.0 if more else _POLL_S)
            if controller.received:
                heard = time.monotonic()
                ends = {file.key: file.end() for file in request.files}
                marks += [(x, ends) for x in _marks(controller.received)]
                controller.received.clear()
            if time.monotonic() - heard > LEASE_S:
                return
    finally:
        for file in request.files:
            file.close()


def _marks(lines: list[bytes]) -> list[int]:
    """Return the marks among the lines of a controller."""
    try:
        return [int(x["mark"]) for x in map(json.loads, lines) if "mark" in x]
    except (TypeError, ValueError) as err:
        raise AgentError(
            f"a line is wrong: {err!r}", "Send it as JSON.", INPUT
        ) from err


def _past(files: list[FollowedFile], ends: dict[str, End | None]) -> bool:
    """Return whether all is sent that files held at some moment."""
    return all(file.past(ends[file.key]) for file in files)


def _read(controller: Controller, files: list[FollowedFile]) -> bool:
    """Send what is new, and return whether there may be more."""
    if len(controller.pending) >= _PENDING_BYTES:
        return True
    more = False
    for file in files:
        for document in file.read():
            controller.send(document)
            more = True
    return more


@dataclass(frozen=True)
class FollowRequest:
    """What is followed.

    :param pid: The process.
    :param started: When it began, in ticks since its host did.
    :param files: Its files.
    """

    pid: int
    started: int
    files: list[FollowedFile]


class FollowedFile:
    """A file that is followed under its name.

    :param key: Its key in the answers.
    :param path: Its path.
    :param back_bytes: How far before its end to begin.
    :param since: Begin at the last line with this text, if there is one.
    """

    def __init__(
        self, key: str, path: str, back_bytes: int, since: str = ""
    ) -> None:
        self.key = key
        self._path = path
        self._back_bytes = back_bytes
        self._since = since.encode()
        self._fd: int | None = None
        self._at = 0
        self._missed = 0

    def open(self) -> None:
        """Begin where the file ends now, or a little before.

        :raise AgentError: When the file cannot be read.
        """
        try:
            self._fd, self._at, found = self._begin(self._path)
        except OSError as err:
            raise AgentError(
                f"{self._path}: {err.strerror}",
                "Run this as a user who may read the log.",
                HOST,
            ) from err
        # It may have been rotated since the line was written.
        for path in self._rotated()[:1] if self._since and not found else []:
            with suppress(OSError):
                fd, at, found = self._begin(path)
                if not found:
                    os.close(fd)
                    continue
                self.close()
                self._fd, self._at = fd, at

    def _begin(self, path: str) -> tuple[int, int, bool]:
        """Open a file, and return where to begin and whether `since` is it."""
        fd = os.open(path, _FLAGS)
        at = max(0, os.fstat(fd).st_size - self._back_bytes)
        if self._since:
            data = os.pread(fd, self._back_bytes, at)
            line = data.rfind(self._since)
            if line >= 0:
                return fd, at + data.rfind(b"\n", 0, line) + 1, True
        return fd, at, False

    def _rotated(self) -> list[str]:
        """Return the files that had the name before, the newest first."""
        folder, name = os.path.split(self._path)
        found = []
        for other in files.names(Path(folder)):
            first, _, number = other.rpartition(".")
            if first == name and number.isdigit():
                path = os.path.join(folder, other)
                # It may be renamed at this moment.
                with suppress(OSError):
                    age = -os.stat(path).st_mtime_ns
                    found.append((age, int(number), path))
        return [path for _, _, path in sorted(found)]

    def end(self) -> End | None:
        """Return which file has the name, and its size; None if none does."""
        try:
            there = os.stat(self._path)
        except OSError:
            return None
        return there.st_dev, there.st_ino, there.st_size

    def past(self, end: End | None) -> bool:
        """Return whether all was read up to an end of the file that is read.

        :param end: What `end` has returned.
        """
        if self._fd is None or end is None:
            return False
        here = os.fstat(self._fd)
        return (here.st_dev, here.st_ino) == end[:2] and self._at >= end[2]

    def read(self) -> list[dict[str, Any]]:
        """Return what is new, as answers."""
        if self._fd is None:
            return self._reopened("it was there again")
        piece = os.pread(self._fd, _PIECE_BYTES, self._at)
        if piece:
            return [self._piece(piece)]
        # All of the old file has been read before a new one is looked for.
        if os.fstat(self._fd).st_size < self._at:
            self._at = 0
            return [self._cut("the log was truncated", lost=True)]
        try:
            there = os.stat(self._path)
        except OSError:
            return []
        if os.path.samestat(there, os.fstat(self._fd)):
            return []
        return self._reopened("the log was rotated")

    def _reopened(self, why: str) -> list[dict[str, Any]]:
        fd, lost = self._successor()
        if fd is None:
            return []
        # What the old one got between the two looks.
        answers = []
        if self._fd is not None:
            while piece := os.pread(self._fd, _PIECE_BYTES, self._at):
                answers.append(self._piece(piece))
        self.close()
        self._fd, self._at, self._missed = fd, 0, 0
        return [*answers, self._cut(why, lost=lost)]

    def _successor(self) -> tuple[int | None, bool]:
        """Open the file that came after ours, and say whether some is lost.

        While we read, a file may be rotated more than once.
        """
        rotated = self._rotated()
        newer: int | None = None
        for path in [self._path, *rotated]:
            try:
                fd = os.open(path, _FLAGS)
            except OSError:
                continue
            if self._fd is not None and os.path.sameopenfile(fd, self._fd):
                os.close(fd)
                return newer, False
            if newer is not None:
                os.close(newer)
            newer = fd
        if self._fd is None or not rotated:
            return newer, False
        # Ours has been removed, or is being renamed at this moment.
        self._missed += 1
        if self._missed <= _TRIES and newer is not None:
            os.close(newer)
            newer = None
        return newer, True

    def _piece(self, piece: bytes) -> dict[str, Any]:
        self._at += len(piece)
        data = base64.b64encode(piece).decode()
        return {"key": self.key, "data": data}

    def _cut(self, why: str, *, lost: bool) -> dict[str, Any]:
        return {"key": self.key, "cut": why, "lost": lost}

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
