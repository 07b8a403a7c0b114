# SPDX-License-Identifier: GPL-2.0-or-later
"""A second monitor, which QEMU opens for us on request of libvirt.

QEMU 11.1 and later make monitors at run time.  libvirt passes one end of a
socket pair on to QEMU, and the other end is ours.  QEMU removes the monitor
and its character device when our end is closed, also when we are killed.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from vfio_p2p.attach.domain import DomainMonitor
from vfio_p2p.attach.monitor import Monitor, OnEvent, connected
from vfio_p2p.errors import VMError

_TYPE = "monitor-qmp"


@asynccontextmanager
async def best_monitor(
    domain: DomainMonitor, on_event: OnEvent
) -> AsyncIterator[Monitor]:
    """Return a monitor of our own, or else that of libvirt.

    :param domain: The monitor that libvirt holds, with its domain found.
    :param on_event: Called with each QMP event of our own monitor.
    :raise VMError: When the domain's monitor does not answer.
    """
    async with AsyncExitStack() as stack:
        types = await domain.execute(
            "qom-list-types", {"implements": _TYPE, "abstract": False}
        )
        ours = await _ask_for_one(domain) if types else None
        if ours is None:
            yield domain
            return
        # Each event is told once.
        domain.muted = True
        yield await stack.enter_async_context(
            connected(domain.name, ours, on_event)
        )


async def _ask_for_one(domain: DomainMonitor) -> socket.socket | None:
    """Return our end of a new monitor; None if there is no way to get one.

    A libvirt on another machine cannot be passed a descriptor.
    """
    name = f"vfio-p2p-{secrets.token_hex(4)}"
    address = {"type": "fd", "data": {"str": name}}
    backend = {"type": "socket", "data": {"addr": address, "server": False}}
    undo: dict[str, dict[str, object]] = {}
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            await domain.execute(
                "getfd", {"fdname": name}, files=[theirs.fileno()]
            )
        undo = {"closefd": {"fdname": name}}
        await domain.execute("chardev-add", {"id": name, "backend": backend})
        undo = {"chardev-remove": {"id": name}}
        await domain.execute(
            "object-add",
            {
                "qom-type": _TYPE,
                "id": f"{name}-monitor",
                "chardev": name,
                "close-action": "delete",
            },
        )
    except VMError:
        ours.close()
        for command, arguments in undo.items():
            with suppress(VMError):
                await domain.execute(command, arguments)
        return None
    return ours
