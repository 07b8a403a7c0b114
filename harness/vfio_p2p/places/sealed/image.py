# SPDX-License-Identifier: GPL-2.0-or-later
"""The outer VM's image: a kernel and an initramfs, cached by content."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from vfio_p2p import resources
from vfio_p2p.devices import Driver
from vfio_p2p.errors import BuildError, MissingToolError, TestbedError
from vfio_p2p.machine.files import exclusive, publishing
from vfio_p2p.machine.process import die_with_parent
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed.cpio import Layer
from vfio_p2p.places.sealed.kit import (
    Kit,
    Recipe,
    get_kit,
    read_recipe,
    recipe_folder,
)
from vfio_p2p.places.sealed.linux import linux_files
from vfio_p2p.progress import Progress, silent
from vfio_p2p.scenario.argv import HEARTBEAT

_FORMAT = 3
_FILES = "image.json"
_LIBRARIES = "lib/x86_64-linux-gnu"
_LOADER = "ld-linux-x86-64.so.2"
_PYTHON = "usr/lib/python{}"
_GUEST = ("Makefile", "guest.c", "guest.ld", "start.S")

# In the order of their dependencies.
_MODULES = {Driver.P2PSIM: ("p2psim",), Driver.MTTY: ("mdev", "mtty")}


@dataclass(frozen=True)
class Image:
    """A whole image.

    :param key: Its key: a hash of all that it was made from.
    :param path: Its folder in the cache.
    :param files: SHA-256 of its files, by name.
    :param driver: Whose devices it has.
    :param kernel_package: Name and version of its kernel's package.
    :param compiler: What compiled the driver.
    """

    key: str
    path: Path
    files: dict[str, str]
    driver: Driver = Driver.P2PSIM
    kernel_package: str = ""
    compiler: str = ""

    @property
    def kernel(self) -> Path:
        """The kernel's file."""
        return self.path / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        """The initramfs, less the QEMU under test and the job."""
        return self.path / "initramfs.cpio"

    @property
    def firmware(self) -> Path:
        """Firmware of the QEMU that runs the VM, for its ``-L``."""
        return self.path / "firmware"


def get_image(
    progress: Progress = silent, driver: Driver = Driver.P2PSIM
) -> Image:
    """Find the image in the cache, or build it.

    :param progress: Told of each step.
    :param driver: Whose devices it is to have.
    :raise HostError: When a package cannot be had.
    :raise BuildError: When the driver does not build.
    :raise MissingToolError: When there is no compiler.
    """
    recipe = read_recipe()
    kit = get_kit(recipe, progress)
    sources = _module_sources(driver, recipe, kit, progress)
    key = _key(recipe, kit, driver, sources)
    path = cache_dir() / "testbed" / "images" / key
    with exclusive(path.with_name(f"{key}.lock")):
        files = _stored(path)
        if files is None:
            with publishing(path) as partial:
                _build(partial, recipe, kit, driver, sources, progress)
                if _key(recipe, kit, driver, sources) != key:
                    raise TestbedError(
                        "the testbed's sources changed while it was built",
                        "start again when they are at rest",
                    )
                files = _digests(partial)
                (partial / _FILES).write_bytes(msgspec.json.encode(files))
    kernel = f"linux-image-{kit.release}"
    return Image(
        key,
        path,
        files,
        driver,
        f"{kernel} {kit.packages[kernel]}",
        _compiler(),
    )


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in _files(folder)
        if path.name != _FILES
    }


