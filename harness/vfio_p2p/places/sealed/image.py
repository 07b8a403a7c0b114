# SPDX-License-Identifier: GPL-2.0-or-later
"""The outer VM's image: a kernel and an initramfs, cached by content."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from vfio_p2p import resources
from vfio_p2p.choice import VmKernel
from vfio_p2p.devices import Driver
from vfio_p2p.errors import TestbedError
from vfio_p2p.foreign import read_intact
from vfio_p2p.machine.files import exclusive, publishing, used
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed.compiler import Compiler, call, compiler
from vfio_p2p.places.sealed.cpio import Layer
from vfio_p2p.places.sealed.drivers import (
    MODULES,
    build_module,
    driver_sources,
)
from vfio_p2p.places.sealed.kernel import VMLINUX, KernelBuild, get_kernel
from vfio_p2p.places.sealed.kit import (
    LIBRARIES,
    LOADER,
    ImageRecipe,
    Kit,
    get_kit,
    read_recipe,
    recipe_folder,
)
from vfio_p2p.places.sealed.modules import PACKAGE, modules_inside
from vfio_p2p.progress import Progress, silent
from vfio_p2p.scenario.argv import HEARTBEAT
from vfio_p2p.scenario.needs import Need

_FORMAT = 6
FILES = "image.json"
_PYTHON = "usr/lib/python{}"
# QEMU's iommufd asks for this; see images/p2psim/README.md.
_OPTIONS = {Driver.P2PSIM: " mdev=1"}
_GUEST = ("Makefile", "guest.c", "guest.ld", "start.S")


@dataclass(frozen=True)
class Image:
    """A whole image.

    :param key: Its key: a hash of everything that it was made from.
    :param path: Its folder in the cache.
    :param files: The SHA-256 of its files, by name.
    :param kit: The kit that it was made from.
    :param driver: The kernel module that provides its devices.
    :param kernel_kind: Which of the kernels it has.
    :param kernel_package: The name and the version of its kernel's package.
    :param compiler: The version of the compiler of the driver.
    """

    key: str
    path: Path
    files: dict[str, str]
    kit: Kit
    driver: Driver = Driver.P2PSIM
    kernel_kind: VmKernel = VmKernel.DEBIAN
    kernel_package: str = ""
    compiler: str = ""

    @property
    def kernel(self) -> Path:
        """The file of the kernel."""
        return self.path / _boot_name(self.kernel_kind)

    @property
    def initramfs(self) -> Path:
        """The initramfs, without the QEMU under test and the job."""
        return self.path / "initramfs.cpio"

    @property
    def firmware(self) -> Path:
        """The firmware of the QEMU that runs the VM, for its ``-L``."""
        return self.path / "firmware"


@dataclass(frozen=True)
class ImageParts:
    """Everything that an image is made of, except the project's modules.

    :param recipe: The recipe.
    :param kit: The packages and wheels.
    :param kernel: The kernel.
    :param driver: The kernel module that provides the devices.
    :param sources: The files that this module is compiled from, by name.
    :param compiler: What compiles it.
    """

    recipe: ImageRecipe
    kit: Kit
    kernel: KernelBuild
    driver: Driver
    sources: Mapping[str, Path]
    compiler: Compiler


def get_image(
    progress: Progress = silent,
    driver: Driver = Driver.P2PSIM,
    kernel: VmKernel = VmKernel.DEBIAN,
) -> Image:
    """Find the image in the cache, or build it.

    :param progress: Told of each step.
    :param driver: The kernel module that is to provide its devices.
    :param kernel: The kernel that it is to have.
    :raise HostError: When a package is not available.
    :raise BuildError: When the driver does not build.
    :raise MissingToolError: When the machine has no make.
    """
    recipe = read_recipe()
    kit = get_kit(recipe, progress)
    with compiler(recipe, kit) as tools:
        built = get_kernel(kernel, recipe, kit, tools, progress)
        sources: Mapping[str, Path] = {}
        if driver not in built.drivers:
            sources = driver_sources(driver, recipe, kit, progress)
        parts = ImageParts(recipe, kit, built, driver, sources, tools)
        key = image_key(parts, modules_inside(resources.resource()))
        path = cache_dir() / "testbed" / "images" / key
        with exclusive(path.with_name(f"{key}.lock")):
            files = read_intact(path / FILES, _digests) if used(path) else None
            if files is None:
                with publishing(path) as partial:
                    modules = modules_inside(resources.resource())
                    _build(partial, parts, modules, progress)
                    if image_key(parts, modules) != key:
                        raise TestbedError(
                            "the testbed's sources changed while it was "
                            "built",
                            "Run the command again when nothing changes them.",
                        )
                    files = _digests(partial)
                    (partial / FILES).write_bytes(
                        msgspec.json.encode(files)
                    )
                used(path)
    return Image(
        key, path, files, kit, driver, kernel, built.package, tools.version
    )


def _boot_name(kernel: VmKernel) -> str:
    """Name the file that QEMU starts; only Debian's is compressed."""
    return "vmlinuz" if kernel is VmKernel.DEBIAN else VMLINUX


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in _files(folder)
        if path.name != FILES
    }


