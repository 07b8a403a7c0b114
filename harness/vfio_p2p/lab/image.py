# SPDX-License-Identifier: GPL-2.0-or-later
"""The image of the lab's VMs: a kernel and an initramfs, cached by content."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vfio_p2p.errors import TestbedError
from vfio_p2p.foreign import NOT_JSON
from vfio_p2p.lab.modules import add_modules, build_modules, lab_sources
from vfio_p2p.lab.recipe import (
    LabRecipe,
    get_lab_kit,
    lab_folder,
    read_lab_recipe,
)
from vfio_p2p.lab.system import add_system
from vfio_p2p.machine.files import exclusive, publishing, used
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed.compiler import Compiler, compiler
from vfio_p2p.places.sealed.cpio import Layer
from vfio_p2p.places.sealed.kit import Kit, read_recipe
from vfio_p2p.progress import Progress, silent

_FORMAT = 1
_DIGESTS = "image.json"
_KERNEL = "vmlinuz"
_INITRAMFS = "initramfs.cpio"


@dataclass(frozen=True)
class LabImage:
    """A whole image.

    :param key: A hash of everything that it was made from.
    :param path: Its folder in the cache.
    :param kit: The kit that it was made from, which has the QEMU for it.
    """

    key: str
    path: Path
    kit: Kit

    @property
    def kernel(self) -> Path:
        """The file of the kernel."""
        return self.path / _KERNEL

    @property
    def initramfs(self) -> Path:
        """The initramfs, without the keys of a VM."""
        return self.path / _INITRAMFS


def get_lab_image(progress: Progress = silent) -> LabImage:
    """Find the image in the cache, or build it.

    :param progress: Told of each step.
    :raise HostError: When a package is not available.
    :raise BuildError: When a kernel module does not build.
    :raise MissingToolError: When the machine has no make.
    """
    recipe = read_lab_recipe()
    kit = get_lab_kit(recipe, progress)
    # The list of its programs and libraries is the testbed's.
    with compiler(read_recipe(), kit) as tools:
        key = lab_image_key(recipe, kit, tools)
        path = cache_dir() / "testbed" / "images" / f"lab-{key}"
        with exclusive(path.with_name(f"{path.name}.lock")):
            if not (used(path) and _whole(path)):
                with publishing(path) as partial:
                    _build(partial, recipe, kit, tools, progress)
                    if lab_image_key(recipe, kit, tools) != key:
                        raise TestbedError(
                            "the lab's sources changed while it was built",
                            "Run the command again when nothing changes them.",
                        )
                    (partial / _DIGESTS).write_bytes(
                        msgspec.json.encode(_digests(partial))
                    )
                used(path)
    return LabImage(key, path, kit)


def lab_image_key(recipe: LabRecipe, kit: Kit, tools: Compiler) -> str:
    """Hash everything that an image is made of.

    :param recipe: The recipe.
    :param kit: The packages.
    :param tools: The compiler of the kernel modules.
    """
    folder = lab_folder()
    files = {
        str(path.relative_to(folder.parent)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    # The kit's name stands for its content.
    made_of = (_FORMAT, recipe, kit.path.name, tools.version)
    digest = hashlib.sha256(msgspec.json.encode(made_of))
    digest.update(msgspec.json.encode(kit.packages, order="sorted"))
    for name, path in (files | lab_sources(recipe.own_modules)).items():
        data = path.read_bytes()
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:32]


def _digests(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (_KERNEL, _INITRAMFS)
    }


def _whole(path: Path) -> bool:
    try:
        kept = msgspec.json.decode(
            (path / _DIGESTS).read_bytes(), type=dict[str, str]
        )
        return kept == _digests(path)
    except (OSError, *NOT_JSON):
        return False


def _build(
    folder: Path,
    recipe: LabRecipe,
    kit: Kit,
    tools: Compiler,
    progress: Progress,
) -> None:
    steps = 3
    shutil.copy(
        kit.root / "boot" / f"vmlinuz-{kit.release}", folder / _KERNEL
    )
    layer = Layer()
    progress(0, steps, "modules")
    built = build_modules(recipe.own_modules, kit, tools, folder)
    add_modules(layer, recipe, kit, built)
    progress(1, steps, "system")
    add_system(layer, recipe, kit)
    progress(2, steps, "image")
    (folder / _INITRAMFS).write_bytes(layer.to_bytes())
    progress(3, steps, "image")
