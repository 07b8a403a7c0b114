# SPDX-License-Identifier: GPL-2.0-or-later
"""A few source files of Linux, of the testbed's kernel.

Debian's package linux-source has 150 MB.  It is downloaded only if one of its
files is needed.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from pathlib import Path

import msgspec

from vfio_p2p.errors import HostError, MissingToolError, TestbedError
from vfio_p2p.machine.files import exclusive, publishing, room_for, used
from vfio_p2p.machine.process import bound
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed.kit import ImageRecipe, Kit
from vfio_p2p.progress import Progress
from vfio_p2p.qemu.apt import AptRoot

_NEEDED_BYTES = 512 << 20


def linux_files(
    recipe: ImageRecipe, kit: Kit, progress: Progress
) -> list[Path]:
    """Find mtty's sources in the cache, or take them from the archive.

    :param recipe: Names the files.
    :param kit: Has the kernel; the sources must have its version.
    :param progress: Told of each step.
    :return: Their paths, sorted, all in one folder.
    :raise HostError: When they are not available, or only for another
        kernel.
    :raise NoSpaceError: When the disk is too full.
    """
    version = kit.packages[f"linux-image-{kit.release}"]
    package = recipe.linux_package(kit)
    wanted = msgspec.json.encode((package, version, recipe.mtty.files))
    key = hashlib.sha256(wanted).hexdigest()[:32]
    path = cache_dir() / "testbed" / "linux" / key
    with exclusive(path.with_name(f"{key}.lock")):
        if not used(path):
            with room_for(path, _NEEDED_BYTES), publishing(path) as partial:
                progress(0, 2, f"testbed: {package}")
                archive = download_linux(recipe, kit)
                progress(1, 2, "testbed: mtty's sources")
                _extract(archive, recipe.mtty.files, partial)
                progress(2, 2, "testbed: mtty's sources")
            used(path)
    return sorted(path.iterdir())


def download_linux(recipe: ImageRecipe, kit: Kit) -> Path:
    """Find the package of Linux's source in the cache, or download it.

    :param recipe: Names the package.
    :param kit: Has the kernel; the source must have its version.
    :raise HostError: When it is not available, or only for another kernel.
    """
    version = kit.packages[f"linux-image-{kit.release}"]
    package = recipe.linux_package(kit)
    apt = AptRoot.open(recipe.suites)
    found = apt.resolve_packages([package])[package]
    if found != version:
        raise HostError(
            f"Debian has {package} {found}, and the testbed's kernel is "
            f"{version}",
            f"Remove {kit.path}: then the testbed gets the newer kernel.",
        )
    (archive,) = apt.download_packages({package: version})
    return archive


def _extract(archive: Path, names: tuple[str, ...], folder: Path) -> None:
    """Extract files from the tarball in a package, and only these."""
    missing = set(names)
    try:
        with (
            subprocess.Popen(
                bound(["dpkg-deb", "--fsys-tarfile", str(archive)]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                # dpkg-deb complains when we stop reading.
                stderr=subprocess.DEVNULL,
            ) as dpkg,
            tarfile.open(fileobj=dpkg.stdout, mode="r|") as package,
        ):
            for outer in package:
                if not outer.name.endswith(".tar.xz"):
                    continue
                with tarfile.open(
                    fileobj=package.extractfile(outer), mode="r|xz"
                ) as tree:
                    _take(tree, missing, folder)
                break
    except FileNotFoundError as err:
        raise MissingToolError("dpkg-deb", "dpkg") from err
    except tarfile.TarError as err:
        raise HostError(
            f"{archive} is damaged: {err}",
            "Remove it, and run the command again.",
        ) from err
    if missing:
        raise TestbedError(
            f"{archive.name} has no {', '.join(sorted(missing))}",
            "Correct images/testbed/testbed.toml, which asks for it.",
        )


def _take(tree: tarfile.TarFile, missing: set[str], folder: Path) -> None:
    for member in tree:
        name = member.name.partition("/")[2]
        if name in missing:
            content = tree.extractfile(member)
            if content is not None:
                (folder / Path(name).name).write_bytes(content.read())
                missing.remove(name)
        if not missing:
            return
