# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels that the outer VM can have.

Debian's needs no compiling, and has no IOMMUFD.  Our own is a small one from
the same source, in Debian's archive; images/testbed/kernel says what is in
it.  It is built when it is first needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vfio_p2p.choice import VmKernel
from vfio_p2p.devices import Driver
from vfio_p2p.errors import BuildError
from vfio_p2p.foreign import read_intact
from vfio_p2p.machine.files import exclusive, publishing, room_for, used
from vfio_p2p.machine.process import owned
from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed.compiler import Compiler, call, failure
from vfio_p2p.places.sealed.kit import ImageRecipe, Kit, recipe_folder
from vfio_p2p.places.sealed.linux import download_linux, unpack_linux
from vfio_p2p.progress import Progress

_FORMAT = 1
FILES = "kernel.json"
# A kernel as QEMU starts it by PVH, without decompressing it.
VMLINUX = "vmlinux"
_HEADERS = "headers"
_MODULES = ("drivers/vfio/mdev/mdev.ko", "samples/vfio-mdev/mtty.ko")
_FRAGMENTS = {VmKernel.OWN: ("own",), VmKernel.DEBUG: ("own", "debug")}
_OPTION = re.compile(r"(CONFIG_\w+)=|# (CONFIG_\w+) is not set$")
_SHARED = ("configure.mk", "linux.patch")
# Its source, and what is compiled.
_NEEDED_BYTES = 4 << 30
# For the progress alone; a kernel for debugging has as many.
_OBJECTS = 1300


@dataclass(frozen=True)
class KernelBuild:
    """A kernel that is there.

    :param kernel: Which one.
    :param key: A hash of everything that it was made from.
    :param boot: The file that QEMU starts.
    :param make: Variables for images/p2psim/Makefile, to compile modules.
    :param package: The name and the version of the package that it is from.
    :param drivers: The modules of drivers that were built with it, by name.
    """

    kernel: VmKernel
    key: str
    boot: Path
    make: tuple[str, ...]
    package: str
    drivers: Mapping[Driver, Mapping[str, Path]]


def get_kernel(
    kernel: VmKernel,
    recipe: ImageRecipe,
    kit: Kit,
    tools: Compiler,
    progress: Progress,
) -> KernelBuild:
    """Find a kernel in the kit or in the cache, or build it.

    :param kernel: Which one.
    :param recipe: Names the package of its source.
    :param kit: Has Debian's kernel; ours has the same version.
    :param tools: What compiles it.
    :param progress: Told of each step.
    :raise HostError: When its source is not available.
    :raise BuildError: When it does not build.
    :raise MissingToolError: When a program is missing.
    :raise NoSpaceError: When the disk is too full.
    """
    if kernel is VmKernel.DEBIAN:
        return _debian(kit)
    package = recipe.linux_package(kit)
    version = kit.kernel_version
    files = {
        name: (recipe_folder() / "kernel" / name).read_bytes()
        for name in (*_SHARED, *(f"{x}.config" for x in _FRAGMENTS[kernel]))
    }
    digest = hashlib.sha256(
        msgspec.json.encode(
            (_FORMAT, kernel, version, tools.version, kit.path.name)
        )
    )
    for name, data in files.items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    key = digest.hexdigest()[:32]
    path = cache_dir() / "testbed" / "kernels" / key
    with exclusive(path.with_name(f"{key}.lock")):
        if not (used(path) and read_intact(path / FILES, _digests)):
            with room_for(path, _NEEDED_BYTES), publishing(path) as partial:
                progress(0, 0, f"testbed: {package}")
                archive = download_linux(recipe, kit)
                with temporary_folder(path.parent) as work:
                    progress(0, 0, "testbed: unpacking Linux")
                    unpack_linux(archive, work, recipe.kernel_without)
                    builder = _Builder(kernel, work, kit, tools, progress)
                    builder.build(files, partial)
                (partial / FILES).write_bytes(
                    msgspec.json.encode(_digests(partial), order="sorted")
                )
            used(path)
    return KernelBuild(
        kernel,
        key,
        path / VMLINUX,
        (f"KERNEL={path / _HEADERS}",),
        f"{package} {version}",
        {
            Driver.MTTY: {
                Path(x).stem: path / Path(x).name for x in _MODULES
            }
        },
    )


def merged(fragments: Iterable[str]) -> str:
    """Put parts of a configuration together; a later one wins.

    :param fragments: Lines ``CONFIG_X=...`` and ``# CONFIG_X is not set``;
        others are comments.
    """
    lines: dict[str, str] = {}
    for line in "\n".join(fragments).splitlines():
        if found := _OPTION.match(line):
            lines[found[1] or found[2]] = line
    return "".join(f"{line}\n" for line in lines.values())


