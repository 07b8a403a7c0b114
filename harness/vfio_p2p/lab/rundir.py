# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder of a lab that is up, and the file that says what it is like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from vfio_p2p.foreign import NOT_JSON
from vfio_p2p.lab.options import LabOptions
from vfio_p2p.machine.files import write_whole
from vfio_p2p.paths import cache_dir

_FORMAT = 1


class LabMachine(msgspec.Struct, frozen=True, kw_only=True):
    """One VM.

    :param name: Its name, ``lab-a`` or ``lab-b``.
    :param ssh_port: The port of its SSH server on our loopback.
    :param link_port: The UDP port of its end of the private link.
    :param peer_port: The UDP port of the other end.
    """

    name: str
    ssh_port: int
    link_port: int
    peer_port: int


class LabState(msgspec.Struct, frozen=True, kw_only=True):
    """What was written when a lab was started.

    :param format: The version of this file.
    :param image: The key of the image.
    :param options: What the lab is like.
    :param machines: Its VMs.
    :param ready: Whether all of them have answered, and their clocks were
        set.
    """

    format: int = _FORMAT
    image: str
    options: LabOptions
    machines: tuple[LabMachine, ...]
    ready: bool = False


@dataclass(frozen=True)
class RunFolder:
    """The folder of a lab that is up.

    :param path: Its path, which may not exist.
    """

    path: Path

    @classmethod
    def of_user(cls) -> RunFolder:
        """Return the folder of the user's lab."""
        # Processes are known by it, so that it has one spelling.
        return cls(cache_dir().resolve() / "lab" / "run")

    @property
    def lock(self) -> Path:
        """The lock that is held while the lab goes up or down."""
        return self.path.with_name("lock")

    @property
    def key(self) -> Path:
        """The private key that opens the VMs."""
        return self.path / "key"

    @property
    def known_hosts(self) -> Path:
        """The host keys of the VMs."""
        return self.path / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """The SSH configuration with the VMs."""
        return self.path / "ssh_config"

    @property
    def hosts(self) -> Path:
        """The file that describes the VMs as places."""
        return self.path / "hosts.toml"

    @property
    def _state(self) -> Path:
        return self.path / "state.json"

    def host_key(self, name: str) -> Path:
        """The private host key of a VM."""
        return self.path / f"{name}.host_key"

    def initramfs(self, name: str) -> Path:
        """The whole initramfs of a VM."""
        return self.path / f"{name}.cpio"

    def console(self, name: str) -> Path:
        """The log of a VM's console."""
        return self.path / f"{name}.console.txt"

    def marker(self, name: str) -> tuple[str, str]:
        """The arguments by which the QEMU of a VM is known."""
        return "-pidfile", str(self.path / f"{name}.pid")

    def read(self) -> LabState | None:
        """Read what the lab is like; None if that is not to be known."""
        try:
            state = msgspec.json.decode(
                self._state.read_bytes(), type=LabState
            )
        except (OSError, *NOT_JSON):
            return None
        return state if state.format == _FORMAT else None

    def write(self, state: LabState) -> None:
        """Write what the lab is like."""
        write_whole(self._state, msgspec.json.encode(state))
