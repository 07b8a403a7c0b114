# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that is reached by SSH.

There is one connection for everything.  The private folder on the host ends
with it: a shell there waits for the end of its stdin, and then removes the
folder.  A host that is frozen is noticed, since it has to answer every two
seconds.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import tempfile
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import (
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import asyncssh

from vfio_p2p.errors import HostError, NoSpaceError
from vfio_p2p.machine.agent_session import AgentSession
from vfio_p2p.machine.host_base import HostBase
from vfio_p2p.machine.host_protocol import Completed, HostSpec
from vfio_p2p.machine.ssh_login import SILENT_S, Login, hang_up, log_in
from vfio_p2p.machine.temporary import temporary_folder

_CHUNK_BYTES = 1 << 18
_SHORT_S = 30.0
_CLOSE_S = 5.0

# The limit for the path of a Unix socket, including a NUL, is 108 bytes.
_PATH_BYTES = 100

_ROOM = "Free some room there, or set TMPDIR for that user to another disk."

_TELL = 'echo $$; exec "$@"'

# Whoever hangs up leaves no folder behind.
_KEEP = """\
LC_ALL=C; export LC_ALL; umask 077; trap '' HUP INT TERM
d=$(mktemp -d "${TMPDIR:-/tmp}/vfio-p2p-XXXXXXXXXX") || exit 1
echo "$d"; cat >/dev/null; rm -rf "$d"
"""


class SshHost(HostBase):
    """A host that is reached by SSH; use `open_host`.

    :param spec: How to reach it.
    :param login: The login.
    :param connections: Its connections; the last one leads to the host.
    """

    def __init__(
        self,
        spec: HostSpec,
        login: Login,
        connections: list[asyncssh.SSHClientConnection],
    ) -> None:
        super().__init__(spec)
        self._login = login
        self._connections = connections
        self._keeper: asyncssh.SSHClientProcess[bytes] | None = None
        self._folder = ""
        self._folding = asyncio.Lock()

    @classmethod
    async def connect(cls, spec: HostSpec) -> SshHost:
        """Log in to a host.

        :param spec: How to reach it.
        :raise HostError: When the host cannot be reached.
        :raise InputError: When it does not let us in, or its key is not the
            known one.
        """
        host = cls(spec, *await log_in(spec))
        asyncio.get_running_loop().set_exception_handler(_told_elsewhere)
        return host

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
        started: _Started | None = None
        try:
            async with asyncio.timeout(limit_s):
                with self._speaking():
                    started = await self._start(argv)
                    process = started.process
                    stdout, stderr = await process.communicate(stdin)
                    await process.wait_closed()
        except TimeoutError:
            raise HostError(
                f"{self.name}: {argv[0]} took longer than {limit_s:g} s",
                "Check what it waits for on the host.",
            ) from None
        finally:
            if started:
                await self._kill(started)
        status = process.returncode
        if status is None:
            raise self._gone(f"{argv[0]} ended without a status")
        return Completed(status, stdout or b"", stderr or b"")

    async def _start(self, argv: Sequence[str]) -> _Started:
        """Start a program, which tells its PID before it is one."""
        process = await self._connection.create_process(
            # Whatever the user's shell is, it becomes this one.
            f"exec {shlex.join(['sh', '-c', _TELL, 'sh', *argv])}",
            encoding=None,
        )
        try:
            line = await process.stdout.readline()
            return _Started(process, int(line))
        except ValueError:
            if not line:
                line = await _read(process.stderr)
            process.close()
            said = line.decode(errors="backslashreplace").strip()
            raise self._gone(
                f"something else than {argv[0]} answers: {said[:200]!r}",
                "Check that the user may run programs there, and that the "
                "login scripts print nothing.",
            ) from None

    async def _kill(self, started: _Started) -> None:
        """Kill a program and drop its channel, if it has not ended."""
        process = started.process
        if process.returncode is None and not self._login.lost:
            # SSH has a message for it, which OpenSSH ignores for root.
            with suppress(asyncssh.Error, OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._connection.run(f"kill -KILL -{started.pid}")
        process.close()

    async def _open_session(self, argv: Sequence[str]) -> AgentSession:
        with self._speaking():
            started = await self._start(argv)
        process = started.process
        told = asyncio.create_task(_read(process.stderr))

        async def ended() -> tuple[int | None, bytes]:
            await process.wait_closed()
            stderr = await told
            if process.returncode is None:
                raise self._gone("the agent ended without a status")
            return process.returncode, stderr

        async def kill() -> None:
            await self._kill(started)
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
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        temporary = f"{path}.{secrets.token_hex(4)}.partial"
        async with self._files() as files:
            try:
                async with files.open(temporary, "wb") as file:
                    # Before there is anything to read in it.
                    await file.chmod(mode)
                    for chunk in _chunks(data):
                        await file.write(chunk)
                await files.posix_rename(temporary, path)
            except BaseException as err:
                with suppress(asyncssh.Error, OSError):
                    await files.remove(temporary)
                if isinstance(err, asyncssh.SFTPFailure):
                    await self._full(files, path, size)
                if isinstance(err, asyncssh.SFTPError):
                    raise self._refused(path, err) from err
                raise

    async def get(self, path: str, target: Path) -> None:
        """Fetch a file; see `Host`."""
        fd, temporary = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name}."
        )
        try:
            with os.fdopen(fd, "wb") as ours:
                async with self._files() as files:
                    try:
                        async with files.open(path, "rb") as theirs:
                            while piece := await theirs.read(_CHUNK_BYTES):
                                assert isinstance(piece, bytes)
                                ours.write(piece)
                    except asyncssh.SFTPError as err:
                        raise self._refused(path, err) from err
                os.fchmod(ours.fileno(), 0o644)
            os.rename(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise

    async def private_folder(self) -> str:
        """Return the private folder; see `Host`."""
        async with self._folding:
            if not self._folder:
                await self._make_folder()
        return self._folder

    async def _make_folder(self) -> None:
        try:
            async with asyncio.timeout(_SHORT_S):
                with self._speaking():
                    keeper = (await self._start(["sh", "-c", _KEEP])).process
                    line = await keeper.stdout.readline()
                    folder = line.decode(errors="replace").rstrip("\n")
                    if line.endswith(b"\n") and folder.startswith("/"):
                        self._keeper, self._folder = keeper, folder
                        return
                    why = (await keeper.stderr.read()).decode(
                        errors="replace"
                    ).strip()
        except TimeoutError:
            why = "no answer"
        if "No space left" in why or "quota exceeded" in why:
            raise NoSpaceError(f"{self.name}: the folder TMPDIR", hint=_ROOM)
        raise self._gone(
            f"no folder could be made there: {why or folder}",
            "Check /tmp, or TMPDIR, and that login scripts print nothing.",
        )

    @asynccontextmanager
    async def forward_unix(self, remote_path: str) -> AsyncIterator[Path]:
        """Make a socket reachable; see `Host`."""
        async with self._forwarded(
            lambda path: self._connection.forward_local_path(path, remote_path)
        ) as path:
            yield path

    @asynccontextmanager
    async def forward_tcp(
        self, address: str, port: int
    ) -> AsyncIterator[Path]:
        """Make a port reachable; see `Host`."""
        async with self._forwarded(
            lambda path: self._connection.forward_local_path_to_port(
                path, address, port
            )
        ) as path:
            yield path

    @asynccontextmanager
    async def _forwarded(
        self, forward: Callable[[str], Awaitable[asyncssh.SSHListener]]
    ) -> AsyncIterator[Path]:
        """Forward a socket in a folder that only we can look into."""
        with ExitStack() as folders:
            folder = folders.enter_context(temporary_folder())
            if len(os.fsencode(folder)) > _PATH_BYTES:
                folder = folders.enter_context(temporary_folder(Path("/tmp")))
            path = folder / "s"
            with self._speaking():
                listener = await forward(str(path))
            try:
                yield path
            finally:
                listener.close()
                await listener.wait_closed()

    async def check(self) -> None:
        """Check that the host answers; see `Host`."""
        await self.run(["true"], limit_s=SILENT_S + 2)

    async def close(self) -> None:
        """Remove the private folder and hang up; see `Host`."""
        with suppress(TimeoutError, asyncssh.Error, OSError):
            async with asyncio.timeout(_CLOSE_S):
                if self._keeper and not self._login.lost:
                    self._keeper.stdin.write_eof()
                    await self._keeper.wait_closed()
                for connection in reversed(self._connections):
                    connection.close()
                    await connection.wait_closed()
        hang_up(self._connections)

    @property
    def _connection(self) -> asyncssh.SSHClientConnection:
        return self._connections[-1]

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turn the library's errors into ours."""
        try:
            yield
        except (asyncssh.Error, ConnectionError) as err:
            raise self._gone(str(err)) from err

    def _gone(self, why: str, hint: str = "") -> HostError:
        """Say that the host is gone, or else what did not work."""
        if self._login.lost:
            return self._login.gone()
        return HostError(
            f"{self.name}: {why}",
            hint or "Check MaxSessions in its sshd_config, and its log.",
        )

    @asynccontextmanager
    async def _files(self) -> AsyncIterator[asyncssh.SFTPClient]:
        with self._speaking():
            try:
                files = await self._connection.start_sftp_client()
            except (asyncssh.SFTPError, asyncssh.ChannelOpenError) as err:
                raise self._gone(
                    f"its SSH server transfers no files: {err}",
                    "Enable the subsystem sftp in its sshd_config.",
                ) from err
            async with files:
                yield files

    async def _full(
        self, files: asyncssh.SFTPClient, path: str, size: int
    ) -> None:
        """Say so if a file was not written for lack of room."""
        folder = str(PurePosixPath(path).parent)
        with suppress(asyncssh.SFTPError):
            disk = await files.statvfs(folder)
            free_bytes = disk.bavail * disk.frsize
            if free_bytes < size:
                raise NoSpaceError(
                    f"{self.name}:{folder}", size, free_bytes, _ROOM
                )

    def _refused(self, path: str, err: asyncssh.SFTPError) -> HostError:
        return self._gone(
            f"{path}: {err.reason}",
            "Check the path and its permissions on the host.",
        )


class _Started(NamedTuple):
    """A program that runs on the host, as the leader of a session."""

    process: asyncssh.SSHClientProcess[bytes]
    pid: int


def _told_elsewhere(
    loop: asyncio.AbstractEventLoop, context: dict[str, Any]
) -> None:
    """Let nobody print errors of SSH that are raised elsewhere, too.

    SFTP writes several pieces of a file at the same time, each in a task of
    its own.  If the connection is lost, asyncssh raises the error of one of
    them, and asyncio would print all others when it forgets the tasks.
    """
    if not isinstance(context.get("exception"), asyncssh.Error):
        loop.default_exception_handler(context)


async def _read(stream: asyncssh.SSHReader[bytes]) -> bytes:
    """Read a stream to its end, however that comes."""
    with suppress(asyncssh.Error, OSError):
        return await stream.read()
    return b""


def _chunks(data: bytes | Path) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    with data.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            yield piece
