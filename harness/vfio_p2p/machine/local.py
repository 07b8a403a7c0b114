# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine as a host."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from vfio_p2p.errors import HostError
from vfio_p2p.machine.agent_session import AgentSession
from vfio_p2p.machine.files import write_whole
from vfio_p2p.machine.host_base import HostBase
from vfio_p2p.machine.host_protocol import Completed, HostSpec
from vfio_p2p.machine.process import bound
from vfio_p2p.machine.session import kill_session, session_members
from vfio_p2p.machine.temporary import temporary_folder

_KILL_S = 0.01
# What a shell answers, too.
_MISSING = 127
# The longest line of an agent.
_LINE_BYTES = 16 << 20


class LocalHost(HostBase):
    """This machine; programs end with this process.

    :param spec: Its name, and whatever else is not about SSH.
    """

    def __init__(self, spec: HostSpec | None = None) -> None:
        spec = spec or HostSpec()
        if spec.python == HostSpec().python:
            # The Python that runs us is there, whatever PATH is.
            spec = msgspec.structs.replace(spec, python=sys.executable)
        super().__init__(spec)
        self._uid = os.getuid()
        self._folder = ""
        self._made = ExitStack()

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        limit_s: float,
        root: bool = False,
    ) -> Completed:
        """Run a program; see `Host`."""
        if root:
            argv = await self._with_rights(argv)
        try:
            process = await self._start(argv)
        except FileNotFoundError as err:
            why = f"{argv[0]}: {err.strerror}".encode()
            return Completed(_MISSING, b"", why)
        try:
            async with asyncio.timeout(limit_s):
                stdout, stderr = await process.communicate(stdin)
        except TimeoutError:
            raise HostError(
                f"{self.name}: {argv[0]} took longer than {limit_s:g} s",
                "Check what it waits for.",
            ) from None
        finally:
            await _end(process)
        assert process.returncode is not None
        return Completed(process.returncode, stdout, stderr)

    async def _start(self, argv: Sequence[str]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *bound(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            limit=_LINE_BYTES,
        )

    async def _open_session(self, argv: Sequence[str]) -> AgentSession:
        process = await self._start(argv)
        assert process.stdin
        assert process.stdout
        assert process.stderr
        told = asyncio.create_task(process.stderr.read())

        async def ended() -> tuple[int | None, bytes]:
            return await process.wait(), await told

        async def kill() -> None:
            await _end(process)
            await told

        return AgentSession(
            self.name,
            process.stdin,
            process.stdout,
            ended,
            kill,
            self._spec.options,
        )

    async def put(
        self, data: bytes | Path, path: str, mode: int = 0o600
    ) -> None:
        """Write a file; see `Host`."""
        content = data.read_bytes() if isinstance(data, Path) else data
        try:
            # Another host would not make a folder, either.
            Path(path).parent.stat()
            write_whole(Path(path), content, mode)
        except OSError as err:
            raise HostError(
                f"{self.name}: {path}: {err.strerror}",
                "Check the folder and its permissions.",
            ) from err

    async def get(self, path: str, target: Path) -> None:
        """Fetch a file; see `Host`."""
        try:
            content = Path(path).read_bytes()
        except OSError as err:
            raise HostError(
                f"{self.name}: {path}: {err.strerror}",
                "Check the file and its permissions.",
            ) from err
        write_whole(target, content)

    async def private_folder(self) -> str:
        """Return the private folder; see `Host`."""
        if not self._folder:
            self._folder = str(self._made.enter_context(temporary_folder()))
        return self._folder

    @asynccontextmanager
    async def forward_unix(self, remote_path: str) -> AsyncIterator[Path]:
        """Return the socket's own path; see `Host`."""
        yield Path(remote_path)

    @asynccontextmanager
    async def forward_tcp(
        self, address: str, port: int
    ) -> AsyncIterator[tuple[str, int]]:
        """Return the port as it is; see `Host`."""
        yield address, port

    async def check(self) -> None:
        """Return at once: this machine answers."""

    async def close(self) -> None:
        """Remove the private folder; see `Host`."""
        self._made.close()
        self._folder = ""


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of a program, and wait for its end."""
    try:
        while kill_session(process.pid, led=process.returncode is None):
            await asyncio.sleep(_KILL_S)
    except PermissionError:
        # Only root can kill what sudo has started.
        pids = map(str, session_members(process.pid))
        subprocess.run(["sudo", "-n", "kill", "-KILL", *pids], check=False)
    await process.wait()