def _stored(path: Path) -> dict[str, str] | None:
    """What is in a cached image; None if it is not there, or damaged."""
    try:
        data = (path / _FILES).read_bytes()
        files = msgspec.json.decode(data, type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return None
    return files if files == _digests(path) else None


def _module_sources(
    driver: Driver, recipe: Recipe, kit: Kit, progress: Progress
) -> list[Path]:
    images = resources.images()
    p2psim = images / "p2psim"
    if driver is Driver.MTTY:
        linux = linux_files(recipe, kit, progress)
        return [*linux, images / "mtty" / "Kbuild", p2psim / "Makefile"]
    return [
        path
        for path in sorted(p2psim.iterdir())
        if path.suffix in (".c", ".h") or path.name in ("Kbuild", "Makefile")
    ]


def _key(
    recipe: Recipe, kit: Kit, driver: Driver, sources: list[Path]
) -> str:
    digest = hashlib.sha256()
    # The kit's name stands for what is in it, the compiler for the rest.
    made_of = (_FORMAT, driver, recipe, kit.path.name, _compiler())
    digest.update(msgspec.json.encode(made_of))
    digest.update(msgspec.json.encode(kit.packages, order="sorted"))
    root = resources.resource()
    ours = (
        recipe_folder() / "init",
        *_guest_sources(),
        *(root / name for name in recipe.harness),
    )
    files = {f"module/{path.name}": path for path in sources} | {
        str(path.relative_to(root)): path for path in ours
    }
    for name, path in files.items():
        data = path.read_bytes()
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:32]