def headers_of(kit: Kit) -> tuple[str, ...]:
    """Return the variables of a Makefile that say where headers are.

    :param kit: A kit with Debian's headers of its kernel.
    """
    return (f"HEADERS={kit.root.resolve()}", f"VERSION={kit.release}")


def _debian(kit: Kit) -> KernelBuild:
    package = f"linux-image-{kit.release}"
    return KernelBuild(
        VmKernel.DEBIAN,
        kit.path.name,
        kit.root / "boot" / f"vmlinuz-{kit.release}",
        headers_of(kit),
        f"{package} {kit.kernel_version}",
        {},
    )


def _digests(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (VMLINUX, *(Path(x).name for x in _MODULES))
    }


class _Builder:
    """Builds a kernel in the folder of its source."""

    def __init__(
        self,
        kernel: VmKernel,
        tree: Path,
        kit: Kit,
        tools: Compiler,
        progress: Progress,
    ) -> None:
        self._kernel = kernel
        self._tree = tree
        self._progress = progress
        self._log = cache_dir() / "testbed" / f"kernel-{kernel}.log"
        self._environment = {
            **tools.environment,
            # Whoever builds it, wherever and whenever, gets the same bytes.
            "KBUILD_BUILD_TIMESTAMP": "2026-01-01",
            "KBUILD_BUILD_USER": "vfio-p2p",
            "KBUILD_BUILD_HOST": "vfio-p2p",
        }
        version = kit.release.partition("-")[0]
        conf = kit.find(
            f"lib/linux-kbuild-{version}/scripts/kconfig/conf"
        ).resolve()
        self._variables = (
            f"HOSTCC=gcc --sysroot={kit.root.resolve()}",
            # They start with any C library.
            "HOSTLDFLAGS=-static",
            f"CONF={conf}",
            # No name of the folder gets into a module.
            f"KCFLAGS=-ffile-prefix-map={tree.resolve()}=.",
        )

    def build(self, files: Mapping[str, bytes], target: Path) -> None:
        """Configure and compile it, and keep what is needed later."""
        for name, data in files.items():
            (self._tree / name).write_bytes(data)
        fragment = self._tree / "fragment"
        fragment.write_text(
            merged(
                x.decode() for name, x in files.items() if ".config" in name
            )
        )
        self._run(["patch", "-p1", "-i", "linux.patch"])
        # conf looks at the compiler, and has to see the one that is used.
        self._make("-f", "configure.mk", "p2pconfig", "FRAGMENT=fragment")
        self._check_config(fragment.read_text())
        self._compile()
        self._run(
            ["strip", "-o", str(target / VMLINUX), str(self._tree / VMLINUX)]
        )
        for name in _MODULES:
            shutil.copy(self._tree / name, target)
        # As Debian makes the packages linux-headers.
        self._make(
            "run-command",
            "KBUILD_RUN_COMMAND=$(srctree)/scripts/package/"
            f"install-extmod-build {target.resolve() / _HEADERS}",
        )

    def _check_config(self, fragment: str) -> None:
        """See that all that was asked for is on, and can be."""
        config = (self._tree / ".config").read_text().splitlines()
        wanted = dict.fromkeys(
            line.partition("=")[0]
            for line in fragment.splitlines()
            if line.startswith("CONFIG_")
        )
        known = {line.partition("=")[0] for line in config}
        if missing := [x for x in wanted if x not in known]:
            raise BuildError(
                f"Linux takes no {', '.join(missing)}",
                self._tree / ".config",
                "Correct images/testbed/kernel.",
            )

    def _compile(self) -> None:
        done = 0
        log = self._log
        argv = self._argv(
            f"-j{os.cpu_count() or 1}", VMLINUX, "modules"
        )
        with (
            log.open("wb") as output,
            owned(argv, cwd=self._tree, env=self._environment) as process,
        ):
            assert process.stdout
            for line in process.stdout:
                output.write(line)
                if line.startswith(b"  "):
                    done = min(done + 1, _OBJECTS)
                    self._progress(done, _OBJECTS, "testbed: Linux")
            status = process.wait()
        if status:
            raise failure(f"the kernel {self._kernel} does not build", log)

    def _argv(self, *arguments: str) -> list[str]:
        return ["make", "--no-print-directory", *self._variables, *arguments]

    def _make(self, *arguments: str) -> None:
        self._run(self._argv(*arguments))

    def _run(self, argv: list[str]) -> None:
        call(
            argv,
            self._tree,
            self._log,
            package="make",
            environment=self._environment,
        )
