# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent that runs on a host, and what its answers mean."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

from vfio_p2p.errors import HarnessError, HostError, SkipError, UsageError

# The agent's exit codes, which are those of `vfio_p2p.agent.failure`.
_ERRORS: dict[int, type[HarnessError]] = {2: UsageError, 4: SkipError}

# A command that the agent's hints name.
_COMMAND = re.compile(r"'vfio-p2p host (?:check|list|prepare|restore)\b")

# How long an agent may take to end after its stdin has ended.
_END_S = 10.0


class _Reader(Protocol):
    async def readline(self) -> bytes: ...


class _Writer(Protocol):
    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def write_eof(self) -> None: ...


class AgentSession:
    """An agent that runs for a while; both sides send JSON documents.

    :param name: The host's name.
    :param stdin: The agent's stdin.
    :param stdout: The agent's stdout.
    :param ended: Waits for the agent's end, and returns its exit status and
        what it wrote to stderr; raises `HostError` if the host is gone.
    :param kill: Kills the agent.
    :param options: The options that name the host; see `HostSpec`.
    """

    def __init__(
        self,
        name: str,
        stdin: _Writer,
        stdout: _Reader,
        ended: Callable[[], Awaitable[tuple[int | None, bytes]]],
        kill: Callable[[], Awaitable[None]],
        options: str = "",
    ) -> None:
        self._name = name
        self._stdin = stdin
        self._stdout = stdout
        self._ended = ended
        self._kill = kill
        self._options = options

    async def send(self, document: Any) -> None:
        """Send one document.

        :param document: What JSON can express.
        :raise HarnessError: When the agent has ended.
        """
        try:
            self._stdin.write(json.dumps(document).encode() + b"\n")
            await self._stdin.drain()
        # The two libraries raise different errors here.
        except Exception as err:
            raise await self._over() from err

    async def receive(self) -> Any:
        """Wait for the agent's next document; the caller sets the limit.

        :raise UsageError: When the request made no sense.
        :raise SkipError: When there is nothing to work on, or it is taken.
        :raise HostError: When the host does not do what it has to, or the
            agent has ended.
        """
        try:
            line = await self._stdout.readline()
        except Exception as err:
            raise await self._over() from err
        # A line that is cut off is none: the agent or the host is gone.
        if not line.endswith(b"\n"):
            raise await self._over(line)
        try:
            document = json.loads(line)
        except ValueError:
            raise strange(self._name, None, line) from None
        match document:
            case {"error": str(), "hint": str()}:
                status, _ = await self._end()
                raise failure(self._name, document, status, self._options)
        return document

    async def close(self) -> None:
        """End the agent's stdin, and wait until it has ended."""
        with suppress(Exception):
            self._stdin.write_eof()
        with suppress(HostError):
            await self._end()

    async def _over(self, line: bytes = b"") -> HarnessError:
        """Say why there is no further document."""
        try:
            status, stderr = await self._end()
        except HostError as err:
            return err
        return strange(self._name, status, stderr or line)

    async def _end(self) -> tuple[int | None, bytes]:
        """Wait for the agent's end, and bring it about if need be."""
        try:
            async with asyncio.timeout(_END_S):
                return await self._ended()
        except TimeoutError:
            await self._kill()
            return None, b""


def answer(
    name: str, status: int, stdout: bytes, stderr: bytes, options: str = ""
) -> Any:
    """Return the one document of an agent, or raise the error that it is.

    :param name: The host's name.
    :param status: The agent's exit status.
    :param stdout: What it wrote to stdout.
    :param stderr: What it wrote to stderr.
    :param options: The options that name the host; see `HostSpec`.
    :raise HarnessError: When it did not do what it was asked for.
    """
    try:
        document = json.loads(stdout)
    except ValueError:
        raise strange(name, status, stderr or stdout) from None
    match document:
        case {"error": str(), "hint": str()}:
            raise failure(name, document, status, options)
    return document


def failure(
    name: str,
    document: dict[str, Any],
    status: int | None,
    options: str = "",
) -> HarnessError:
    """Return the error that the agent's document is.

    :param name: The host's name.
    :param document: The document.
    :param status: The agent's exit status.
    :param options: The options that name the host; see `HostSpec`.
    """
    kind = _ERRORS.get(status or 0, HostError)
    # The agent does not know what its host is called elsewhere.
    hint = _COMMAND.sub(lambda found: found[0] + options, document["hint"])
    return kind(f"{name}: {document['error']}", hint)


def strange(name: str, status: int | None, output: bytes) -> HarnessError:
    """Return the error of an agent that did not answer in JSON.

    :param name: The host's name.
    :param status: Its exit status; None if unknown.
    :param output: What it said instead.
    """
    lines = output.decode(errors="backslashreplace").strip().splitlines()
    why = lines[-1][:200] if lines else "it said nothing"
    if why.startswith("sudo: "):
        return UsageError(
            f"{name}: {why}",
            "Allow 'sudo -n' for this user there, or log in as root.",
        )
    if status is not None and status < 0:
        return HostError(
            f"{name}: the agent was killed by {signal.Signals(-status).name}",
            "Look into the host's log for the reason.",
        )
    how = "" if status is None else f" (exit status {status})"
    return HostError(
        f"{name}: the agent did not answer{how}: {why}",
        "Check that the host's Python works, and that its login scripts "
        "print nothing.",
    )