def image_key(parts: ImageParts, modules: Mapping[str, bytes]) -> str:
    """Hash everything that an image is made of.

    :param parts: Everything except for the project's Python modules.
    :param modules: The contents of those modules, by path.
    """
    digest = hashlib.sha256()
    # The kit's name stands for its content.
    made_of = (
        _FORMAT,
        parts.driver,
        parts.recipe,
        parts.kit.path.name,
        parts.kernel.kernel,
        parts.kernel.key,
        parts.compiler.version,
    )
    digest.update(msgspec.json.encode(made_of))
    digest.update(msgspec.json.encode(parts.kit.packages, order="sorted"))
    files = {
        **{f"module/{name}": path for name, path in parts.sources.items()},
        **{f"guest/{path.name}": path for path in _guest_sources()},
        "init": recipe_folder() / "init",
    }
    contents = {name: path.read_bytes() for name, path in files.items()}
    for name, data in (contents | dict(modules)).items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:32]


def _build(
    folder: Path,
    parts: ImageParts,
    modules: Mapping[str, bytes],
    progress: Progress,
) -> None:
    steps = 4
    recipe, kit = parts.recipe, parts.kit
    kernel = parts.kernel
    shutil.copy(kernel.boot, folder / _boot_name(kernel.kernel))
    layer = Layer()
    layer.add("init", (recipe_folder() / "init").read_bytes(), True)
    for name in ("proc", "sys", "dev", "tmp", "usr/bin"):
        layer.folder(name)
    layer.add("bin/busybox", kit.find("bin/busybox").read_bytes(), True)
    progress(0, steps, "testbed: modules")
    layer.add("modules/driver", parts.driver.encode())
    _add_modules(layer, parts, _driver(folder, parts))
    progress(1, steps, "testbed: guest")
    guest = build_guest(folder, parts.compiler)
    layer.add(f"usr/share/seabios/{HEARTBEAT}", guest)
    progress(2, steps, "testbed: Python")
    _add_python(layer, folder, parts, modules)
    progress(3, steps, "testbed: image")
    for name in (LOADER, *recipe.libraries):
        path = kit.find(f"{LIBRARIES}/{name}")
        layer.add(f"{LIBRARIES}/{name}", path.read_bytes(), True)
    layer.link(f"lib64/{LOADER}", f"/{LIBRARIES}/{LOADER}")
    for name in recipe.firmware:
        bios = f"usr/share/{name}"
        layer.add(bios, (kit.root / bios).read_bytes())
    (folder / "firmware").mkdir()
    for name in recipe.outer_firmware:
        shutil.copy(kit.root / "usr/share" / name, folder / "firmware")
    (folder / "initramfs.cpio").write_bytes(layer.to_bytes())
    progress(4, steps, "testbed: image")


def _driver(folder: Path, parts: ImageParts) -> dict[str, bytes]:
    """Return the modules of the driver; they are compiled if need be."""
    if ready := parts.kernel.drivers.get(parts.driver):
        return {name: path.read_bytes() for name, path in ready.items()}
    return build_module(
        parts.driver.value,
        parts.sources,
        parts.kernel.make,
        parts.compiler,
        folder,
        MODULES[parts.driver],
    )


