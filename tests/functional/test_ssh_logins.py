# SPDX-License-Identifier: GPL-2.0-or-later
"""Logins by SSH that work, and the errors of those that do not."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from sshd import SshTest, free_port, make_key, until
from vfio_p2p.errors import HostError, InputError
from vfio_p2p.machine.host import Host, HostSpec


class Logins(SshTest):
    """Ways to log in, and the errors of those that do not work."""

    def test_nobody_listens(self) -> None:
        spec = self.server().spec
        spec = msgspec.structs.replace(spec, ssh=f"127.0.0.1:{free_port()}")
        error = self.refusal(spec)
        self.assertIsInstance(error, HostError)
        self.assertRegex(error.what, "cannot be reached: Connection refused$")

    def test_there_is_no_such_host(self) -> None:
        spec = self.server().spec
        error = self.refusal(msgspec.structs.replace(spec, ssh="no.invalid"))
        self.assertIsInstance(error, HostError)
        self.assertRegex(error.what, "@no.invalid:22 cannot be reached: ")

    def test_the_key_is_unknown(self) -> None:
        server = self.server()
        server.known_hosts.write_text("")
        error = self.refusal(server.spec)
        self.assertIsInstance(error, InputError)
        self.assertRegex(error.what, r"is unknown \(SHA256:.+\)$")
        self.assertNotIn("SHA256", server.known_hosts.read_text())

    def test_the_key_has_changed(self) -> None:
        server = self.server()
        server.know(make_key(server.folder / "other"))
        error = self.refusal(server.spec)
        self.assertIsInstance(error, InputError)
        self.assertRegex(error.what, "is not the one that is known")
        self.assertIn("ssh-keygen -R", error.hint)

    def test_the_kind_of_the_key_has_changed(self) -> None:
        server = self.server()
        other = server.folder / "other"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(other)],
            check=True,
        )
        server.know(other)
        # The server hangs up when there is no common kind of key.  Its reset
        # may arrive before we have read its list of kinds.
        for _ in range(20):
            error = self.refusal(server.spec)
            if "reset by peer" not in error.what:
                break
        self.assertRegex(error.what, "is not the one that is known")

    def test_the_configuration_cannot_switch_the_check_off(self) -> None:
        server = self.server()
        for line in ("none", "/dev/null"):
            config = server.write(
                "ssh_config",
                f"UserKnownHostsFile {line}\nGlobalKnownHostsFile none\n"
                "StrictHostKeyChecking no\n",
            )
            spec = msgspec.structs.replace(
                server.spec, ssh_config=config, known_hosts=None
            )
            config.write_text(config.read_text())
            error = self.refusal(spec)
            self.assertIn("is unknown", error.what)

    def test_we_are_not_let_in(self) -> None:
        server = self.server()
        (server.folder / "authorized_keys").write_text("")
        error = self.refusal(server.spec)
        self.assertIsInstance(error, InputError)
        self.assertRegex(error.what, "does not let us in: permission denied")

    def test_no_password_is_asked_for(self) -> None:
        server = self.server(
            "PasswordAuthentication yes",
            "KbdInteractiveAuthentication yes",
            "PubkeyAuthentication no",
        )
        error = self.refusal(server.spec)
        self.assertRegex(error.what, "does not let us in: permission denied")

    def test_the_key_has_a_passphrase(self) -> None:
        server = self.server()
        spec = msgspec.structs.replace(
            server.spec,
            identity=make_key(server.folder / "locked", passphrase="secret"),
        )
        error = self.refusal(spec)
        self.assertIsInstance(error, InputError)
        self.assertIn("ssh-add", error.hint)

    def test_files_that_are_missing(self) -> None:
        spec = self.server().spec
        for key in ("ssh_config", "known_hosts", "identity"):
            wrong = {key: Path("/no/such/file")}
            error = self.refusal(msgspec.structs.replace(spec, **wrong))
            self.assertIsInstance(error, InputError)
            self.assertIn("/no/such/file: there is no such", error.what)

    def test_a_configuration_that_is_wrong(self) -> None:
        server = self.server()
        spec = server.spec
        server.write("ssh_config", "Port many\n")
        error = self.refusal(spec)
        self.assertIsInstance(error, InputError)
        self.assertIn("SSH configuration is wrong", error.what)

    def test_an_ipv6_address(self) -> None:
        server = self.server()
        place = f"[::1]:{server.port}"
        for ssh in (place, f"{server.user}@{place}"):
            spec = msgspec.structs.replace(server.spec, ssh=ssh)
            self.on(spec, lambda host: host.check())

    def test_the_configuration_is_used(self) -> None:
        server = self.server()
        more = server.write(
            "more",
            f"Host alias\n  HostName 127.0.0.1\n  Port {server.port}\n"
            f"  User {server.user}\n  IdentityFile {server.identity}\n"
            f"  UserKnownHostsFile {server.known_hosts}\n",
        )
        config = server.write(
            "config", f"Include {more}\nHost *\n  User nobody\n  Port 1\n"
        )
        spec = HostSpec("box", "alias", ssh_config=config)
        self.on(spec, lambda host: host.check())
        # What the host's key says counts more than the configuration.
        error = self.refusal(msgspec.structs.replace(spec, ssh="alias:1"))
        self.assertIn("127.0.0.1:1 cannot be reached", error.what)

    def test_over_another_host(self) -> None:
        gate, server = self.server(name="gate"), self.server()
        server.know(server.host_key, name="behind")
        known = server.known_hosts.read_text()
        gate.known_hosts.write_text(known + gate.known_hosts.read_text())
        config = server.write(
            "config",
            "Host behind\n  HostName 127.0.0.1\n  HostKeyAlias behind\n"
            f"  Port {server.port}\n  ProxyJump gate\n"
            f"  IdentityFile {server.identity}\n"
            "Host gate\n  HostName 127.0.0.1\n"
            f"  Port {gate.port}\n  IdentityFile {gate.identity}\n"
            f"Host *\n  UserKnownHostsFile {gate.known_hosts}\n",
        )
        spec = HostSpec("box", "behind", ssh_config=config)

        async def use(host: Host) -> None:
            await host.check()
            self.assertTrue(gate.sessions())
            self.assertTrue(server.sessions())

        self.on(spec, use)
        # The key of a host on the way has to be known as well.
        gate.known_hosts.write_text(known)
        error = self.refusal(spec)
        self.assertRegex(error.what, r"^box \(via gate\): .* is unknown")

    def test_in_circles(self) -> None:
        server = self.server()
        config = server.write(
            "config", "Host *\n  ProxyJump gate\n  HostName 127.0.0.1\n"
        )
        error = self.refusal(HostSpec("box", "behind", ssh_config=config))
        self.assertIsInstance(error, InputError)
        self.assertIn("ProxyJump leads over more than", error.what)

    def test_the_agents_keys_are_used(self) -> None:
        if shutil.which("ssh-agent") is None:
            self.cancel("ssh-agent is missing")
        server = self.server()
        # The path of a socket has to be short.
        short = self.stack.enter_context(TemporaryDirectory())
        sock = Path(short, "agent")
        agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(sock)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self.stack.callback(agent.wait)
        self.stack.callback(agent.kill)
        asyncio.run(until(sock.exists))
        before = os.environ.get("SSH_AUTH_SOCK")
        os.environ["SSH_AUTH_SOCK"] = str(sock)
        try:
            # A key of the configuration that has a passphrase is left to it.
            locked = make_key(server.folder / "locked", passphrase="secret")
            server.write("ssh_config", f"IdentityFile {locked}\n")
            spec = msgspec.structs.replace(server.spec, identity=None)
            config = server.write("config", f"IdentityFile {locked}\n")
            spec = msgspec.structs.replace(spec, ssh_config=config)
            self.assertIn("permission denied", self.refusal(spec).what)
            subprocess.run(
                ["ssh-add", "-q", str(server.identity)],
                check=True,
                stderr=subprocess.DEVNULL,
            )
            self.on(spec, lambda host: host.check())
        finally:
            del os.environ["SSH_AUTH_SOCK"]
            if before is not None:
                os.environ["SSH_AUTH_SOCK"] = before
