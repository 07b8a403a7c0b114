# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor of a domain of libvirt, through libvirt.

libvirt holds the monitor of its QEMUs.  It passes commands on, and events.
On the destination of a migration it passes nothing on until the migration is
over.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from vfio_p2p.attach.monitor import COMMAND_S, OnEvent
from vfio_p2p.errors import (
    CommandError,
    ConnectionLostError,
    HostError,
    MissingToolError,
    SkipError,
    StepTimeoutError,
)

try:
    import libvirt
    import libvirt_qemu
    import libvirtaio
except ImportError:
    libvirt = None

PACKAGE = "python3-libvirt"
_registered = False


class DomainMonitor:
    """A domain's monitor; use `domain_monitor`.

    :param name: What messages call it.
    :param domain: The domain, as libvirt's binding has it.
    """

    def __init__(self, name: str, domain: Any) -> None:
        self.name = name
        self._domain = domain
        self._closed = asyncio.Event()
        self._busy = asyncio.Lock()

    @property
    def uuid(self) -> str:
        """The UUID of the domain."""
        return str(self._domain.UUIDString())

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        limit_s: float = COMMAND_S,
    ) -> Any:
        """Execute a QMP command; see `Monitor`."""
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = dict(arguments)
        try:
            async with asyncio.timeout(limit_s), self._busy:
                text = await asyncio.to_thread(
                    libvirt_qemu.qemuMonitorCommand,
                    self._domain,
                    json.dumps(request),
                    0,
                )
        except libvirt.libvirtError as err:
            raise ConnectionLostError(
                self.name, f"libvirt: {err.get_error_message()}"
            ) from err
        except TimeoutError:
            raise StepTimeoutError(self.name, command, limit_s) from None
        answer = json.loads(text)
        if "error" in answer:
            raise CommandError(
                self.name, f"{command}: {answer['error'].get('desc')}"
            )
        return answer.get("return")

    async def lost(self) -> None:
        """Wait until libvirt is gone; see `Monitor`."""
        await self._closed.wait()

    def close(self) -> None:
        """Take notice that libvirt is gone."""
        self._closed.set()


@asynccontextmanager
async def domain_monitor(
    name: str, uri: str, domain: str, on_event: OnEvent
) -> AsyncIterator[DomainMonitor]:
    """Reach the monitor of a domain for as long as the block lasts.

    :param name: What messages call it.
    :param uri: The URI of libvirt; empty for libvirt's default.
    :param domain: The name of the domain.
    :param on_event: Called with each QMP event.
    :raise MissingToolError: When libvirt's binding is missing.
    :raise HostError: When libvirt cannot be reached.
    :raise SkipError: When there is no such domain, or it does not run.
    """
    _register()
    connection = await _open(uri)
    try:
        try:
            found = await asyncio.to_thread(connection.lookupByName, domain)
            active = await asyncio.to_thread(found.isActive)
        except libvirt.libvirtError as err:
            raise SkipError(
                f"{uri or 'libvirt'}: {err.get_error_message()}",
                "'virsh list' lists the domains that run.",
            ) from err
        if not active:
            raise SkipError(
                f"the domain {domain} does not run",
                "Start it first.",
            )
        monitor = DomainMonitor(name, found)
        loop = asyncio.get_running_loop()

        def on_qmp(
            conn: Any, dom: Any, event: str, sec: int, usec: int,
            details: str | None, opaque: Any,
        ) -> None:
            document: dict[str, Any] = {
                "timestamp": {"seconds": sec, "microseconds": usec},
                "event": event,
            }
            if details:
                document["data"] = json.loads(details)
            loop.call_soon_threadsafe(on_event, document)

        def on_close(conn: Any, reason: int, opaque: Any) -> None:
            loop.call_soon_threadsafe(monitor.close)

        number = libvirt_qemu.qemuMonitorEventRegister(
            connection, found, None, on_qmp, None, 0
        )
        connection.registerCloseCallback(on_close, None)
        connection.setKeepAlive(5, 3)
        try:
            yield monitor
        finally:
            # libvirt may be gone.
            with suppress(libvirt.libvirtError):
                connection.unregisterCloseCallback()
                libvirt_qemu.qemuMonitorEventDeregister(connection, number)
    finally:
        with suppress(libvirt.libvirtError):
            await asyncio.to_thread(connection.close)


def _register() -> None:
    global _registered
    if libvirt is None:
        raise MissingToolError("libvirt's Python binding", PACKAGE)
    if not _registered:
        libvirt.registerErrorHandler(lambda opaque, error: None, None)
        _registered = True
    libvirtaio.virEventRegisterAsyncIOImpl()


async def _open(uri: str) -> Any:
    try:
        return await asyncio.to_thread(libvirt.open, uri or None)
    except libvirt.libvirtError as err:
        raise HostError(
            f"{uri or 'libvirt'}: {err.get_error_message()}",
            "Check the URI with 'virsh -c URI list'.",
        ) from err
