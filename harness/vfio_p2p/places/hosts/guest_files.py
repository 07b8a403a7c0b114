# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the files of a user's own guest are on a host."""

from __future__ import annotations

from vfio_p2p.devices.vf.line import CheckLine
from vfio_p2p.machine.host_protocol import Host
from vfio_p2p.places.hosts.guest import GuestEntry

_LIMIT_S = 30.0


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
