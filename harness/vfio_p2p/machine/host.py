# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine to test on: this one, or one that is reached by SSH.

Whatever differs between the two is behind `Host`: running a program, asking
the agent, and moving files.  The agent is sent along as one file, so that a
host needs no more than Python.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vfio_p2p.machine.agent_session import AgentSession
from vfio_p2p.machine.host_protocol import (
    THIS_MACHINE,
    Completed,
    Host,
    HostSpec,
)
from vfio_p2p.machine.local import LocalHost

__all__ = [
    "THIS_MACHINE",
    "AgentSession",
    "Completed",
    "Host",
    "HostSpec",
    "LocalHost",
    "open_host",
]


@asynccontextmanager
async def open_host(spec: HostSpec) -> AsyncIterator[Host]:
    """Open a session on a host for as long as the block lasts.

    :param spec: How to reach the host.
    :raise HostError: When it cannot be reached.
    :raise InputError: When it does not let us in, or is not the host that
        it was.
    """
    host: Host
    if spec.ssh:
        # Only hosts that are reached by SSH need the library.
        from vfio_p2p.machine.ssh import SshHost

        host = await SshHost.connect(spec)
    else:
        host = LocalHost(spec)
    try:
        yield host
    finally:
        await host.close()
