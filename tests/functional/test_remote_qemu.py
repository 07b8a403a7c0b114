# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU on another host, which is the loopback's SSH server.

Whatever happens to one of the processes in between, QEMU ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sshd import Sshd, SshTest, until
from vfio_p2p.errors import (
    ConnectionLostError,
    HostError,
    LaunchError,
    StepTimeoutError,
)
from vfio_p2p.machine.host import Host, HostSpec, open_host
from vfio_p2p.machine.remote import RemoteQemu

# QEMU is gone within this time, whatever happened.
_GONE_S = 10.0
_LIMIT_S = 60.0
_OPTIONS = ("-nodefaults", "-display", "none", "-machine", "none", "-S")

_CONTROLLER = """\
import asyncio, os, sys
from pathlib import Path
from vfio_p2p.machine.host import HostSpec, open_host
from vfio_p2p.machine.remote import RemoteQemu
async def main():
    name, ssh, config, known, identity, folder, *argv = sys.argv[1:]
    spec = HostSpec(name, ssh, *map(Path, (config, known, identity)))
    async with (
        open_host(spec) as host,
        RemoteQemu("source", argv, Path(folder), host) as vm,
    ):
        await vm.start(60)
        print(vm.pid, await host.private_folder(), flush=True)
        try:
            await vm.ended("the end", 600)
        except Exception as error:
            print(repr(error), flush=True)
asyncio.run(main())
"""


def alive(pid: int | None) -> bool:
    """Tell whether a process runs."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def watcher_of(pid: int | None) -> int:
    """Return the process that started another one."""
    stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return int(stat.rpartition(")")[2].split()[1])


class RemoteTest(SshTest):
    """What all these tests need."""

    def setUp(self) -> None:
        super().setUp()
        qemu = shutil.which("qemu-system-x86_64")
        if qemu is None:
            self.cancel("qemu-system-x86 is missing: see packages.txt")
        self.argv = [str(qemu), *_OPTIONS]
        self.directory = Path(self.workdir, "source")
        self.directory.mkdir()

    def with_qemu(
        self,
        spec: HostSpec,
        use: Callable[[Host, RemoteQemu], Awaitable[Any]],
        argv: list[str] | None = None,
    ) -> None:
        """Do something with a QEMU, which is not started yet."""

        async def main() -> None:
            async with (
                open_host(spec) as host,
                RemoteQemu(
                    "source", argv or self.argv, self.directory, host
                ) as vm,
            ):
                await use(host, vm)

        asyncio.run(main())

    def read(self, name: str) -> str:
        """Read one of QEMU's files here."""
        return (self.directory / name).read_text()

    async def gone(self, pid: int | None) -> None:
        """Wait until QEMU is gone, as it has to be in time."""
        since = time.monotonic()
        await until(lambda: not alive(pid), _GONE_S)
        self.log.info("gone after %.1f s", time.monotonic() - since)