def _add_modules(
    layer: Layer, parts: ImageParts, built: Mapping[str, bytes]
) -> None:
    wanted: tuple[str, ...] = ()
    if parts.kernel.kernel is VmKernel.DEBIAN:
        wanted = _add_debian_modules(layer, parts)
    for name, data in built.items():
        layer.add(f"modules/{name}.ko", data)
    options = ""
    if Need.IOMMUFD in parts.kernel.kernel.offers:
        options = _OPTIONS.get(parts.driver, "")
    order = "".join(
        f"{name}{options if name == parts.driver else ''}\n"
        for name in (*wanted, *built)
    )
    layer.add("modules/order", order.encode())


def _add_debian_modules(layer: Layer, parts: ImageParts) -> tuple[str, ...]:
    """Add what the driver needs of Debian's modules; return their names."""
    recipe, kit = parts.recipe, parts.kit
    tree = kit.find(f"lib/modules/{kit.release}")
    wanted = (*recipe.modules, *recipe.driver_modules.get(parts.driver, ()))
    for name in wanted:
        found = sorted(tree.rglob(f"{name}.ko.xz"))
        if len(found) != 1:
            raise TestbedError(f"the kernel has no module {name}")
        layer.add(f"modules/{name}.ko", lzma.decompress(
            found[0].read_bytes()
        ))
    return wanted


def _guest_sources() -> list[Path]:
    return [resources.images() / "guest" / name for name in _GUEST]


def build_guest(
    folder: Path, tools: Compiler | None = None, *, console: bool = False
) -> bytes:
    """Build the program for the VMs that migrate, which takes no time.

    :param folder: A folder to work in; nothing stays there.
    :param tools: The compiler; by default it is the machine's.
    :param console: Whether the program also writes to the serial port.
    :return: A ROM.
    :raise BuildError: When it does not build.
    :raise MissingToolError: When there is no make.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        for path in _guest_sources():
            shutil.copy(path, work)
        call(
            ["make", "OUT=build", "console" if console else "all"],
            work,
            cache_dir() / "testbed" / "guest.log",
            package="make",
            environment=tools.environment if tools else None,
        )
        program = "console.bin" if console else "heartbeat.bin"
        return (work / "build" / program).read_bytes()


def _add_python(
    layer: Layer,
    folder: Path,
    parts: ImageParts,
    modules: Mapping[str, bytes],
) -> None:
    """Add compiled Python only, so that the guest need not compile it."""
    recipe, kit = parts.recipe, parts.kit
    library = _PYTHON.format(recipe.python)
    program = f"python{recipe.python}"
    with tempfile.TemporaryDirectory(dir=folder) as name:
        stage = Path(name)
        copy_tree(kit.root / library, stage, recipe.python_without)
        copy_tree(kit.wheels, stage, ("bin", "*.dist-info"))
        for module, data in modules.items():
            target = stage / PACKAGE / module
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        # Only the bytecode of the kit's own interpreter fits.
        call(
            [
                *kit.starting(f"bin/{program}"),
                "-m", "compileall", "-q", "-b",
                "--invalidation-mode", "unchecked-hash",
                "-s", str(stage), "-p", f"/{library}", str(stage),
            ],
            stage,
            cache_dir() / "testbed" / "compileall.log",
            package=program,
        )  # fmt: skip
        for path in _files(stage):
            if path.suffix != ".py":
                layer.add(
                    f"{library}/{path.relative_to(stage)}",
                    path.read_bytes(),
                    path.suffix == ".so",
                )
    layer.add(
        f"usr/bin/{program}",
        (kit.root / "usr/bin" / program).read_bytes(),
        True,
    )
    layer.link("usr/bin/python3", program)


def copy_tree(source: Path, target: Path, without: tuple[str, ...]) -> None:
    """Copy the files of a folder, but not what is linked from elsewhere.

    :param source: The folder.
    :param target: The folder to copy to; it need not exist.
    :param without: Patterns of the files and folders to leave out.
    """
    for path in _files(source):
        name = str(path.relative_to(source))
        parents = [name, *map(str, Path(name).parents)]
        if any(fnmatch(x, y) for x in parents for y in without):
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / name)


def _files(folder: Path) -> Iterator[Path]:
    """All files in a folder, without links that lead out of it.

    Debian's Python has one into the machine's own /etc.
    """
    top = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if (
            path.is_file()
            and "__pycache__" not in path.parts
            and path.resolve().is_relative_to(top)
        ):
            yield path
