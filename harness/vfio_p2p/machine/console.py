# SPDX-License-Identifier: GPL-2.0-or-later
"""The console of a guest on a host, read by the agent of that host.

The reader runs beside QEMU, so that the times in its log are of the clock of
QEMU's trace.  docs/formats.md describes the log.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from vfio_p2p.errors import HostError
from vfio_p2p.machine.agent_session import AgentSession
from vfio_p2p.machine.host_protocol import Host

CONSOLE_LOG = "console.log"

_ANSWER_S = 60.0
_CHARDEV = "vfio-p2p-console"


class GuestConsole:
    """The reader of one guest's console, while it runs.

    :param name: The name of the guest's QEMU, e.g. ``source``.
    :param path: The socket of the host to which QEMU connects.
    :param session: The reader.
    """

    def __init__(self, name: str, path: str, session: AgentSession) -> None:
        self._name = name
        self._path = path
        self._session = session
        self._seen = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments that give QEMU's guest this console."""
        path = self._path.replace(",", ",,")
        return (
            *("-chardev", f"socket,id={_CHARDEV},path={path},server=off"),
            *("-device", f"isa-serial,chardev={_CHARDEV}"),
        )

    async def seen(self, limit_s: float) -> bool:
        """Wait for the text that the reader looks for.

        :param limit_s: How long to wait.
        :return: Whether it came; if QEMU ended before, it did not.
        :raise HostError: When the reader is gone.
        """
        try:
            async with asyncio.timeout(limit_s):
                if not self._seen:
                    self._seen = "seen" in await self._receive()
        except TimeoutError:
            pass
        return self._seen

    async def _receive(self) -> dict[str, object]:
        try:
            answer: dict[str, object] = await self._session.receive()
        except HostError as err:
            raise HostError(
                f"{self._name}: the reader of the guest's console is gone: "
                f"{err.what}",
                err.hint,
            ) from err
        return answer

    async def opened(self) -> None:
        """Wait until the reader listens.

        :raise HostError: When it does not.
        """
        await self._within_limit("listening")

    async def finish(self) -> str:
        """Have the log written, and return the guest's last line.

        :raise HostError: When the reader is gone, and the log with it.
        """
        try:
            await self._session.send({"stop": True})
        except HostError as err:
            raise HostError(
                f"{self._name}: the reader of the guest's console is gone: "
                f"{err.what}",
                err.hint,
            ) from err
        return str((await self._within_limit("how"))["last"])

    async def _within_limit(self, key: str) -> dict[str, object]:
        try:
            async with asyncio.timeout(_ANSWER_S):
                while key not in (answer := await self._receive()):
                    pass
                return answer
        except TimeoutError:
            raise HostError(
                f"{self._name}: the reader of the guest's console does not "
                "answer",
                "Look at the load of the host.",
            ) from None


@asynccontextmanager
async def guest_console(
    host: Host, name: str, target: Path, wait_for: str = ""
) -> AsyncIterator[GuestConsole]:
    """Read a console for as long as the block lasts, then fetch its log.

    QEMU has to be over at the end of the block.  After an error, there is no
    log.

    :param host: The host of the QEMU.
    :param name: The name of the QEMU.
    :param target: Where to write the log here.
    :param wait_for: The text that `GuestConsole.seen` waits for.
    :raise HostError: When the host or the reader is gone.
    """
    folder = await host.private_folder()
    # The path is short, as it has to be for a socket.
    path = f"{folder}/{secrets.token_hex(4)}"
    log = f"{path}.log"
    async with host.agent_session(["console"]) as session:
        console = GuestConsole(name, path, session)
        await session.send({"path": path, "log": log, "wait_for": wait_for})
        await console.opened()
        yield console
        await console.finish()
    await host.get(log, target)
