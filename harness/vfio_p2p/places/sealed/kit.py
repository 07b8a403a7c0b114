# SPDX-License-Identifier: GPL-2.0-or-later
"""The kit: unpacked Debian packages and wheels, to make the outer VM of.

The versions are chosen when a kit is made.  The kit is then used until the
list in images/testbed changes or the cache is deleted, so that a new kernel
in the archive does not change the results of runs from one day to the next.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vfio_p2p import resources
from vfio_p2p.errors import TestbedError
from vfio_p2p.foreign import read_listing
from vfio_p2p.machine.files import exclusive, publishing, room_for, used
from vfio_p2p.machine.process import run_tool
from vfio_p2p.paths import cache_dir
from vfio_p2p.progress import Progress
from vfio_p2p.qemu.apt import AptRoot, unpack

_NEEDED_BYTES = 1 << 30
PACKAGES = "packages.json"
# Where Debian has libraries, with or without ``usr/`` before it.
LIBRARIES = "lib/x86_64-linux-gnu"
# One of them.
LOADER = "ld-linux-x86-64.so.2"


class Mtty(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sources of mtty: a table of images/testbed/testbed.toml."""

    files: tuple[str, ...]


class ImageRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of images/testbed/testbed.toml; see the comments there."""

    suites: tuple[str, ...]
    kernel: str
    kernel_packages: tuple[str, ...]
    packages: tuple[str, ...]
    outer_packages: tuple[str, ...]
    modules: tuple[str, ...]
    driver_modules: dict[str, tuple[str, ...]]
    python: str
    python_without: tuple[str, ...]
    libraries: tuple[str, ...]
    firmware: tuple[str, ...]
    outer_firmware: tuple[str, ...]
    compiler_packages: tuple[str, ...]
    tool_libraries: tuple[str, ...]
    tools: dict[str, str]
    source_package: str
    kernel_without: tuple[str, ...]
    mtty: Mtty

    def linux_package(self, kit: Kit) -> str:
        """Return the package with the source of the kit's kernel.

        :param kit: The kit.
        """
        series = ".".join(kit.release.split(".")[:2])
        return self.source_package.format(series=series)


@dataclass(frozen=True)
class Kit:
    """A whole kit.

    :param path: Its folder: ``root/`` has the files of the packages,
        ``wheels/`` those of the wheels.
    :param packages: The versions of all packages, by name.
    :param recipe: The file that lists them, below ``images/``.
    """

    path: Path
    packages: dict[str, str]
    recipe: str = "testbed/testbed.toml"

    @property
    def root(self) -> Path:
        """The folder in which the packages are unpacked."""
        return self.path / "root"

    @property
    def wheels(self) -> Path:
        """The folder in which the wheels are unpacked."""
        return self.path / "wheels"

    def find(self, *names: str) -> Path:
        """Find a file in one of the places where Debian has had it.

        :param names: Its paths, with or without ``usr/`` before them.
        :raise TestbedError: When the packages do not have it.
        """
        for name in (*names, *(f"usr/{name}" for name in names)):
            if (self.root / name).exists():
                return self.root / name
        raise TestbedError(
            f"the {self.recipe.partition('/')[0]}'s packages have no "
            f"{names[0]}",
            f"Correct images/{self.recipe}, which asks for it.",
        )

    def starting(self, program: str) -> tuple[str, ...]:
        """Return the beginning of a command line for one of its programs.

        The program gets the kit's own loader and libraries, so that it is
        the same on every machine.

        :param program: Its path, with or without ``usr/`` before it.
        :raise TestbedError: When the packages do not have it.
        """
        root = self.root.resolve()
        return (
            str(self.find(f"{LIBRARIES}/{LOADER}").resolve()),
            "--library-path",
            f"{root / LIBRARIES}:{root / 'usr' / LIBRARIES}",
            str(self.find(program).resolve()),
        )

    @property
    def kernel_version(self) -> str:
        """The version of the kernel's package."""
        return self.packages[f"linux-image-{self.release}"]

    @property
    def release(self) -> str:
        """The kernel's release, as ``uname -r`` prints it."""
        prefix = "linux-image-"
        return next(
            name.removeprefix(prefix)
            for name in self.packages
            if name.startswith(prefix)
        )


