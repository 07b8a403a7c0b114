# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel modules of the lab's VMs: Debian's, and the project's own."""

from __future__ import annotations

import lzma
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from vfio_p2p.errors import TestbedError
from vfio_p2p.lab.recipe import LabRecipe
from vfio_p2p.lab.system import loaded
from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed.compiler import Compiler, call
from vfio_p2p.places.sealed.cpio import Layer
from vfio_p2p.places.sealed.drivers import build_module, module_sources
from vfio_p2p.places.sealed.kernel import headers_of
from vfio_p2p.places.sealed.kit import Kit

# Their own modules are compiled from p2psim's sources, too.
_SHARED = "p2psim"
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_LISTS = ("modules.builtin", "modules.builtin.modinfo", "modules.order")


def lab_sources(names: Iterable[str]) -> dict[str, Path]:
    """Find the sources of the project's own modules.

    :param names: Their names, which are those of their folders.
    :return: Paths by their names relative to the folder of all images.
    :raise TestbedError: When there is no such folder.
    """
    return module_sources((*names, _SHARED))


def build_modules(
    names: Iterable[str], kit: Kit, compiler: Compiler, folder: Path
) -> dict[str, bytes]:
    """Build the project's own modules for the lab's kernel.

    :param names: Their names.
    :param kit: Has the headers of the kernel.
    :param compiler: What compiles them.
    :param folder: A folder to work in; nothing stays there.
    :return: Contents by name.
    :raise BuildError: When one does not build.
    """
    wanted = tuple(names)
    sources = lab_sources(wanted)
    built: dict[str, bytes] = {}
    for name in wanted:
        built |= build_module(
            name, sources, headers_of(kit), compiler, folder
        )
    return built


def add_modules(
    layer: Layer, recipe: LabRecipe, kit: Kit, built: dict[str, bytes]
) -> None:
    """Add modules, and the lists in which modprobe looks for them.

    :param layer: Gets the files.
    :param recipe: Names Debian's modules.
    :param kit: Has them.
    :param built: The project's own modules.
    :raise TestbedError: When the kernel lacks a module.
    """
    tree = kit.find(f"lib/modules/{kit.release}")
    place = Path("lib/modules") / kit.release
    with temporary_folder() as name:
        stage = Path(name)
        (stage / place / "updates").mkdir(parents=True)
        for path, data in closure(tree, recipe.modules):
            target = stage / place / path.relative_to(tree).with_suffix("")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        for module, data in built.items():
            (stage / place / "updates" / f"{module}.ko").write_bytes(data)
        for each in _LISTS:
            shutil.copy(tree / each, stage / place)
        call(
            [
                *loaded(kit, "bin/kmod", "depmod"),
                "-b", str(stage), kit.release,
            ],
            stage,
            cache_dir() / "testbed" / "lab-depmod.log",
            package="kmod",
        )  # fmt: skip
        for path in sorted((stage / place).rglob("*")):
            if path.is_file():
                layer.add(f"usr/{path.relative_to(stage)}", path.read_bytes())


def closure(
    tree: Path, names: Iterable[str]
) -> Iterator[tuple[Path, bytes]]:
    """Find modules, and those that they depend on.

    :param tree: The folder of the kernel's modules, which are compressed.
    :param names: The names of the modules that are wanted.
    :return: Paths with the modules, decompressed.
    :raise TestbedError: When one is missing.
    """
    known = {
        path.name.removesuffix(".ko.xz").replace("-", "_"): path
        for path in tree.rglob("*.ko.xz")
    }
    todo = [name.replace("-", "_") for name in names]
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in known:
            raise TestbedError(
                f"the lab's kernel has no module {name}",
                "Correct images/lab/lab.toml, which asks for it.",
            )
        data = lzma.decompress(known[name].read_bytes())
        found = _DEPENDS.search(data)
        if found and found[1]:
            todo += found[1].decode().replace("-", "_").split(",")
        yield known[name], data
