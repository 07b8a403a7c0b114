# SPDX-License-Identifier: GPL-2.0-or-later
"""A process on another host, as its watcher there tells of it."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from pathlib import Path
from typing import Any

from vfio_p2p.agent.controller import LEASE_S
from vfio_p2p.errors import HarnessError, HostError
from vfio_p2p.machine.agent_session import AgentSession
from vfio_p2p.machine.qemu import STDERR, TRACE_LOG

# The watcher hears us several times in the time that it waits for us.
_BEAT_S = 1.0
_KILL_S = 30.0


class WatchedProcess:
    """What `Qemu` needs to know of the process, as its watcher tells.

    :param side: The name of the QEMU.
    :param directory: The folder of its files here.
    :param session: The watcher.
    """

    def __init__(
        self, side: str, directory: Path, session: AgentSession
    ) -> None:
        self._side = side
        self._directory = directory
        self._session = session
        self._over = asyncio.Event()
        self._error: Exception | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.number: int | None = None
        self.returncode: int | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing more to hear of the process."""
        return self._over.is_set()

    async def launch(self, request: dict[str, Any]) -> None:
        """Start the process, and begin to follow it.

        :param request: The request of the agent's command ``watch``.
        """
        # As if QEMU had made it here.
        (self._directory / STDERR).touch()
        try:
            await self._session.send(request)
            self.number = int((await self._session.receive())["pid"])
        except BaseException:
            self._error = HostError(f"{self._side}: QEMU was not started")
            self._over.set()
            raise
        self._tasks = [
            asyncio.create_task(self._follow()),
            asyncio.create_task(self._beat()),
        ]

    async def wait(self) -> int:
        """Wait for the end of the process.

        :return: Its exit status, negative for a signal.
        :raise HostError: When the host or the watcher is gone.
        """
        await self._over.wait()
        if self._error:
            raise self._error
        assert self.returncode is not None
        return self.returncode

    async def kill(self) -> None:
        """Kill the process, and stop following it; idempotent.

        :raise HostError: When it cannot be killed.
        """
        try:
            # If the host or the watcher is gone, so is QEMU.
            with suppress(HarnessError):
                await self._session.send({"kill": True})
            with suppress(HarnessError):
                async with asyncio.timeout(_KILL_S):
                    await self.wait()
        except TimeoutError:
            raise HostError(
                f"{self._side}: QEMU (PID {self.number} on its host) does "
                "not end",
                "Look into the host's kernel log.",
            ) from None
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _beat(self) -> None:
        """Tell the watcher that we are still there."""
        # The follower reports what is wrong.
        with suppress(HarnessError):
            while True:
                await asyncio.sleep(_BEAT_S)
                await self._session.send(None)

    async def _follow(self) -> None:
        names = {"log": TRACE_LOG, "stderr": STDERR}
        try:
            while True:
                match await self._session.receive():
                    case {"status": int(status), "silent": silent}:
                        if silent:
                            raise HostError(
                                f"{self._side}: QEMU was ended, since this "
                                f"program was silent for {LEASE_S:g} s",
                                "Do not stop vfio-p2p while a QEMU runs on "
                                "another host.",
                            )
                        self.returncode = status
                        return
                    case {"log": str()} | {"stderr": str()} as piece:
                        for key, text in piece.items():
                            path = self._directory / names[key]
                            with path.open("ab") as file:
                                file.write(base64.b64decode(text))
        except Exception as err:
            # It is raised where the process is waited for.
            self._error = err
        finally:
            self._over.set()
