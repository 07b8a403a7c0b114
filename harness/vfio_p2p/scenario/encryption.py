# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations that are encrypted by TLS, with a key that both sides have."""

from __future__ import annotations

from pathlib import Path

from vfio_p2p.machine.qemu import Qemu
from vfio_p2p.side import Side

OBJECT = "tls-creds-psk"
_USER = "vfio-p2p"
# It protects nothing: whoever reads the run's folder may know it.
_KEY = "5f" * 32
# QEMU looks for this name.
_FILE = "keys.psk"
_ENDPOINTS = {Side.SOURCE: "client", Side.DESTINATION: "server"}


def write_key(folder: Path) -> None:
    """Write the file with the key.

    :param folder: The folder that QEMU reads it from.
    """
    folder.mkdir(exist_ok=True)
    (folder / _FILE).write_text(f"{_USER}:{_KEY}\n")


async def encrypt(
    vm: Qemu, role: Side, folder: Path, limit_s: float
) -> None:
    """Make a QEMU encrypt its next migration.

    :param vm: The QEMU.
    :param role: Its role in the migration; each role needs its own object.
    :param folder: The folder with the key.
    :param limit_s: The limit for each command, in seconds.
    :raise VMError: When QEMU cannot.
    """
    name = f"tls-{role}"
    known = await vm.execute(
        "qom-list", {"path": "/objects"}, limit_s=limit_s
    )
    if all(x["name"] != name for x in known):
        credentials = {
            "qom-type": OBJECT,
            "id": name,
            "dir": str(folder),
            "endpoint": _ENDPOINTS[role],
        }
        if role is Side.SOURCE:
            # A server learns this from its client, and refuses to be told.
            credentials["username"] = _USER
        await vm.execute("object-add", credentials, limit_s=limit_s)
    await vm.execute(
        "migrate-set-parameters", {"tls-creds": name}, limit_s=limit_s
    )
