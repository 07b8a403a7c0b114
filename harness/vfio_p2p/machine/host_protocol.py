# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be done with a machine to test on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from vfio_p2p.machine.agent_session import AgentSession

AGENT_LIMIT_S = 60.0
THIS_MACHINE = "this machine"


class HostSpec(msgspec.Struct, frozen=True):
    """How to reach a host.

    :param name: The host's name, for messages.
    :param ssh: Where it is, ``[USER@]HOST[:PORT]`` or a name of the SSH
        configuration; empty for this machine.
    :param ssh_config: An SSH configuration to use instead of the user's.
    :param known_hosts: The file with the keys of known hosts, instead of
        the files that the SSH configuration names.
    :param identity: The file with the private key, instead of the agent's
        keys and those that the SSH configuration names.
    :param python: The host's Python.
    :param sudo: Whether to become root by ``sudo -n``.
    :param options: The options of the command line that name the host, after
        a space; for messages.
    """

    name: str = THIS_MACHINE
    ssh: str = ""
    ssh_config: Path | None = None
    known_hosts: Path | None = None
    identity: Path | None = None
    python: str = "python3"
    sudo: bool = False
    options: str = ""


class Completed(msgspec.Struct, frozen=True):
    """How a program ended.

    :param status: Its exit status, negative for a signal; 127 if there is
        no such program.
    :param stdout: What it wrote to stdout.
    :param stderr: What it wrote to stderr.
    """

    status: int
    stdout: bytes
    stderr: bytes


class Host(Protocol):
    """A machine to test on.

    Every method raises `HostError` when the host is gone.
    """

    name: str
    local: bool

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        limit_s: float,
        root: bool = False,
    ) -> Completed:
        """Run a program, without a shell, until it ends.

        :param argv: The program and its arguments.
        :param stdin: What it reads from stdin.
        :param limit_s: The limit in seconds.
        :param root: Whether it needs root.
        :raise HostError: When it takes longer.
        :raise InputError: When there is no way to become root.
        """

    async def agent(
        self,
        arguments: Sequence[str],
        *,
        stdin: bytes = b"",
        limit_s: float = AGENT_LIMIT_S,
        root: bool = False,
    ) -> Any:
        """Run a command of the agent, and return its JSON document.

        :param arguments: The command and its arguments.
        :param stdin: The command's request.
        :param limit_s: The limit in seconds.
        :param root: Whether it needs root.
        :raise UsageError: When the request makes no sense.
        :raise SkipError: When there is nothing to work on, or it is taken.
        :raise HostError: When the host does not do what it has to.
        :raise InputError: When the host has no Python that is new enough.
        """

    def agent_session(
        self, arguments: Sequence[str], *, root: bool = False
    ) -> AbstractAsyncContextManager[AgentSession]:
        """Run a command of the agent for as long as the block lasts.

        Its stdin ends with the block, and when this process dies.

        :param arguments: The command and its arguments.
        :param root: Whether it needs root.
        :raise InputError: When the host has no Python that is new enough.
        """

    async def put(
        self, data: bytes | Path, path: str, mode: int = 0o600
    ) -> None:
        """Write a file on the host, whole or not at all.

        :param data: The file's content, or a file with it on this machine.
        :param path: The file's path on the host.
        :param mode: Its permissions.
        :raise NoSpaceError: When there is no room for it.
        """

    async def get(self, path: str, target: Path) -> None:
        """Fetch a file from the host, whole or not at all.

        :param path: The file's path on the host.
        :param target: Where to write it on this machine.
        """

    async def private_folder(self) -> str:
        """Return a folder on the host that nobody else can look into.

        It is made when it is first asked for, and removed with the host's
        session.
        """

    def forward_unix(
        self, remote_path: str
    ) -> AbstractAsyncContextManager[Path]:
        """Make a socket of the host reachable within the block.

        A connection is closed at once if nothing listens on the host.

        :param remote_path: The path of the Unix socket on the host.
        :return: The path of a Unix socket on this machine.
        """

    def forward_tcp(
        self, address: str, port: int
    ) -> AbstractAsyncContextManager[Path | tuple[str, int]]:
        """Make a TCP port of the host reachable within the block.

        A connection is closed at once if nothing listens on the host.

        :param address: The address as the host has it, e.g. ``127.0.0.1``.
        :param port: The port.
        :return: The address and the port if the host is this machine, or
            else the path of a Unix socket, which only we can use.
        """

    async def check(self) -> None:
        """Check that the host answers.

        :raise HostError: When it does not.
        """

    async def close(self) -> None:
        """Remove the private folder and end the session; idempotent."""
