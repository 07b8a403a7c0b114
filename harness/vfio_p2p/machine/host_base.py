# SPDX-License-Identifier: GPL-2.0-or-later
"""What hosts of all kinds have in common: how the agent is run."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from vfio_p2p.errors import HostError, InputError
from vfio_p2p.machine.agent_session import AgentSession, answer
from vfio_p2p.machine.agent_zip import agent_zip
from vfio_p2p.machine.host_protocol import AGENT_LIMIT_S, Completed, HostSpec

# The oldest Python that runs the agent.
_PYTHON = (3, 9)
_WHO = "import os, sys; print(*sys.version_info[:2], os.getuid())"
_SHORT_S = 30.0

_GET_PYTHON = (
    "Install Python 3.9 or later there, or set the host's key 'python'."
)


class HostBase(ABC):
    """A host on which the agent can be run.

    :param spec: How to reach it.
    """

    def __init__(self, spec: HostSpec) -> None:
        self.name = spec.name
        self.local = not spec.ssh
        self._spec = spec
        self._uid: int | None = None
        self._agent = ""
        self._once = asyncio.Lock()

    @abstractmethod
    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        limit_s: float,
        root: bool = False,
    ) -> Completed:
        """Run a program; see `Host`."""

    @abstractmethod
    async def put(
        self, data: bytes | Path, path: str, mode: int = 0o600
    ) -> None:
        """Write a file; see `Host`."""

    @abstractmethod
    async def private_folder(self) -> str:
        """Return the private folder; see `Host`."""

    @abstractmethod
    async def _open_session(self, argv: Sequence[str]) -> AgentSession:
        """Start an agent and return its session."""

    async def agent(
        self,
        arguments: Sequence[str],
        *,
        stdin: bytes = b"",
        limit_s: float = AGENT_LIMIT_S,
        root: bool = False,
    ) -> Any:
        """Run a command of the agent; see `Host`."""
        argv = await self._agent_argv(arguments)
        done = await self.run(argv, stdin=stdin, limit_s=limit_s, root=root)
        return answer(
            self.name,
            done.status,
            done.stdout,
            done.stderr,
            self._spec.options,
        )

    @asynccontextmanager
    async def agent_session(
        self, arguments: Sequence[str], *, root: bool = False
    ) -> AsyncIterator[AgentSession]:
        """Run a command of the agent for a while; see `Host`."""
        argv = await self._agent_argv(arguments)
        session = await self._open_session(
            await self._with_rights(argv) if root else argv
        )
        try:
            yield session
        finally:
            await session.close()

    async def _agent_argv(self, arguments: Sequence[str]) -> list[str]:
        """Send the agent if that was not done yet; return how it is run."""
        async with self._once:
            if not self._agent:
                await self._check_python()
                path = f"{await self.private_folder()}/agent.pyz"
                await self.put(agent_zip(), path)
                self._agent = path
        # Isolated, so that neither the user's settings nor the working
        # folder decide which modules are found.
        return [self._spec.python, "-I", self._agent, *arguments]

    async def _check_python(self) -> None:
        python = self._spec.python
        done = await self.run([python, "-c", _WHO], limit_s=_SHORT_S)
        if done.status in (126, 127):
            raise InputError(
                f"{self.name}: {python} is missing, or cannot be run",
                _GET_PYTHON,
            )
        try:
            *version, uid = map(int, done.stdout.split())
            major, minor = version
        except ValueError:
            raise HostError(
                f"{self.name}: {python} does not tell its version",
                "Check that the host's Python works, and that its login "
                "scripts print nothing.",
            ) from None
        if (major, minor) < _PYTHON:
            raise InputError(
                f"{self.name}: {python} is too old: {major}.{minor}",
                _GET_PYTHON,
            )
        if self._uid is None:
            self._uid = uid

    async def _with_rights(self, argv: Sequence[str]) -> list[str]:
        """Return a command line that is run as root."""
        if self._uid is None:
            done = await self.run(["id", "-u"], limit_s=_SHORT_S)
            if done.status:
                raise HostError(
                    f"{self.name}: it is unknown who we are there",
                    "Check that 'id -u' works there.",
                )
            self._uid = int(done.stdout)
        if self._uid == 0:
            return list(argv)
        if not (self.local or self._spec.sudo):
            raise InputError(
                f"{self.name}: only root may do this",
                "Log in as root, or set the host's key 'sudo' to true.",
            )
        return ["sudo", "-n", *argv]
