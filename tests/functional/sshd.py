# SPDX-License-Identifier: GPL-2.0-or-later
"""An SSH server of OpenSSH on the loopback, with keys of its own.

It runs as the user who runs the tests, and lets only that user in.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from vfio_p2p.machine.host import HostSpec
from vfio_p2p.machine.process import bound

_START_S = 60.0
_SFTP = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
)


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


class Sshd:
    """One server; use it as a context manager.

    :param folder: An existing folder for its files.
    :param lines: Further lines of its configuration.
    """

    def __init__(self, folder: Path, *lines: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.user = getpass.getuser()
        self.host_key = make_key(folder / "host_key")
        self.identity = make_key(folder / "identity")
        self.known_hosts = folder / "known_hosts"
        self.know(self.host_key)
        shutil.copy(f"{self.identity}.pub", folder / "authorized_keys")
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
                f"Subsystem sftp {next(filter(os.path.exists, _SFTP))}",
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

    def __enter__(self) -> Sshd:
        config = self.write("sshd_config", self._config)
        sshd = find_sshd()
        assert sshd
        if os.getuid() == 0:
            # Debian's sshd wants its empty folder, which init makes.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        log = self.folder / "sshd.log"
        self._process = subprocess.Popen(
            bound([sshd, "-D", "-f", str(config), "-E", str(log)]),
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
        self._process.kill()
        self._process.wait()