def recipe_folder() -> Path:
    """Return the folder of the testbed's recipe."""
    return resources.images() / "testbed"


def read_recipe() -> ImageRecipe:
    """Read images/testbed/testbed.toml."""
    with (recipe_folder() / "testbed.toml").open("rb") as file:
        return msgspec.convert(tomllib.load(file), ImageRecipe)


def get_kit(recipe: ImageRecipe, progress: Progress) -> Kit:
    """Find the kit in the cache, or make it.

    :param recipe: The recipe of the kit.
    :param progress: Told of each step.
    :raise HostError: When a package or wheel is not available.
    :raise NoSpaceError: When the disk is too full.
    """
    wheels = (recipe_folder() / "requirements.txt").read_bytes()
    wanted = (
        recipe.suites,
        recipe.kernel,
        recipe.kernel_packages,
        recipe.packages,
        recipe.outer_packages,
        recipe.compiler_packages,
        recipe.python,
        hashlib.sha256(wheels).hexdigest(),
    )
    return stored_kit(wanted, lambda folder: _make(folder, recipe, progress))


def stored_kit(
    wanted: object,
    make: Callable[[Path], dict[str, str]],
    recipe: str = "testbed/testbed.toml",
) -> Kit:
    """Find a kit in the cache, or let it be made.

    :param wanted: Everything that a new kit would depend on.
    :param make: Fills a folder; returns the versions of the packages in it.
    :param recipe: The file that lists them, below ``images/``.
    :raise NoSpaceError: When the disk is too full.
    """
    key = hashlib.sha256(msgspec.json.encode(wanted)).hexdigest()[:32]
    path = cache_dir() / "testbed" / "kits" / key
    with exclusive(path.with_name(f"{key}.lock")):
        packages = read_listing(path / PACKAGES) if used(path) else None
        if packages is None:
            with room_for(path, _NEEDED_BYTES), publishing(path) as partial:
                packages = make(partial)
                (partial / PACKAGES).write_bytes(
                    msgspec.json.encode(packages, order="sorted")
                )
            used(path)
    return Kit(path, packages, recipe)


def kernel_packages(
    apt: AptRoot, kernel: str, templates: Iterable[str]
) -> list[str]:
    """Name the packages of the newest kernel.

    :param apt: Where it is looked for.
    :param kernel: A pattern of the names of its package.
    :param templates: Names with ``{release}`` and ``{version}``.
    :raise HostError: When no package matches.
    """
    newest = list(apt.resolve_packages([kernel]))[-1]
    release = newest.removeprefix("linux-image-")
    version = release.partition("-")[0]
    return [
        name.format(release=release, version=version) for name in templates
    ]


def _make(
    folder: Path, recipe: ImageRecipe, progress: Progress
) -> dict[str, str]:
    steps = 3
    progress(0, steps, "testbed: packages")
    apt = AptRoot.open(recipe.suites)
    packages = apt.resolve_packages(
        [
            *kernel_packages(apt, recipe.kernel, recipe.kernel_packages),
            *recipe.packages,
            *recipe.outer_packages,
            *recipe.compiler_packages,
        ]
    )
    archives = apt.download_packages(packages)
    progress(1, steps, "testbed: unpacking")
    unpack(archives, folder / "root")
    progress(2, steps, "testbed: wheels")
    run_tool(
        [
            sys.executable, "-m", "pip", "install", "--quiet",
            "--no-deps", "--no-compile", "--require-hashes",
            "--only-binary=:all:",
            f"--python-version={recipe.python}",
            "--implementation=cp",
            "--platform=manylinux_2_17_x86_64",
            "--platform=manylinux2014_x86_64",
            f"--target={folder / 'wheels'}",
            f"--requirement={recipe_folder() / 'requirements.txt'}",
        ],
        "python3-pip",
        "Check the network and the settings of apt and pip, and start the "
        "command again.",
    )  # fmt: skip
    progress(3, steps, "testbed: parts")
    return packages
