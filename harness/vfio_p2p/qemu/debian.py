# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU that Debian ships: the upstream tarball of a source package."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from vfio_p2p.errors import HostError
from vfio_p2p.machine.files import exclusive, room_for, used
from vfio_p2p.paths import cache_dir
from vfio_p2p.progress import Progress
from vfio_p2p.qemu.apt import AptRoot

# The Debian releases with a QEMU that we have a base for.
SUITES = ("bookworm-backports", "trixie", "sid")

TARBALL_BYTES = 128 << 20


def debian_tarball(
    qemu: str, progress: Progress, *, refresh: bool = False
) -> Path:
    """Find the newest tarball of a QEMU series, in the cache or in Debian.

    :param qemu: The series; ``10.0`` means the newest 10.0.x.
    :param refresh: Ask Debian for a newer one even if one is cached.
    :raise HostError: When there is none.
    """
    folder = cache_dir() / "downloads"
    with (
        exclusive(folder / "lock", lambda: progress(0, 0, "waiting")),
        room_for(folder, TARBALL_BYTES),
    ):
        here = {x.name: x for x in folder.glob("qemu_*.orig.tar.*")}
        name = _newest(here, qemu, r"qemu_(.*)\.orig\.tar\.\w+")
        if name and used(here[name]) and not refresh:
            return here[name]
        progress(0, 0, f"looking for QEMU {qemu} in Debian")
        apt = AptRoot.open(SUITES, sources=True)
        if refresh:
            apt.update(force=True)
        version = _newest(apt.versions_of_source("qemu"), qemu, r"(.*)-.*")
        if not version:
            raise HostError(
                f"Debian's {' and '.join(SUITES)} have no QEMU {qemu}.x",
                "Give a source of your own with '--source'.",
            )
        progress(0, 0, f"downloading QEMU {version}")
        path = apt.download_source_tarball("qemu", version, folder)
        used(path)
        return path


def _newest(names: Iterable[str], qemu: str, pattern: str) -> str | None:
    """Return the name with the highest upstream version of the series.

    :param pattern: Its group is the version. That may begin with an epoch,
                    and end with the suffix of a repacked tarball.
    """
    found = []
    for name in names:
        match = re.fullmatch(pattern, name)
        version = match and re.fullmatch(
            rf"(?:\d+:)?{re.escape(qemu)}\.(\d+)(?:\+\w+)?", match[1]
        )
        if version:
            found.append((int(version[1]), name))
    return max(found)[1] if found else None
