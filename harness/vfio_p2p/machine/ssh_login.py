# SPDX-License-Identifier: GPL-2.0-or-later
"""Log in to a host by SSH, or say why that is not possible.

The user's SSH configuration and ssh-agent are used as ssh uses them.  There
are two differences: nothing is ever asked for, neither a password nor a
passphrase, and a host's key has to be known, whatever the configuration says.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncssh

from vfio_p2p.errors import HarnessError, HostError, InputError
from vfio_p2p.machine.host_protocol import HostSpec
from vfio_p2p.machine.ssh_address import SshAddress, parse_address

# A host that is frozen is noticed after the sum of these pauses.
_KEEPALIVE_S = 2
_KEEPALIVES = 3
SILENT_S = _KEEPALIVE_S * (_KEEPALIVES + 1)

# Logging in took up to three seconds where all is emulated.
_LOGIN_S = 30

_CONFIGS = ("~/.ssh/config", "/etc/ssh/ssh_config")
_KNOWN_HOSTS = (
    "~/.ssh/known_hosts",
    "~/.ssh/known_hosts2",
    "/etc/ssh/ssh_known_hosts",
    "/etc/ssh/ssh_known_hosts2",
)
# ProxyJump may lead in circles.
_JUMPS = 8


class Login(asyncssh.SSHClient):
    """One login, and what is known about it.

    :param name: The host's name.
    :param spec: How to reach it.
    :param address: Where it is.
    """

    def __init__(
        self, name: str, spec: HostSpec, address: SshAddress
    ) -> None:
        self._name = name
        self._spec = spec
        self._address = address
        self._where = str(address)
        self._keys: asyncssh.SSHKnownHosts | None = None
        self._known = False
        self._fingerprint = ""
        self.lost = False
        self.why = ""

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Note a key that is not trusted; it stays so."""
        self._fingerprint = key.get_fingerprint()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone."""
        self.lost = True
        self.why = str(exc or "")

    def gone(self) -> HostError:
        """Return the error of a connection that was lost."""
        if "keepalive" in self.why:
            return HostError(
                f"{self._name} does not answer any more: {self._where} has "
                f"been silent for {SILENT_S} s",
                "Check that the host still runs, and the network to it.",
            )
        return HostError(
            f"{self._name}: the connection to {self._where} was lost"
            + (f": {self.why}" if self.why else ""),
            "Check whether the host or its SSH server was restarted.",
        )

    async def dial(
        self, via: Sequence[asyncssh.SSHClientConnection], jumps: int = 0
    ) -> list[asyncssh.SSHClientConnection]:
        """Connect to the host and to those on the way to it.

        :param via: The connections that lead to it.
        :param jumps: The number of hosts on the way so far.
        :return: All connections; the last one leads to the host.
        :raise HostError: When the host cannot be reached.
        :raise InputError: When it does not let us in, or its key is not the
            known one.
        """
        made: list[asyncssh.SSHClientConnection] = []
        try:
            options = await self._options()
            if options.tunnel and not via:
                made += await self._jump(str(options.tunnel), jumps)
            self._read_keys(options.config.get("UserKnownHostsFile"))
            way = made or list(via)
            made.append(await self._connect(way[-1] if way else None))
        except BaseException as err:
            hang_up(made)
            if isinstance(err, HarnessError):
                raise
            if isinstance(err, (asyncssh.Error, OSError, ValueError)):
                raise self._explain(err) from err
            raise
        return made

    async def _connect(
        self, tunnel: asyncssh.SSHClientConnection | None
    ) -> asyncssh.SSHClientConnection:
        arguments = {
            "tunnel": tunnel,
            "known_hosts": self._look_up,
            "client_factory": lambda: self,
            **self._arguments(),
        }
        try:
            return await asyncssh.connect(**arguments)
        except (asyncssh.ConnectionLost, asyncssh.KeyExchangeFailed):
            if not self._known:
                raise
            # Only keys of the kinds that are known were asked for. If the
            # host has none of these any more, this shows which it has.
            return await asyncssh.connect(
                server_host_key_algs="default", **arguments
            )

    async def _jump(
        self, path: str, jumps: int
    ) -> list[asyncssh.SSHClientConnection]:
        """Connect to the hosts of ProxyJump, one after another."""
        made: list[asyncssh.SSHClientConnection] = []
        for hop in path.split(","):
            if jumps + len(made) >= _JUMPS:
                hang_up(made)
                raise InputError(
                    f"{self._name}: ProxyJump leads over more than {_JUMPS} "
                    "hosts",
                    "Check that no host's ProxyJump leads back to itself.",
                )
            address = parse_address(hop)
            name = f"{self._spec.name} (via {address.host})"
            login = Login(name, self._spec, address)
            made += await login.dial(made, jumps + len(made) + 1)
        return made

    def _arguments(self) -> dict[str, Any]:
        """Return the options of the connection but those about keys."""
        spec, address = self._spec, self._address
        if spec.ssh_config:
            configs = [_there(spec.ssh_config, spec.name, "configuration")]
        else:
            found = (Path(x).expanduser() for x in _CONFIGS)
            configs = [path for path in found if path.is_file()]
        arguments: dict[str, Any] = {
            "host": address.host,
            "config": [str(path) for path in configs],
            "keepalive_interval": _KEEPALIVE_S,
            "keepalive_count_max": _KEEPALIVES,
            "connect_timeout": _LOGIN_S,
            "login_timeout": _LOGIN_S,
            "password_auth": False,
            "kbdint_auth": False,
            "agent_forwarding": False,
            "x11_forwarding": False,
            "request_pty": False,
            "command": None,
            "encoding": None,
        }
        if address.user:
            arguments["username"] = address.user
        if address.port is not None:
            arguments["port"] = address.port
        if spec.identity:
            key = _there(spec.identity, spec.name, "private key")
            arguments |= {"client_keys": [str(key)], "agent_path": None}
        return arguments

    async def _options(self) -> asyncssh.SSHClientConnectionOptions:
        """Read the configuration."""
        options: asyncssh.SSHClientConnectionOptions = (
            await asyncssh.SSHClientConnectionOptions.construct(
                **self._arguments()
            )
        )
        self._where = str(
            SshAddress(options.host, options.username, options.port)
        )
        return options

    def _read_keys(self, configured: object) -> None:
        """Read the keys of known hosts."""
        if self._spec.known_hosts:
            files = [
                _there(
                    self._spec.known_hosts,
                    self._spec.name,
                    "file of known hosts",
                )
            ]
        else:
            names = list(_KNOWN_HOSTS)
            if isinstance(configured, list):
                # The user's files come first in the list.
                names[:2] = configured
            paths = (Path(name).expanduser() for name in names)
            files = [path for path in paths if path.is_file()]
        try:
            self._keys = asyncssh.read_known_hosts([str(x) for x in files])
        except (OSError, ValueError) as err:
            raise InputError(
                f"{self._name}: the files of known hosts cannot be read: "
                f"{err}",
                f"Check {' and '.join(map(str, files))}.",
            ) from err

    def _look_up(self, host: str, addr: str, port: int | None) -> Any:
        """Return the keys that the host may have."""
        assert self._keys
        found = asyncssh.match_known_hosts(self._keys, host, addr, port)
        self._known = any(found)
        return found

    def _explain(self, err: Exception) -> HarnessError:
        """Say why there is no connection."""
        name, where = self._name, self._where
        match err:
            case asyncssh.HostKeyNotVerifiable():
                return self._stranger(str(err))
            case asyncssh.PermissionDenied():
                return InputError(
                    f"{name}: {where} does not let us in: permission denied",
                    "Check the user, and that the host knows your key; load "
                    "it with ssh-add if it has a passphrase. No password is "
                    "asked for.",
                )
            case asyncssh.KeyImportError() | asyncssh.KeyEncryptionError():
                return InputError(
                    f"{name}: the private key cannot be used: {err}",
                    "If it has a passphrase, load it with ssh-add, and leave "
                    "out the host's key 'identity'.",
                )
            case asyncssh.ConfigParseError():
                return InputError(
                    f"{name}: the SSH configuration is wrong: {err}",
                    "Check that 'ssh -G' accepts it.",
                )
            case TimeoutError():
                why = f"no answer in {_LOGIN_S} s"
            case socket.gaierror():
                why = err.strerror or str(err)
            case OSError(errno=int(number)):
                # The library has messages of its own.
                why = os.strerror(number)
            case _:
                why = str(err)
        return HostError(
            f"{name}: {where} cannot be reached: {why}",
            "Check that the host and its SSH server run, and its address "
            f"and port; try 'ssh {self._address.host}'.",
        )

    def _stranger(self, why: str) -> InputError:
        """Return the error about a host's key."""
        key = f" ({self._fingerprint})" if self._fingerprint else ""
        if self._known:
            return InputError(
                f"{self._name}: the key of {self._where} is not the one "
                f"that is known{key}: {why}",
                "Somebody may be in between. If the host was installed anew, "
                "remove its old key with 'ssh-keygen -R'.",
            )
        return InputError(
            f"{self._name}: the key of {self._where} is unknown{key}",
            "Compare the key's fingerprint, and log in once with ssh to make "
            "it known.",
        )


async def log_in(
    spec: HostSpec,
) -> tuple[Login, list[asyncssh.SSHClientConnection]]:
    """Log in to a host.

    :param spec: How to reach it.
    :return: The login, and its connections; the last one leads to the host.
    :raise HostError: When the host cannot be reached.
    :raise InputError: When it does not let us in, or its key is not the
        known one.
    """
    login = Login(spec.name, spec, parse_address(spec.ssh))
    try:
        async with asyncio.timeout(2 * _LOGIN_S):
            return login, await login.dial(())
    except TimeoutError:
        raise HostError(
            f"{spec.name}: {spec.ssh} cannot be reached: no answer",
            "Check the host, and the commands of its SSH configuration.",
        ) from None


def hang_up(connections: Sequence[asyncssh.SSHClientConnection]) -> None:
    """Close connections at once.

    :param connections: The connections, the first one made first.
    """
    for connection in reversed(connections):
        connection.abort()


def _there(path: Path, name: str, what: str) -> Path:
    """Return a file that has to be there."""
    found = path.expanduser()
    if not found.is_file():
        raise InputError(
            f"{name}: {path}: there is no such {what}",
            "Check the path of the file.",
        )
    return found
