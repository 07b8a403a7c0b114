# SPDX-License-Identifier: GPL-2.0-or-later
"""The file system of the lab's VMs, made of unpacked Debian packages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from vfio_p2p.lab.recipe import LabRecipe, lab_folder, system_root
from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed.compiler import call
from vfio_p2p.places.sealed.cpio import Layer
from vfio_p2p.places.sealed.kit import Kit

LOADER = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")

# As on any Debian host, these are links into /usr.
_MERGED = ("bin", "lib", "lib64", "sbin")

_FOLDERS = (
    "dev", "etc/lab", "home", "mnt", "proc", "root", "run", "sys", "tmp",
    "usr/local/bin", "usr/local/sbin", "var/lib", "var/log", "var/tmp",
)  # fmt: skip
_PYTHON = "usr/lib/python3.11"


def loaded(kit: Kit, program: str, name: str = "") -> list[str]:
    """Return the start of a command line for a program of the kit's system.

    It runs with the libraries of the kit, of which the C library is one,
    whatever the machine has.

    :param kit: The lab's kit.
    :param program: Its path in the system.
    :param name: The name under which it is called, if that matters.
    """
    root = system_root(kit).resolve()
    return [
        str(root / LOADER),
        "--library-path",
        ":".join(str(root / folder) for folder in _LIBRARIES),
        *(("--argv0", name) if name else ()),
        str(root / program),
    ]


def merged(path: PurePosixPath) -> PurePosixPath:
    """Return where a file of a package is when /bin is a link to /usr/bin.

    :param path: A path relative to the root.
    """
    return "usr" / path if path.parts[0] in _MERGED else path


def add_system(layer: Layer, recipe: LabRecipe, kit: Kit) -> None:
    """Add the files of the packages, and what installing would add to them.

    :param layer: Gets the files.
    :param recipe: Says what is left out.
    :param kit: Has the unpacked packages.
    :raise BuildError: When Python's library cannot be compiled.
    """
    for folder in _FOLDERS:
        layer.folder(folder)
    for name in _MERGED:
        layer.link(name, f"usr/{name}")
    root = system_root(kit)
    for path in wanted_files(root, recipe.system_without):
        target = str(merged(PurePosixPath(path.relative_to(root))))
        if path.is_symlink():
            layer.link(target, os.readlink(path))
        else:
            data = path.read_bytes()
            layer.add(target, data, os.access(path, os.X_OK))
    layer.link("usr/bin/awk", "mawk")
    layer.link("etc/mtab", "/proc/self/mounts")
    _add_bytecode(layer, kit)
    own = lab_folder()
    layer.add("init", (own / "init").read_bytes(), True)
    layer.add("etc/ssh/sshd_config", (own / "sshd_config").read_bytes())
    for path in sorted((own / "etc").iterdir()):
        layer.add(f"etc/{path.name}", path.read_bytes())
    for path in sorted((own / "sbin").iterdir()):
        layer.add(f"usr/sbin/{path.name}", path.read_bytes(), True)


def wanted_files(root: Path, without: Iterable[str]) -> Iterator[Path]:
    """Yield the files and links below a folder, in order.

    :param root: The folder.
    :param without: Patterns of the files and folders to leave out.
    """
    patterns = tuple(without)
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(
            name
            for name in folders
            if name not in links and not _out(here / name, root, patterns)
        )
        for name in sorted((*files, *links)):
            if not _out(here / name, root, patterns):
                yield here / name


def _out(path: Path, root: Path, patterns: tuple[str, ...]) -> bool:
    name = str(merged(PurePosixPath(path.relative_to(root))))
    return any(fnmatch(name, pattern) for pattern in patterns)


def _add_bytecode(layer: Layer, kit: Kit) -> None:
    """Compile Python's library, which takes an emulated CPU a minute."""
    library = system_root(kit) / _PYTHON
    with temporary_folder() as name:
        stage = Path(name)
        call(
            [
                *loaded(kit, "usr/bin/python3.11"),
                "-X", f"pycache_prefix={stage}",
                "-m", "compileall", "-q",
                "--invalidation-mode", "unchecked-hash",
                "-s", str(library.resolve()), "-p", f"/{_PYTHON}",
                str(library.resolve()),
            ],
            stage,
            cache_dir() / "testbed" / "lab-compileall.log",
            package="python3",
        )  # fmt: skip
        top = stage / str(library.resolve()).lstrip("/")
        for path in sorted(top.rglob("*.pyc")):
            inner = path.relative_to(top)
            layer.add(
                f"{_PYTHON}/{inner.parent}/__pycache__/{inner.name}",
                path.read_bytes(),
            )
