# SPDX-License-Identifier: GPL-2.0-or-later
"""A headless Chromium, driven over the DevTools protocol through pipes."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

# Generous: a loaded machine must not make a test fail.
_LIMIT_S = 120.0

_OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """Return the path of the browser; None if there is none."""
    return shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """A browser with one page, which ends with its context.

    :param program: The path of Chromium.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._profile = tempfile.mkdtemp(prefix="vfio-p2p-chromium-")
        self._received = b""
        self._count = 0
        self._session = ""
        self._pid = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        # Chromium reads from its descriptor 3 and writes to its descriptor 4.
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        arguments = [self._program, *_OPTIONS]
        if os.geteuid() == 0:
            # As root, there is no user namespace for a sandbox.
            arguments.append("--no-sandbox")
        arguments += [f"--user-data-dir={self._profile}", "about:blank"]
        # The pipes may have the numbers 3 and 4, so they are moved first.
        high = [os.dup(fd) for fd in (theirs_in, theirs_out)]
        null = os.open(os.devnull, os.O_RDWR)
        self._pid = os.posix_spawn(
            self._program,
            arguments,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, null, 2),
                (os.POSIX_SPAWN_DUP2, high[0], 103),
                (os.POSIX_SPAWN_DUP2, high[1], 104),
                (os.POSIX_SPAWN_DUP2, 103, 3),
                (os.POSIX_SPAWN_DUP2, 104, 4),
                (os.POSIX_SPAWN_CLOSE, 103),
                (os.POSIX_SPAWN_CLOSE, 104),
            ],
            setpgroup=0,
        )
        for fd in (theirs_in, theirs_out, null, *high):
            os.close(fd)
        target = self.send("Target.createTarget", url="about:blank")
        attached = self.send(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._out)
        os.close(self._in)
        # The browser has a process group of its own.
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        shutil.rmtree(self._profile, ignore_errors=True)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its result.

        :raise AssertionError: When it fails, or takes too long.
        """
        self._count += 1
        number = self._count
        message: dict[str, Any] = {
            "id": number, "method": method, "params": parameters,
        }
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, page: Path) -> None:
        """Load a file, and wait for its end.

        :param page: The file.
        """
        self.events.clear()
        self.send("Page.navigate", url=page.resolve().as_uri())
        while not self._saw("Page.loadEventFired"):
            self.events.append(self._receive())

    def ask(self, expression: str) -> Any:
        """Return the value of an expression in the page.

        :param expression: JavaScript.
        """
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """Return the lines of the console."""
        return [
            json.dumps(event["params"])
            for event in self.events
            if event["method"]
            in (
                "Runtime.exceptionThrown",
                "Runtime.consoleAPICalled",
                "Log.entryAdded",
            )
        ]

    def requests(self) -> list[str]:
        """Return the URLs that were requested."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def _saw(self, method: str) -> bool:
        return any(event.get("method") == method for event in self.events)

    def _receive(self) -> dict[str, Any]:
        until = time.monotonic() + _LIMIT_S
        while b"\0" not in self._received:
            left = until - time.monotonic()
            ready, _, _ = select.select([self._in], [], [], max(left, 0))
            assert ready, "Chromium does not answer"
            data = os.read(self._in, 1 << 16)
            assert data, "Chromium is gone"
            self._received += data
        message, _, self._received = self._received.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer
