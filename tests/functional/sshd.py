# SPDX-License-Identifier: GPL-2.0-or-later
"""An SSH server of OpenSSH on the loopback, with keys of its own.

It runs as the user who runs the tests, and lets only that user in.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from avocado import Test
from vfio_p2p.errors import HarnessError
from vfio_p2p.machine.host import Host, HostSpec, open_host
from vfio_p2p.machine.process import bound

_START_S = 60.0
_SFTP = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
)


_HOLDER = """\
import asyncio, sys
from pathlib import Path
from vfio_p2p.machine.host import HostSpec, open_host
async def main():
    name, ssh, config, known, identity = sys.argv[1:]
    spec = HostSpec(name, ssh, *map(Path, (config, known, identity)))
    async with open_host(spec) as host:
        print(await host.private_folder(), flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


def find_sshd() -> str | None:
    """Return the path of sshd, which a user's PATH may lack."""
    return shutil.which("sshd", path=f"{os.defpath}:/usr/sbin:/sbin")


def make_key(path: Path, passphrase: str = "") -> Path:
    """Make a key pair, and return the path of the private key."""
    subprocess.run(
        [
            "ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase,
            "-C", "test", "-f", str(path),
        ],
        check=True,
    )  # fmt: skip
    return path


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _signal(pids: Iterable[int], signum: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


class Sshd:
    """One server; use it as a context manager.

    :param folder: A folder for its files, made if it is missing.
    :param lines: Further lines of its configuration.
    :param limits: Options of the shell's ``ulimit`` for it.
    """

    def __init__(self, folder: Path, *lines: str, limits: str = "") -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._limits = limits
        self.port = free_port()
        self.user = getpass.getuser()
        self.host_key = make_key(folder / "host_key")
        self.identity = make_key(folder / "identity")
        self.known_hosts = folder / "known_hosts"
        self.know(self.host_key)
        shutil.copy(f"{self.identity}.pub", folder / "authorized_keys")
        if not any(line.startswith("Subsystem") for line in lines):
            path = next(filter(os.path.exists, _SFTP))
            lines = (*lines, f"Subsystem sftp {path}")
        # Of equal lines, the first one counts.
        self._config = "\n".join(
            [
                *lines,
                f"Port {self.port}",
                "ListenAddress 127.0.0.1",
                "ListenAddress ::1",
                f"HostKey {self.host_key}",
                f"AuthorizedKeysFile {folder / 'authorized_keys'}",
                f"PidFile {folder / 'sshd.pid'}",
                "StrictModes no",
                "UsePAM no",
                "PasswordAuthentication no",
                "PrintMotd no",
                "",
            ]
        )
        self._process: subprocess.Popen[bytes] | None = None

    def know(self, key: Path, *, name: str = "") -> None:
        """Make a key the known one of this server."""
        kind, public, *_ = Path(f"{key}.pub").read_text().split()
        names = name or f"[127.0.0.1]:{self.port},[::1]:{self.port}"
        self.known_hosts.write_text(f"{names} {kind} {public}\n")

    @property
    def spec(self) -> HostSpec:
        """How to reach it."""
        return HostSpec(
            name="box",
            ssh=f"{self.user}@127.0.0.1:{self.port}",
            ssh_config=self.write("ssh_config", ""),
            known_hosts=self.known_hosts,
            identity=self.identity,
        )

    def write(self, name: str, text: str) -> Path:
        """Write a file into the server's folder."""
        path = self.folder / name
        path.write_text(text)
        return path

    def sessions(self) -> list[int]:
        """Return all processes that descend from the server."""
        assert self._process
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text(errors="replace")
                except OSError:
                    continue
                fields = stat.rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
        found = [self._process.pid]
        for pid in found:
            found += [x for x, parent in parents.items() if parent == pid]
        return found[1:]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all sessions of the host for as long as the block lasts."""
        pids = self.sessions()
        try:
            _signal(pids, signal.SIGSTOP)
            yield
        finally:
            # They find that nobody wants them any more, and end.
            _signal(pids, signal.SIGCONT)

    def break_connections(self) -> None:
        """Kill all processes of the server that have a connection."""
        for pid in self.sessions():
            # Another process may be gone by now.
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "sshd\n":
                    os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> Sshd:
        config = self.write("sshd_config", self._config)
        sshd = find_sshd()
        assert sshd
        if os.getuid() == 0:
            # Debian's sshd wants its empty folder, which init makes.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        log = self.folder / "sshd.log"
        argv = [sshd, "-D", "-f", str(config), "-E", str(log)]
        if self._limits:
            code = f'ulimit {self._limits}; exec "$@"'
            argv = ["sh", "-c", code, "sh", *argv]
        self._process = subprocess.Popen(
            bound(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_S
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port)):
                    return self
            except OSError:
                said = log.read_text() if log.exists() else ""
                if time.monotonic() > deadline:
                    raise
                if self._process.poll() is not None:
                    raise RuntimeError(said) from None
                time.sleep(0.05)

    def __exit__(self, *exc: object) -> None:
        assert self._process
        _signal(self.sessions(), signal.SIGKILL)
        self._process.kill()
        self._process.wait()


def holder_argv(spec: HostSpec) -> list[str]:
    """Return the command of a process that opens a host and stays."""
    return [
        sys.executable, "-c", _HOLDER, spec.name, spec.ssh,
        *map(str, (spec.ssh_config, spec.known_hosts, spec.identity)),
    ]  # fmt: skip


async def until(
    what: Callable[[], Any], limit_s: float = 60.0
) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + limit_s
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {limit_s:g} s, it still is not so")
        await asyncio.sleep(0.02)


class SshTest(Test):
    """What all these tests need."""

    timeout = 300

    def setUp(self) -> None:
        if find_sshd() is None or shutil.which("ssh-keygen") is None:
            self.cancel("openssh-server is missing: see packages-test.txt")
        self.stack = ExitStack()

    def tearDown(self) -> None:
        self.stack.close()

    def server(
        self, *lines: str, name: str = "sshd", limits: str = ""
    ) -> Sshd:
        """Start a server that ends with the test."""
        return self.stack.enter_context(
            Sshd(Path(self.workdir, name), *lines, limits=limits)
        )

    def refusal(self, spec: HostSpec) -> HarnessError:
        """Return the error of a login."""

        async def log_in() -> None:
            async with open_host(spec):
                pass

        with self.assertRaises(HarnessError) as caught:
            asyncio.run(log_in())
        error: HarnessError = caught.exception
        self.log.info("%s | %s", error, error.hint)
        self.assertNotIn("\n", str(error))
        self.assertTrue(error.hint)
        return error

    def on(self, spec: HostSpec, use: Callable[[Host], Awaitable[Any]]) -> Any:
        """Do something on a host."""

        async def main() -> Any:
            async with open_host(spec) as host:
                return await use(host)

        return asyncio.run(main())