def _compiler() -> str:
    """Identity of what compiles the simulated device."""
    try:
        done = subprocess.run(
            ["gcc", "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    except FileNotFoundError as err:
        raise MissingToolError("gcc", "gcc") from err
    return done.stdout.partition("\n")[0]


def _build(
    folder: Path,
    recipe: Recipe,
    kit: Kit,
    driver: Driver,
    sources: list[Path],
    progress: Progress,
) -> None:
    steps = 4
    shutil.copy(kit.root / "boot" / f"vmlinuz-{kit.release}",
                folder / "vmlinuz")
    layer = Layer()
    layer.add("init", (recipe_folder() / "init").read_bytes(), True)
    for name in ("proc", "sys", "dev", "tmp", "usr/bin"):
        layer.folder(name)
    layer.add("bin/busybox", _find(kit, "bin/busybox").read_bytes(), True)
    progress(0, steps, "testbed: modules")
    layer.add("modules/driver", driver.encode())
    built = _build_modules(folder, kit, driver, sources)
    _add_modules(layer, recipe, kit, built)
    progress(1, steps, "testbed: guest")
    layer.add(f"usr/share/seabios/{HEARTBEAT}", build_guest(folder))
    progress(2, steps, "testbed: Python")
    _add_python(layer, folder, recipe, kit)
    progress(3, steps, "testbed: image")
    for name in (_LOADER, *recipe.libraries):
        path = _find(kit, f"{_LIBRARIES}/{name}", f"usr/{_LIBRARIES}/{name}")
        layer.add(f"{_LIBRARIES}/{name}", path.read_bytes(), True)
    layer.link(f"lib64/{_LOADER}", f"/{_LIBRARIES}/{_LOADER}")
    for name in recipe.firmware:
        bios = f"usr/share/{name}"
        layer.add(bios, (kit.root / bios).read_bytes())
    (folder / "firmware").mkdir()
    for name in recipe.outer_firmware:
        shutil.copy(kit.root / "usr/share" / name, folder / "firmware")
    (folder / "initramfs.cpio").write_bytes(layer.to_bytes())
    progress(4, steps, "testbed: image")


def _find(kit: Kit, *names: str) -> Path:
    """One of several places that a file has had in Debian's packages."""
    for name in (*names, *(f"usr/{name}" for name in names)):
        if (kit.root / name).exists():
            return kit.root / name
    raise TestbedError(
        f"the testbed's packages have no {names[0]}",
        "images/testbed/testbed.toml asks for what they no longer hold",
    )


def _add_modules(
    layer: Layer, recipe: Recipe, kit: Kit, built: dict[str, bytes]
) -> None:
    tree = _find(kit, f"lib/modules/{kit.release}")
    for name in recipe.modules:
        found = sorted(tree.rglob(f"{name}.ko.xz"))
        if len(found) != 1:
            raise TestbedError(f"the kernel has no module {name}")
        layer.add(f"modules/{name}.ko", lzma.decompress(
            found[0].read_bytes()
        ))
    for name, data in built.items():
        layer.add(f"modules/{name}.ko", data)
    order = "".join(f"{name}\n" for name in (*recipe.modules, *built))
    layer.add("modules/order", order.encode())


def _build_modules(
    folder: Path, kit: Kit, driver: Driver, sources: list[Path]
) -> dict[str, bytes]:
    """Build a driver for the testbed's kernel; takes a few seconds.

    :return: Contents by name, in the order of their dependencies.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        for path in sources:
            shutil.copy(path, work)
        log = cache_dir() / "testbed" / f"{driver}.log"
        with log.open("wb") as output:
            call(
                [
                    *("make", "OUT=build", "W=", f"MODULE={driver}"),
                    f"HEADERS={kit.root.resolve()}",
                    f"VERSION={kit.release}",
                ],
                work, log, output.fileno(), "make",
            )  # fmt: skip
        return {
            name: (work / "build" / f"{name}.ko").read_bytes()
            for name in _MODULES[driver]
        }


def _guest_sources() -> list[Path]:
    return [resources.images() / "guest" / name for name in _GUEST]


def build_guest(folder: Path) -> bytes:
    """Build the program for the VMs that migrate; takes no time.

    :param folder: Where to work; nothing stays there.
    :return: A ROM.
    :raise BuildError: When it does not build.
    :raise MissingToolError: When there is no make.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        for path in _guest_sources():
            shutil.copy(path, work)
        log = cache_dir() / "testbed" / "guest.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            call(
                ["make", "OUT=build"],
                work, log, output.fileno(), "make",
            )  # fmt: skip
        return (work / "build" / "heartbeat.bin").read_bytes()


def _add_python(
    layer: Layer, folder: Path, recipe: Recipe, kit: Kit
) -> None:
    """Python as compiled files only: nothing to compile in guest time."""
    library = _PYTHON.format(recipe.python)
    program = f"python{recipe.python}"
    with tempfile.TemporaryDirectory(dir=folder) as name:
        stage = Path(name)
        _copy_tree(kit.root / library, stage, recipe.python_without)
        _copy_tree(kit.wheels, stage, ("bin", "*.dist-info"))
        for module in recipe.harness:
            target = stage / "vfio_p2p" / module
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(resources.resource(module), target)
        log = cache_dir() / "testbed" / "compileall.log"
        with log.open("wb") as output:
            # The kit's own interpreter: only that one's bytecode fits.
            call(
                [
                    str(_find(kit, f"{_LIBRARIES}/{_LOADER}")),
                    "--library-path",
                    f"{kit.root / _LIBRARIES}:{kit.root}/usr/{_LIBRARIES}",
                    str(kit.root / "usr/bin" / program),
                    "-m", "compileall", "-q", "-b",
                    "--invalidation-mode", "unchecked-hash",
                    "-s", str(stage), "-p", f"/{library}", str(stage),
                ],
                stage, log, output.fileno(), program,
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


def _copy_tree(
    source: Path, target: Path, without: tuple[str, ...]
) -> None:
    for path in _files(source):
        name = str(path.relative_to(source))
        parents = [name, *map(str, Path(name).parents)]
        if any(fnmatch(x, y) for x in parents for y in without):
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / name)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def call(
    argv: list[str], cwd: Path, log: Path, output: int, package: str
) -> None:
    """Run a program that makes a part of the testbed.

    :param argv: Program and arguments.
    :param cwd: Its working directory.
    :param log: The file with what it says.
    :param output: That file's descriptor.
    :param package: The Debian package that has the program.
    :raise BuildError: When it fails.
    :raise MissingToolError: When it is missing.
    """
    # Little of ours: make and the compiler obey a good many variables. A
    # fixed hash seed: the order of a set is in the bytecode.
    kept = ("PATH", "HOME", "TMPDIR")
    environment = {x: os.environ[x] for x in kept if x in os.environ} | {
        "LC_ALL": "C",
        "PYTHONHASHSEED": "0",
    }
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
            preexec_fn=die_with_parent(),
        )
    except FileNotFoundError as err:
        raise MissingToolError(argv[0], package) from err
    if done.returncode:
        lines = log.read_text(errors="replace").splitlines()
        raise BuildError(
            f"the testbed's {Path(argv[0]).name} failed",
            log,
            "\n".join(lines[-20:]),
        )