class Life(RemoteTest):
    """A QEMU that lives as it should."""

    def test_a_whole_life(self) -> None:
        async def use(host: Host, vm: RemoteQemu) -> None:
            self.assertFalse(vm.running)
            await vm.start(_LIMIT_S)
            self.assertTrue(vm.running)
            self.assertTrue(alive(vm.pid))
            folder = Path(f"/proc/{vm.pid}/cwd").readlink()
            status = await vm.execute("query-status", limit_s=_LIMIT_S)
            self.assertEqual(status["status"], "prelaunch")
            # The log follows while QEMU runs.
            await vm.execute("cont", limit_s=_LIMIT_S)
            event = await vm.next_event("test")
            self.assertEqual(event["event"], "RESUME")
            log = self.directory / "trace.log"
            await until(log.exists)
            await until(lambda: "running 1" in log.read_text())
            await vm.quit(_LIMIT_S)
            self.assertEqual((vm.status, vm.running), (0, False))
            # Both are whole.
            for name in ("trace.log", "stderr.txt"):
                self.assertEqual(
                    self.read(name), (folder / name).read_text()
                )
            self.assertIn("running 0", self.read("trace.log"))

        self.with_qemu(self.server().spec, use)
        lines = [json.loads(x) for x in self.read("qmp.jsonl").splitlines()]
        self.assertEqual(lines[-1]["dir"], "<-")
        self.assertEqual(list(lines[0]["msg"]), ["QMP"])

    def test_it_does_not_start(self) -> None:
        async def use(host: Host, vm: RemoteQemu) -> None:
            with self.assertRaisesRegex(
                LaunchError, "source: QEMU did not start: .*invalid option"
            ):
                await vm.start(_LIMIT_S)
            self.assertEqual(vm.status, 1)

        self.with_qemu(self.server().spec, use, [*self.argv, "-nonsense"])
        self.assertIn("-nonsense: invalid option", self.read("stderr.txt"))

    def test_there_is_no_qemu(self) -> None:
        async def use(host: Host, vm: RemoteQemu) -> None:
            with self.assertRaisesRegex(LaunchError, "/no/qemu: not found"):
                await vm.start(_LIMIT_S)

        self.with_qemu(self.server().spec, use, ["/no/qemu"])

    def test_it_is_killed(self) -> None:
        async def use(host: Host, vm: RemoteQemu) -> None:
            await vm.start(_LIMIT_S)
            await vm.kill()
            self.assertEqual(vm.status, -signal.SIGKILL)
            self.assertFalse(alive(vm.pid))
            await vm.kill()

        self.with_qemu(self.server().spec, use)

    def test_it_ends_with_the_block(self) -> None:
        pids = []

        async def use(host: Host, vm: RemoteQemu) -> None:
            await vm.start(_LIMIT_S)
            pids.append(vm.pid)

        self.with_qemu(self.server().spec, use)
        self.assertFalse(alive(pids[0]))

    def test_it_crashes(self) -> None:
        async def use(host: Host, vm: RemoteQemu) -> None:
            await vm.start(_LIMIT_S)
            assert vm.pid
            os.kill(vm.pid, signal.SIGSEGV)
            with self.assertRaises(ConnectionLostError) as caught:
                await vm.execute("query-status", limit_s=_LIMIT_S)
            self.assertTrue(caught.exception.crashed)
            self.assertIn("killed by SIGSEGV", str(caught.exception))

        self.with_qemu(self.server().spec, use)

    def test_a_hang_is_qemus(self) -> None:
        async def use(host: Host, vm: RemoteQemu) -> None:
            await vm.start(_LIMIT_S)
            assert vm.pid
            os.kill(vm.pid, signal.SIGSTOP)
            with self.assertRaisesRegex(StepTimeoutError, "query-status"):
                await vm.execute("query-status", limit_s=0.5)

        self.with_qemu(self.server().spec, use)

    def test_a_long_log_is_whole(self) -> None:
        """Much that is written at once, right before the end."""
        script = Path(self.workdir, "qemu")
        script.write_text(
            '#!/bin/sh\nfor x; do case $x in */trace.log) log=$x; esac; done\n'
            "seq 1000000 > $log; seq 200000 >&2; exit 7\n"
        )
        script.chmod(0o755)

        async def use(host: Host, vm: RemoteQemu) -> None:
            with self.assertRaises(LaunchError):
                await vm.start(_LIMIT_S)
            self.assertEqual(vm.status, 7)

        self.with_qemu(self.server().spec, use, [str(script)])
        for name, number in (("trace.log", 10**6), ("stderr.txt", 200000)):
            wanted = "".join(f"{n}\n" for n in range(1, number + 1))
            self.assertTrue(self.read(name) == wanted, name)

    def test_the_socket_is_not_forwarded(self) -> None:
        async def use(host: Host, vm: RemoteQemu) -> None:
            with self.assertRaises(HostError) as caught:
                await vm.start(_LIMIT_S)
            self.assertIn("AllowStreamLocal", caught.exception.hint)

        self.with_qemu(self.server("AllowStreamLocalForwarding no").spec, use)


