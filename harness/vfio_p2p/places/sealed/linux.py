# SPDX-License-Identifier: GPL-2.0-or-later
"""The source of the testbed's kernel: the whole, or a few files.

Debian's package linux-source has 150 MB.  It is downloaded only if it is
needed.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from collections.abc import Iterable
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
    version = kit.kernel_version
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
    version = kit.kernel_version
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


def unpack_linux(
    archive: Path, folder: Path, without: Iterable[str]
) -> None:
    """Unpack the source in a package into a folder.

    :param archive: The package, as of `download_linux`.
    :param folder: An empty folder.
    :param without: Patterns of what is left out, as tar has them.
    :raise HostError: When it cannot be unpacked.
    :raise MissingToolError: When a program is missing.
    """
    # One program reads from the other, and no program reads the whole.
    commands = (
        ["dpkg-deb", "--fsys-tarfile", str(archive)],
        ["tar", "-xO", "--wildcards", "./usr/src/linux-source-*.tar.xz"],
        ["tar", "-xJ", "--strip-components=1", "-C", str(folder),
         *(f"--exclude={x}" for x in without)],
    )  # fmt: skip
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            last = command is commands[-1]
            running.append(
                subprocess.Popen(
                    bound(command),
                    stdin=running[-1].stdout
                    if running
                    else subprocess.DEVNULL,
                    stdout=None if last else subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            )
    except FileNotFoundError as err:
        raise MissingToolError(command[0], "dpkg, tar and xz-utils") from err
    finally:
        for process in running:
            if process.stdout:
                process.stdout.close()
        statuses = [process.wait() for process in running]
    if any(statuses):
        raise HostError(
            f"{archive} could not be unpacked",
            "Check that there are the programs tar and xz. If so, remove the "
            "file, and run the command again.",
        )


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
