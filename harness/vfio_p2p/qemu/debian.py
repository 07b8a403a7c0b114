# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU that Debian ships: the upstream tarball of a source package."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from vfio_p2p.errors import HostError, UsageError
from vfio_p2p.machine.files import exclusive, publishing, room_for, used
from vfio_p2p.paths import cache_dir
from vfio_p2p.progress import Progress
from vfio_p2p.qemu.apt import AptRoot, unpack

# The Debian releases with a QEMU that we have a base for.
SUITES = ("bookworm-backports", "trixie", "sid")

# Those with binaries that can be run, the newest first.
BINARY_SUITES = (
    "sid", "testing", "trixie-backports", "trixie", "bookworm-backports",
)  # fmt: skip
PACKAGE = "qemu-system-x86"
_DEBIAN = "Give a version such as 'debian:11.1', or a suite: 'debian:sid'."

TARBALL_BYTES = 128 << 20
BINARY_BYTES = 2 << 30


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


def debian_root(wanted: str, progress: Progress) -> Path:
    """Unpack the QEMU that Debian has built, with its libraries.

    Nothing is installed: the packages are unpacked into a folder of the
    cache, which is named after them.

    :param wanted: A version, e.g. ``11.1.3`` or ``11.1``, or a suite.
    :param progress: Told of the download.
    :return: The root of the unpacked system.
    :raise UsageError: When Debian does not have it.
    :raise HostError: When a package cannot be had.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+~:-]{0,63}", wanted):
        raise UsageError(
            f"{wanted!r} is neither a version nor a suite of Debian", _DEBIAN
        )
    suites: tuple[str, ...] = BINARY_SUITES
    if not wanted[0].isdigit():
        suites = (wanted,)
    progress(0, 0, f"looking for QEMU {wanted} in Debian")
    for suite in suites:
        # Each suite has libraries of its own.
        apt = AptRoot.open(_with_main(suite))
        try:
            packages = apt.solve_packages([f"{PACKAGE}/{suite}"])
        except HostError:
            continue
        version = packages[PACKAGE]
        if suites != BINARY_SUITES or _is_release(version, wanted):
            return _unpacked(apt, packages, progress)
    raise UsageError(
        f"Debian's {', '.join(suites)} have no QEMU {wanted}", _DEBIAN
    )


def newest_release(progress: Progress) -> str:
    """Return the newest release of QEMU that Debian has built.

    :param progress: Told of the look-up.
    :return: Its first two numbers, e.g. ``11.1``.
    :raise HostError: When the archive cannot be read.
    """
    newest = BINARY_SUITES[0]
    progress(0, 0, f"looking for QEMU in {newest}")
    apt = AptRoot.open(_with_main(newest))
    version = apt.solve_packages([f"{PACKAGE}/{newest}"])[PACKAGE]
    release = re.match(r"(?:\d+:)?(\d+\.\d+)", version)
    if release is None:
        raise HostError(
            f"Debian's {newest} has QEMU {version}, which tells no release",
            "Name a version with '--qemu debian:VERSION'.",
        )
    return release[1]


def _with_main(suite: str) -> tuple[str, ...]:
    # A suite of backports depends on the release that it is for.
    return (suite.removesuffix("-backports"), suite)


def _is_release(version: str, wanted: str) -> bool:
    """Return whether a package's version is of a release."""
    upstream = version.rpartition(":")[2]
    return re.match(rf"{re.escape(wanted)}(?![0-9])", upstream) is not None


def _unpacked(
    apt: AptRoot, packages: Mapping[str, str], progress: Progress
) -> Path:
    text = "\n".join(map("=".join, sorted(packages.items())))
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    root = cache_dir() / "binaries" / name
    lock = root.with_name(f"{name}.lock")
    with (
        exclusive(lock, lambda: progress(0, 0, "waiting")),
        room_for(root.parent, BINARY_BYTES),
    ):
        if not root.is_dir():
            progress(0, 0, f"downloading QEMU {packages[PACKAGE]}")
            archives = apt.download_packages(packages)
            progress(0, 0, f"unpacking QEMU {packages[PACKAGE]}")
            with publishing(root) as partial:
                unpack(archives, partial)
        used(root)
    return root
