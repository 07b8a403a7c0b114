# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of a user's own guest on a host: are they there, and which?"""

from __future__ import annotations

from vfio_p2p.bundle.provenance import GuestProvenance
from vfio_p2p.devices.vf.line import CheckLine
from vfio_p2p.errors import HostError
from vfio_p2p.machine.host_protocol import Host
from vfio_p2p.places.hosts.guest import GuestEntry
from vfio_p2p.places.hosts.installed import sha256_of

_LIMIT_S = 30.0
# An image may be large.
_HASH_S = 1800.0


async def check_files(
    name: str, host: Host, guest: GuestEntry | None
) -> tuple[CheckLine, ...]:
    """Look for the files of a guest, as the user who runs QEMU.

    :param name: The host's name in hosts.toml.
    :param host: A session on it.
    :param guest: The guest, if it has one.
    :raise HostError: When the host does not answer.
    """
    if guest is None:
        return ()
    lines = []
    for path in guest.files:
        writes = guest.writes and path == guest.image
        right, verb = ("-w", "written to") if writes else ("-r", "read")
        done = await host.run(
            ["test", "-f", path, "-a", right, path], limit_s=_LIMIT_S
        )
        wanted = f"a file that can be {verb}"
        lines.append(
            CheckLine(
                name,
                f"guest {path}",
                done.status == 0,
                f"no file, or one that cannot be {verb}"
                if done.status
                else wanted,
                wanted,
                f"Correct [host.{name}.guest] in hosts.toml, or put the file "
                "there."
                if done.status
                else "",
            )
        )
    return tuple(lines)


class GuestFiles:
    """The content of the files of a guest, as long as they do not change.

    :param name: The host's name in hosts.toml.
    :param host: A session on it.
    """

    def __init__(self, name: str, host: Host) -> None:
        self._name = name
        self._host = host
        # By path: what the file system says of the file, and its SHA-256.
        self._known: dict[str, tuple[bytes, str]] = {}

    async def provenance(self, guest: GuestEntry) -> GuestProvenance:
        """Describe a guest as a part of a run's provenance.

        :param guest: The guest.
        :raise HostError: When a file cannot be read.
        """
        paths = {"kernel": guest.kernel, "initrd": guest.initrd}
        if not guest.writes:
            paths["image"] = guest.image
        return GuestProvenance(
            files={
                key: await self._sha256(path)
                for key, path in paths.items()
                if path
            },
            append=guest.append,
            memory_mib=guest.memory_mib,
            smp=guest.smp,
            cpu=guest.cpu,
            image_mode=str(guest.image_mode) if guest.image else "",
        )

    async def _sha256(self, path: str) -> str:
        told = await self._host.run(
            ["stat", "-L", "-c", "%d %i %s %Y %Z", path], limit_s=_LIMIT_S
        )
        if told.status:
            said = told.stderr.decode(errors="backslashreplace").strip()
            raise HostError(
                f"{self._name}: {path} cannot be read: {said}",
                f"Check the files of [host.{self._name}.guest].",
            )
        before, found = self._known.get(path, (b"", ""))
        if before != told.stdout:
            found = await sha256_of(self._host, path, _HASH_S)
            self._known[path] = told.stdout, found
        return found