class Ends(RemoteTest):
    """A QEMU that must not outlive those who want it."""

    def test_the_connection_breaks(self) -> None:
        server = self.server()

        async def use(host: Host, vm: RemoteQemu) -> None:
            await vm.start(_LIMIT_S)
            server.break_connections()
            with self.assertRaisesRegex(HostError, "box: the connection"):
                await vm.execute("query-status", limit_s=_LIMIT_S)
            await self.gone(vm.pid)
            with self.assertRaises(HostError):
                await vm.ended("the end", _LIMIT_S)

        self.with_qemu(server.spec, use)

    def test_the_host_freezes(self) -> None:
        """It is the host that is blamed, and not QEMU."""
        server = self.server()

        async def use(host: Host, vm: RemoteQemu) -> None:
            await vm.start(_LIMIT_S)
            with (
                server.frozen(),
                self.assertRaisesRegex(HostError, "does not answer any more"),
            ):
                await vm.execute("query-status", limit_s=1)
            # It goes as soon as the host is back.
            await self.gone(vm.pid)

        self.with_qemu(server.spec, use)

    def test_the_watcher_is_killed(self) -> None:
        async def use(host: Host, vm: RemoteQemu) -> None:
            await vm.start(_LIMIT_S)
            os.kill(watcher_of(vm.pid), signal.SIGKILL)
            await self.gone(vm.pid)
            with self.assertRaisesRegex(HostError, "killed by SIGKILL"):
                await vm.execute("query-status", limit_s=_LIMIT_S)

        self.with_qemu(self.server().spec, use)

    def test_the_watcher_is_killed_before_qemu_is_there(self) -> None:
        """No process is left behind, whenever the watcher is killed."""
        server = self.server()
        for delay_s in (0.0, 0.02, 0.05, 0.1, 0.2, 1.0):

            async def use(host: Host, vm: RemoteQemu) -> None:
                start = asyncio.create_task(vm.start(_LIMIT_S))
                await until(lambda: self.watchers(server))
                await asyncio.sleep(delay_s)  # noqa: B023
                killer = asyncio.create_task(self.kill_watchers(server))
                with self.assertRaises(HostError):
                    await start
                    # A fast machine had QEMU up before the watcher died.
                    while True:
                        await vm.execute("query-status", limit_s=_LIMIT_S)
                killer.cancel()

            self.with_qemu(server.spec, use)
            asyncio.run(until(lambda: not server.sessions(), _GONE_S))

    async def kill_watchers(self, server: Sshd) -> None:
        """Kill every watcher that is seen, until cancelled.

        One look is not enough: a process has no command line while it
        starts another program.
        """
        while True:
            for pid in self.watchers(server):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.01)

    @staticmethod
    def watchers(server: Sshd) -> list[int]:
        """Return the watchers that run below a server."""
        found = []
        for pid in server.sessions():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[-2:-1] == [b"watch"]:
                found.append(pid)
        return found

    def controller(self, server: Sshd) -> subprocess.Popen[str]:
        """Start a process that has a QEMU on the host."""
        spec = server.spec
        files = (spec.ssh_config, spec.known_hosts, spec.identity)
        process = subprocess.Popen(
            [
                sys.executable, "-c", _CONTROLLER, spec.name, spec.ssh,
                *map(str, (*files, self.directory)), *self.argv,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.stack.enter_context(process)
        self.stack.callback(process.kill)
        return process

    def test_we_are_killed(self) -> None:
        process = self.controller(self.server())
        assert process.stdout
        pid, folder = process.stdout.readline().split()
        self.assertTrue(alive(int(pid)))
        process.kill()
        asyncio.run(self.gone(int(pid)))
        asyncio.run(until(lambda: not os.path.exists(folder)))

    def test_we_are_stopped(self) -> None:
        """The connection stays, and nobody speaks on it."""
        process = self.controller(self.server())
        assert process.stdout
        pid, _ = process.stdout.readline().split()
        os.kill(process.pid, signal.SIGSTOP)
        asyncio.run(self.gone(int(pid)))
        os.kill(process.pid, signal.SIGCONT)
        self.assertIn("silent for 8 s", process.stdout.readline())
        self.assertEqual(process.wait(_LIMIT_S), 0)

    def test_we_are_stopped_for_a_moment(self) -> None:
        process = self.controller(self.server())
        assert process.stdout
        pid, _ = process.stdout.readline().split()
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(3)
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(7)
        self.assertTrue(alive(int(pid)))
        process.terminate()
        asyncio.run(self.gone(int(pid)))
