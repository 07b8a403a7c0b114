# SPDX-License-Identifier: GPL-2.0-or-later
"""One QEMU process on another host.

The agent's command ``watch`` runs QEMU there.  QEMU ends when the connection
does, when this process dies, or when it hears nothing of this process for 8 s
(`vfio_p2p.agent.controller.LEASE_S`), as when this process is stopped.

QEMU's trace log has the times of the host's clock.  The transcript of QMP has
those of the clock here, and a message reaches it with the delay of the
network; the two must not be compared without the offset of the clocks.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

from qemu.qmp import ConnectError

from vfio_p2p.errors import HostError, LaunchError, StepTimeoutError
from vfio_p2p.machine.host_protocol import Host
from vfio_p2p.machine.qemu import (
    STDERR,
    TRACE_EVENTS,
    TRACE_LOG,
    TRANSCRIPT,
    Qemu,
)
from vfio_p2p.machine.qmp import TranscribedClient
from vfio_p2p.machine.watched import WatchedProcess

_RETRY_S = 0.05
# After so many attempts, the host is asked whether QEMU listens.
_ATTEMPTS = 20
_ASK_S = 30.0


class RemoteQemu(Qemu):
    """One QEMU process on another host; use it as its base class.

    A host that is gone raises `HostError`, which is no outcome of a run.

    :param side: The name of the QEMU, e.g. "source" or "destination-2".
    :param argv: The program and its arguments, with the host's paths.
    :param directory: An existing folder here for the files ``trace.log``,
        ``qmp.jsonl`` and ``stderr.txt``; the first and last follow those on
        the host.
    :param host: The host.
    """

    #: The patterns of the trace events that QEMU logs.
    trace_events: tuple[str, ...] = TRACE_EVENTS

    def __init__(
        self, side: str, argv: Sequence[str], directory: Path, host: Host
    ) -> None:
        super().__init__(side, argv, directory)
        self._host = host
        self._stack = AsyncExitStack()
        self._watched: WatchedProcess | None = None

    async def __aenter__(self) -> RemoteQemu:
        return self

    @property
    def pid(self) -> int | None:
        """The number of the process on the host; None before the start."""
        return self._watched.number if self._watched else None

    @asynccontextmanager
    async def step(self, name: str, limit_s: float) -> AsyncIterator[None]:
        """Set a time limit for one step.

        :param name: The name of the step, for messages.
        :param limit_s: The limit in seconds.
        :raise StepTimeoutError: When the step takes longer.
        :raise HostError: When the host does not answer, either.
        """
        try:
            async with super().step(name, limit_s):
                yield
        except StepTimeoutError:
            await self._host.check()
            raise

    async def start(self, limit_s: float) -> None:
        """Start QEMU and negotiate QMP.

        :param limit_s: The limit in seconds, until QMP answers.
        :raise LaunchError: When QEMU ends before that.
        :raise StepTimeoutError: When it takes longer.
        :raise HostError: When the host is gone.
        """
        async with self.step("start", limit_s):
            folder = await self._host.private_folder()
            folder = f"{folder}/{self.side}-{secrets.token_hex(4)}"
            # The path is short, as it has to be for a socket.
            qmp = f"{folder}/qmp"
            log = f"{folder}/{TRACE_LOG}"
            argv = [
                *self._argv,
                *("-chardev", f"socket,id=qmp,path={_comma(qmp)}"
                  ",server=on,wait=off"),
                *("-mon", "chardev=qmp,mode=control"),
                *("-msg", "timestamp=on"),
                *("-D", log),
                *(
                    word
                    for event in self.trace_events
                    for word in ("-trace", event)
                ),
            ]  # fmt: skip
            session = await self._stack.enter_async_context(
                self._host.agent_session(["watch"])
            )
            self._watched = WatchedProcess(self.side, self.directory, session)
            await self._watched.launch(
                {
                    "argv": argv,
                    "cwd": folder,
                    "env": {},
                    "log": log,
                    "stderr": f"{folder}/{STDERR}",
                }
            )
            # The base class needs no more of a process than this one has.
            self._process = cast(asyncio.subprocess.Process, self._watched)
            path = await self._stack.enter_async_context(
                self._host.forward_unix(qmp)
            )
            self._transcript = (self.directory / TRANSCRIPT).open("w")
            self._qmp = TranscribedClient(self.side, self._transcript)
            self._qmp.register_listener(self.events)
            await self._connect(self._qmp, path, qmp)

    async def _connect(
        self, qmp: TranscribedClient, path: Path, there: str
    ) -> None:
        """Connect as soon as QEMU listens.

        :param qmp: The session to be.
        :param path: The socket here.
        :param there: QEMU's own socket.
        """
        assert self._watched
        listens = False
        for attempt in itertools.count(1):
            try:
                return await qmp.connect(str(path))
            except ConnectError:
                if self._watched.over:
                    # This raises if the host is gone, or the watcher.
                    status = await self._watched.wait()
                    raise LaunchError(
                        self.side, self.stderr(), status
                    ) from None
            if listens:
                raise HostError(
                    f"{self._host.name}: its SSH server does not forward "
                    "QEMU's socket",
                    "Set AllowStreamLocalForwarding to yes in its "
                    "sshd_config.",
                )
            if attempt % _ATTEMPTS == 0:
                found = await self._host.run(
                    ["test", "-S", there], limit_s=_ASK_S
                )
                listens = found.status == 0
            await asyncio.sleep(_RETRY_S)

    async def kill(self) -> None:
        """Kill QEMU and its children if they still run; idempotent.

        :raise HostError: When QEMU cannot be killed.
        """
        # Its number means another process here.
        process, self._process = self._process, None
        try:
            if self._watched:
                await self._watched.kill()
            await super().kill()
        finally:
            self._process = process
            await self._stack.aclose()


def _comma(path: str) -> str:
    """Write a path as QEMU's options have it."""
    return path.replace(",", ",,")
