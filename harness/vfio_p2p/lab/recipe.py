# SPDX-License-Identifier: GPL-2.0-or-later
"""The recipe of the lab's VMs, and the kit of parts that it asks for."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from vfio_p2p import resources
from vfio_p2p.places.sealed.kit import (
    ImageRecipe,
    Kit,
    kernel_packages,
    read_recipe,
    stored_kit,
)
from vfio_p2p.progress import Progress
from vfio_p2p.qemu.apt import AptRoot, unpack

_FORMAT = 1
_FILE = "lab.toml"


class LabRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of images/lab/lab.toml; see the comments there."""

    suites: tuple[str, ...]
    kernel: str
    kernel_packages: tuple[str, ...]
    compiler_needs: tuple[str, ...]
    packages: tuple[str, ...]
    without: tuple[str, ...]
    system_without: tuple[str, ...]
    modules: tuple[str, ...]
    own_modules: tuple[str, ...]


def lab_folder() -> Path:
    """Return the folder of the lab's recipe."""
    return resources.images() / "lab"


def read_lab_recipe() -> LabRecipe:
    """Read images/lab/lab.toml."""
    with (lab_folder() / _FILE).open("rb") as file:
        return msgspec.convert(tomllib.load(file), LabRecipe)


def get_lab_kit(recipe: LabRecipe, progress: Progress) -> Kit:
    """Find the lab's kit in the cache, or make it.

    Its ``root/`` has the kernel and the compiler of modules for it; see
    `system_root` for the rest.

    :param recipe: The recipe.
    :param progress: Told of each step.
    :raise HostError: When a package is not available.
    :raise NoSpaceError: When the disk is too full.
    """
    testbed = read_recipe()
    wanted = (
        "lab",
        _FORMAT,
        recipe.suites,
        recipe.kernel,
        recipe.kernel_packages,
        recipe.packages,
        recipe.without,
        recipe.compiler_needs,
        testbed.compiler_packages,
    )
    return stored_kit(
        wanted,
        lambda folder: _make(folder, recipe, testbed, progress),
        f"lab/{_FILE}",
    )


def system_root(kit: Kit) -> Path:
    """Return the folder with the system of the VMs, and with the QEMU.

    :param kit: The lab's kit.
    """
    return kit.path / "system"


def _make(
    folder: Path, recipe: LabRecipe, testbed: ImageRecipe, progress: Progress
) -> dict[str, str]:
    steps = 3
    progress(0, steps, "packages")
    apt = AptRoot.open(recipe.suites)
    tools = apt.resolve_packages(
        [
            *kernel_packages(apt, recipe.kernel, recipe.kernel_packages),
            *recipe.compiler_needs,
            *testbed.compiler_packages,
        ]
    )
    system = wanted_packages(apt.solve_packages(recipe.packages), recipe)
    archives = apt.download_packages(tools), apt.download_packages(system)
    progress(1, steps, "unpacking")
    unpack(archives[0], folder / "root")
    progress(2, steps, "unpacking")
    unpack(archives[1], folder / "system")
    progress(3, steps, "parts")
    return {**tools, **system}


def wanted_packages(
    solved: Mapping[str, str], recipe: LabRecipe
) -> dict[str, str]:
    """Leave out the packages that the recipe does not want.

    :param solved: Versions by name.
    :param recipe: The recipe.
    """
    return {
        name: version
        for name, version in solved.items()
        if not any(fnmatch(name, pattern) for pattern in recipe.without)
    }
