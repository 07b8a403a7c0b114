# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that is reached by SSH, with OpenSSH's server on the loopback."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from sshd import Sshd, SshTest, free_port, holder_argv, make_key, until
from vfio_p2p.errors import (
    HostError,
    InputError,
    NoSpaceError,
    UsageError,
)
from vfio_p2p.machine.host import Host, HostSpec

# An SSH connection whose host is frozen is given up within this time.
_NOTICED_S = 10.0

class Programs(SshTest):
    """Programs and the agent."""

    def test_a_program_gets_its_words_and_its_input(self) -> None:
        words = ["a  b", "$HOME", "'", '"', "\\", "*", "", "ü\n!x", "-n"]
        code = "import sys; print(sys.argv[1:], sys.stdin.read())"

        async def use(host: Host) -> None:
            done = await host.run(
                [sys.executable, "-c", code, *words],
                stdin=b"x" * 300_000,
                limit_s=60,
            )
            self.assertEqual(
                done.stdout.decode(), f"{words} {'x' * 300_000}\n"
            )
            self.assertEqual((done.status, done.stderr), (0, b""))

        self.on(self.server().spec, use)

    def test_statuses(self) -> None:
        async def use(host: Host) -> None:
            for code, status in (
                ("exit 3", 3),
                ("kill -KILL $$", -9),
                ("echo x >&2; exit 0", 0),
            ):
                done = await host.run(["sh", "-c", code], limit_s=60)
                self.assertEqual(done.status, status)
            self.assertEqual(done.stderr, b"x\n")
            done = await host.run(["no-such-program"], limit_s=60)
            self.assertEqual(done.status, 127)

        self.on(self.server().spec, use)

    def test_a_limit_ends_the_program(self) -> None:
        server = self.server()

        async def use(host: Host) -> None:
            with self.assertRaisesRegex(HostError, "sleep took longer than"):
                await host.run(["sleep", "601"], limit_s=0.5)

            def sleeps() -> bool:
                return b"sleep\0601\0" in commands(server)

            await until(lambda: not sleeps())
            await host.check()

        self.on(server.spec, use)

    def test_the_agent_answers(self) -> None:
        async def use(host: Host) -> None:
            with self.assertRaisesRegex(
                UsageError, "^box: there is no command 'nonsense'$"
            ):
                await host.agent(["nonsense"])
            async with host.agent_session(["clock", "answer"]) as session:
                await session.send(None)
                first = await session.receive()
                await session.send(None)
                self.assertGreater(await session.receive(), first)
            async with host.agent_session(["clock"]) as session:
                with self.assertRaisesRegex(UsageError, "box: clock does not"):
                    await session.receive()

        self.on(self.server().spec, use)

    def test_python_is_missing(self) -> None:
        spec = msgspec.structs.replace(
            self.server().spec, python="/usr/bin/no-python"
        )

        async def use(host: Host) -> None:
            with self.assertRaisesRegex(
                InputError, "box: /usr/bin/no-python is missing"
            ) as caught:
                await host.agent(["clock"])
            self.assertIn("Python 3.9", caught.exception.hint)

        self.on(spec, use)

    def test_python_is_too_old(self) -> None:
        server = self.server()
        old = server.write("python3.8", "#!/bin/sh\necho 3 8 0\n")
        old.chmod(0o755)
        spec = msgspec.structs.replace(server.spec, python=str(old))

        async def use(host: Host) -> None:
            with self.assertRaisesRegex(InputError, "is too old: 3.8"):
                await host.agent(["clock"])

        self.on(spec, use)

    def test_login_scripts_that_print(self) -> None:
        server = self.server(
            'ForceCommand echo Welcome; eval "$SSH_ORIGINAL_COMMAND"'
        )

        async def use(host: Host) -> None:
            with self.assertRaises(HostError) as caught:
                await host.agent(["clock"])
            self.assertIn("login scripts", caught.exception.hint)

        self.on(server.spec, use)

    def test_only_so_many_sessions(self) -> None:
        async def use(host: Host) -> None:
            async with host.agent_session(["clock", "answer"]):
                with self.assertRaises(HostError) as caught:
                    for _ in range(3):
                        await asyncio.gather(
                            *(
                                host.run(["sleep", "1"], limit_s=60)
                                for _ in range(3)
                            )
                        )
            self.assertIn("MaxSessions", caught.exception.hint)

        self.on(self.server("MaxSessions 3").spec, use)

    def test_root_without_a_way_to_it(self) -> None:
        if os.getuid() == 0:
            self.cancel("we are root on the loopback's host")

        async def use(host: Host) -> None:
            with self.assertRaisesRegex(InputError, "only root may do this"):
                await host.run(["true"], limit_s=60, root=True)

        self.on(self.server().spec, use)


