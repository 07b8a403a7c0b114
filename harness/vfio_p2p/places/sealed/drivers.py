# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel modules that are compiled here: their sources, and how.

The modules of the project are in folders beside one another, and have some
of their sources in common.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vfio_p2p import resources
from vfio_p2p.devices import Driver
from vfio_p2p.errors import TestbedError
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed.compiler import Compiler, call
from vfio_p2p.places.sealed.kit import ImageRecipe, Kit
from vfio_p2p.places.sealed.linux import linux_files
from vfio_p2p.progress import Progress

# In the order of their dependencies.
MODULES = {
    Driver.P2PSIM: ("p2psim",),
    Driver.MTTY: ("mdev", "mtty"),
    Driver.P2PVF: ("p2pvf",),
}

# Beside a module's own folder, what else is compiled into it.
_FOLDERS = {
    Driver.P2PSIM: ("p2psim",),
    Driver.P2PVF: ("labpf", "p2psim", "p2pvf"),
}
_SUFFIXES = (".c", ".h")
_BUILD_FILES = ("Kbuild", "Makefile")


def module_sources(folders: Iterable[str]) -> dict[str, Path]:
    """Find the sources of the project's own modules.

    :param folders: The names of their folders below ``images/``.
    :return: Paths by their names relative to the folder of all images.
    :raise TestbedError: When there is no such folder.
    """
    images = resources.images()
    found = {}
    for folder in sorted(set(folders)):
        if not (images / folder).is_dir():
            raise TestbedError(
                f"there are no sources of the module {folder}",
                "Correct the list in images/ that asks for it.",
            )
        for path in sorted((images / folder).iterdir()):
            if path.suffix in _SUFFIXES or path.name in _BUILD_FILES:
                found[str(path.relative_to(images))] = path
    return found


def driver_sources(
    driver: Driver, recipe: ImageRecipe, kit: Kit, progress: Progress
) -> dict[str, Path]:
    """Find the sources of a driver of the testbed.

    :param driver: The driver.
    :param recipe: Names what is taken from Linux.
    :param kit: Has the kernel for which the driver is compiled.
    :param progress: Told of each step.
    :return: Paths by name, as of `module_sources`.
    :raise HostError: When Linux's sources are not available.
    """
    if driver is not Driver.MTTY:
        return module_sources(_FOLDERS[driver])
    images = resources.images()
    folder = driver.value
    return {
        f"{folder}/{path.name}": path
        for path in (
            *linux_files(recipe, kit, progress),
            images / folder / "Kbuild",
            images / "p2psim" / "Makefile",
        )
    }


def build_module(
    module: str,
    sources: Mapping[str, Path],
    kernel: Sequence[str],
    compiler: Compiler,
    folder: Path,
    products: tuple[str, ...] = (),
) -> dict[str, bytes]:
    """Build a kernel module, which takes a few seconds.

    :param module: Its name, which is that of its folder in the sources.
    :param sources: Paths by name, as of `module_sources`.
    :param kernel: The variables of images/p2psim/Makefile that say for which
        kernel it is.
    :param compiler: What compiles it.
    :param folder: A folder to work in; nothing stays there.
    :param products: The modules that are built; by default, the one.
    :return: Contents by name, in the order of the products.
    :raise BuildError: When it does not build.
    :raise MissingToolError: When there is no make.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for file, path in sources.items():
            (target := Path(name, file)).parent.mkdir(exist_ok=True)
            shutil.copy(path, target)
        work = Path(name, module)
        call(
            [
                *("make", "OUT=build", "W=", f"MODULE={module}"),
                *kernel,
            ],
            work,
            cache_dir() / "testbed" / f"{module}.log",
            package="make",
            environment=compiler.environment,
        )
        return {
            product: (work / "build" / f"{product}.ko").read_bytes()
            for product in products or (module,)
        }
