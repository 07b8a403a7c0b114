# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection to the monitor of a QEMU that somebody else started.

A QMP socket serves one client at a time.  A further connection waits in its
queue, and keeps its place there even after it was closed, until the client
that is served leaves.  So a socket that somebody holds is never connected to.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

from qemu.qmp import (
    ConnectError,
    EventListener,
    ExecuteError,
    Message,
    QMPClient,
    QMPError,
    Runstate,
)

from vfio_p2p.errors import (
    CommandError,
    ConnectionLostError,
    HostError,
    StepTimeoutError,
)

OnEvent = Callable[[dict[str, Any]], None]

# Our commands are answered at once, unless QEMU is busy.
COMMAND_S = 30.0
_CONNECT_S = 30.0

LOST = "the connection to its monitor is gone"
AGAIN = (
    "Start this again, or wait with --follow. Trace events that are still on "
    "are put back then."
)


class Monitor(Protocol):
    """A way to talk to a QEMU, whoever else does."""

    name: str

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        limit_s: float = COMMAND_S,
    ) -> Any:
        """Execute a QMP command.

        :param command: The command.
        :param arguments: Its arguments.
        :param limit_s: The limit in seconds.
        :return: What QEMU returns.
        :raise CommandError: When QEMU answers with an error.
        :raise ConnectionLostError: When the connection is gone.
        :raise StepTimeoutError: When it takes longer.
        """

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""


class QmpMonitor:
    """A QMP connection of our own; use `connected`.

    :param name: What messages call it.
    :param client: The connection.
    """

    def __init__(self, name: str, client: QMPClient) -> None:
        self.name = name
        self._client = client

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        limit_s: float = COMMAND_S,
    ) -> Any:
        """Execute a QMP command; see `Monitor`."""
        try:
            async with asyncio.timeout(limit_s):
                return await self._client.execute(
                    command, dict(arguments) if arguments else None
                )
        except ExecuteError as err:
            raise CommandError(self.name, f"{command}: {err}") from err
        except QMPError as err:
            raise ConnectionLostError(self.name, str(err)) from err
        except TimeoutError:
            raise StepTimeoutError(self.name, command, limit_s) from None

    @property
    def closed(self) -> bool:
        """Whether the connection is gone; see `Monitor`."""
        return self._client.runstate is not Runstate.RUNNING


@asynccontextmanager
async def connected(
    name: str,
    address: str | tuple[str, int] | socket.socket,
    on_event: OnEvent,
) -> AsyncIterator[QmpMonitor]:
    """Connect to a QMP socket that nobody holds.

    :param name: What messages call it.
    :param address: The path of its socket here, its host and port, or a
        socket that is connected to it.
    :param on_event: Called with each event.
    :raise HostError: When there is no QMP.
    """
    client = QMPClient(name)
    listener = EventListener()
    client.register_listener(listener)
    try:
        async with asyncio.timeout(_CONNECT_S):
            await client.connect(address)
    except TimeoutError:
        raise HostError(
            f"{name}: QEMU does not answer at its monitor",
            "Another client may be connected. Leave it its connection, and "
            "name another monitor.",
        ) from None
    except (ConnectError, OSError) as err:
        raise HostError(
            f"{name}: there is no QMP: {err}",
            "Check that QEMU runs, and that the socket is a QMP monitor.",
        ) from err
    task = asyncio.create_task(_deliver(listener, on_event))
    try:
        yield QmpMonitor(name, client)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # QEMU may have ended.
        with suppress(QMPError, EOFError, OSError):
            await client.disconnect()


async def _deliver(listener: EventListener, on_event: OnEvent) -> None:
    async for event in listener:
        on_event(plain(event))


def plain(event: Message) -> dict[str, Any]:
    """Return an event as plain values."""
    return dict(event)