def commands(server: Sshd) -> bytes:
    """Return the command lines of all that runs below a server."""
    found = b""
    for pid in server.sessions():
        try:
            found += Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
    return found


class Files(SshTest):
    """Files, and the private folder."""

    def test_a_file_goes_there_and_back(self) -> None:
        data = os.urandom(3_000_000)
        big = Path(self.workdir, "big")
        big.write_bytes(data)

        async def use(host: Host) -> None:
            folder = Path(await host.private_folder())
            self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
            await host.put(b"old", f"{folder}/x y")
            await host.put(big, f"{folder}/x y", 0o640)
            self.assertEqual((folder / "x y").read_bytes(), data)
            self.assertEqual((folder / "x y").stat().st_mode & 0o777, 0o640)
            back = Path(self.workdir, "back")
            await host.get(f"{folder}/x y", back)
            self.assertEqual(back.read_bytes(), data)
            self.assertEqual([x.name for x in folder.iterdir()], ["x y"])

        self.on(self.server().spec, use)

    def test_a_file_that_cannot_be(self) -> None:
        target = Path(self.workdir, "target")
        target.write_text("old")

        async def use(host: Host) -> None:
            folder = await host.private_folder()
            for wrong in (
                host.put(b"x", f"{folder}/none/x"),
                host.get(f"{folder}/none", target),
                host.get(folder, target),
            ):
                with self.assertRaises(HostError) as caught:
                    await wrong
                self.assertIn(folder, caught.exception.what)
            self.assertEqual(os.listdir(folder), [])

        self.on(self.server().spec, use)
        self.assertEqual(target.read_text(), "old")
        self.assertEqual(list(Path(self.workdir).glob(".*")), [])

    def test_the_disk_is_full(self) -> None:
        if os.getuid() != 0:
            self.cancel("only root can mount a file system")
        small = Path(self.workdir, "small")
        small.mkdir()
        mount(small, "size=256k")
        self.stack.callback(subprocess.run, ["umount", str(small)])

        async def use(host: Host) -> None:
            folder = await host.private_folder()
            self.assertTrue(folder.startswith(str(small)))
            with self.assertRaises(NoSpaceError) as caught:
                await host.put(bytes(1 << 20), f"{folder}/big")
            self.log.info("%s | %s", caught.exception, caught.exception.hint)
            self.assertIn(f"under box:{folder}: 1 MiB", str(caught.exception))
            self.assertIn("there", caught.exception.hint)
            self.assertEqual(os.listdir(folder), [])
            await host.put(b"small", f"{folder}/small")

        self.on(self.server(f"SetEnv TMPDIR={small}").spec, use)
        self.assertEqual(os.listdir(small), [])

    def test_there_is_no_room_for_the_folder(self) -> None:
        if os.getuid() != 0:
            self.cancel("only root can mount a file system")
        small = Path(self.workdir, "small")
        small.mkdir()
        mount(small, "nr_inodes=1")
        self.stack.callback(subprocess.run, ["umount", str(small)])

        async def use(host: Host) -> None:
            with self.assertRaisesRegex(NoSpaceError, "no room under box"):
                await host.agent(["clock"])

        self.on(self.server(f"SetEnv TMPDIR={small}").spec, use)

    def test_files_are_limited(self) -> None:
        """The limit kills sftp-server, and only that."""

        async def use(host: Host) -> None:
            folder = await host.private_folder()
            with self.assertRaises(HostError) as caught:
                await host.put(bytes(1 << 20), f"{folder}/big")
            self.log.info("%s", caught.exception)
            self.assertNotIn("big", os.listdir(folder))
            await host.check()

        self.on(self.server(limits="-f 256").spec, use)

    def test_no_files_are_transferred(self) -> None:
        async def use(host: Host) -> None:
            with self.assertRaises(HostError) as caught:
                await host.put(b"x", "/tmp/x")
            self.assertIn("subsystem sftp", caught.exception.hint)

        self.on(self.server("Subsystem sftp /no/server").spec, use)

    def test_the_folder_goes_with_the_session(self) -> None:
        server = self.server()
        folder = Path(self.on(server.spec, lambda h: h.private_folder()))
        self.assertTrue(folder.is_absolute())
        self.assertFalse(folder.exists())

    def test_the_folder_goes_with_us(self) -> None:
        server = self.server()
        with subprocess.Popen(
            holder_argv(server.spec), stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout
            folder = Path(holder.stdout.readline().decode().strip())
            self.assertTrue(folder.is_dir())
            holder.kill()
        asyncio.run(until(lambda: not folder.exists()))


def mount(folder: Path, options: str) -> None:
    """Mount a file system that is in memory."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        check=True,
    )


class Sockets(SshTest):
    """Unix sockets of the host."""

    def test_a_socket_is_reached(self) -> None:
        async def greet(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(b"hello " + await reader.readline())
            writer.close()

        async def use(host: Host) -> None:
            theirs = f"{await host.private_folder()}/there"
            server = await asyncio.start_unix_server(greet, theirs)
            async with server, host.forward_unix(theirs) as ours:
                self.assertNotEqual(str(ours), theirs)
                self.assertLess(len(str(ours)), 100)
                self.assertEqual(ours.parent.stat().st_mode & 0o777, 0o700)
                for _ in range(3):
                    reader, writer = await asyncio.open_unix_connection(ours)
                    writer.write(b"world\n")
                    self.assertEqual(await reader.read(), b"hello world\n")
                    writer.close()
            self.assertFalse(ours.parent.exists())

        self.on(self.server().spec, use)

    def test_nobody_listens(self) -> None:
        async def use(host: Host) -> None:
            async with host.forward_unix("/no/such/socket") as ours:
                reader, writer = await asyncio.open_unix_connection(ours)
                self.assertEqual(await reader.read(), b"")
                writer.close()

        self.on(self.server().spec, use)


class Lost(SshTest):
    """Hosts that go away."""

    def test_a_host_freezes(self) -> None:
        server = self.server()

        async def use(host: Host) -> None:
            async with host.agent_session(["clock", "answer"]) as session:
                for pid in server.sessions():
                    os.kill(pid, signal.SIGSTOP)
                frozen = time.monotonic()
                found = await asyncio.gather(
                    host.run(["true"], limit_s=60),
                    session.receive(),
                    host.check(),
                    return_exceptions=True,
                )
                took_s = time.monotonic() - frozen
            self.log.info("noticed after %.1f s: %s", took_s, found)
            for error in found:
                self.assertIsInstance(error, HostError)
                self.assertIn("box does not answer any more", str(error))
            self.assertLess(took_s, _NOTICED_S)

        self.on(server.spec, use)

    def test_the_server_is_killed(self) -> None:
        server = self.server()

        async def use(host: Host) -> None:
            folder = Path(await host.private_folder())
            running = asyncio.create_task(host.run(["cat"], limit_s=60))
            await host.check()
            server.break_connections()
            with self.assertRaisesRegex(HostError, "was lost"):
                await running
            with self.assertRaisesRegex(HostError, "was lost"):
                await host.check()
            await until(lambda: not folder.exists())

        self.on(server.spec, use)


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
        error = self.refusal(server.spec)
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
