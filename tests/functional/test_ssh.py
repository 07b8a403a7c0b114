# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that is reached by SSH, with OpenSSH's server on the loopback."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import asyncssh
import msgspec
from sshd import Sshd, SshTest, holder_argv, until
from vfio_p2p.errors import (
    HostError,
    InputError,
    NoSpaceError,
    UsageError,
)
from vfio_p2p.machine.host import Host

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

        def sleeps() -> bool:
            return b"sleep\x00601\x00" in commands(server)

        async def use(host: Host) -> None:
            running = asyncio.create_task(
                host.run(["sleep", "601"], limit_s=5)
            )
            await until(sleeps)
            with self.assertRaisesRegex(HostError, "sleep took longer than"):
                await running
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
            with self.assertRaisesRegex(HostError, "'Welcome'") as caught:
                await host.run(["true"], limit_s=60)
            self.assertIn("login scripts", caught.exception.hint)

        self.on(server.spec, use)

    def test_no_program_can_be_run(self) -> None:
        server = self.server("ForceCommand echo Not today >&2; exit 1")

        async def use(host: Host) -> None:
            with self.assertRaisesRegex(HostError, "'Not today'"):
                await host.agent(["clock"])

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

    def test_a_port_is_reached(self) -> None:
        async def greet(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(b"hello")
            writer.close()

        async def use(host: Host) -> None:
            server = await asyncio.start_server(greet, "127.0.0.1", 0)
            address, port = server.sockets[0].getsockname()
            async with server, host.forward_tcp(address, port) as ours:
                # Other users of this machine cannot use it.
                assert isinstance(ours, Path)
                self.assertEqual(ours.parent.stat().st_mode & 0o777, 0o700)
                reader, writer = await asyncio.open_unix_connection(ours)
                self.assertEqual(await reader.read(), b"hello")
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
            folder = Path(await host.private_folder())
            async with host.agent_session(["clock", "answer"]) as session:
                with server.frozen():
                    since = time.monotonic()
                    found = await asyncio.gather(
                        host.run(["true"], limit_s=60),
                        session.receive(),
                        host.check(),
                        return_exceptions=True,
                    )
                    took_s = time.monotonic() - since
            await until(lambda: not folder.exists())
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

    def test_errors_that_are_raised_elsewhere(self) -> None:
        """SFTP has many tasks, and one of them says what all have met."""

        async def fail(error: Exception) -> None:
            raise error

        async def forgotten(error: Exception) -> None:
            task = asyncio.create_task(fail(error))
            await asyncio.wait((task,))
            del task
            gc.collect()

        async def use(host: Host) -> None:
            with self.assertNoLogs("asyncio", "ERROR"):
                await forgotten(asyncssh.ConnectionLost("gone"))
            with self.assertLogs("asyncio", "ERROR"):
                await forgotten(RuntimeError("a mistake of ours"))

        self.on(self.server().spec, use)
