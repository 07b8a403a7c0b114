# SPDX-License-Identifier: GPL-2.0-or-later
"""How QEMU is configured, and what that needs on this machine."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vfio_p2p.errors import MissingToolError
from vfio_p2p.machine.confined import plain_environment
from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.resources import resource

DEVICE_LIST = "vfio-p2p"
# What asks for AddressSanitizer; before 9.2 one option is for all sanitizers.
_ASAN, _SANITIZERS = "--enable-asan", "--enable-sanitizers"
_ASAN_SINCE = [9, 2]


class Header(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A library without a ``.pc`` file."""

    header: str
    library: str
    package: str


class BuildRecipe(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The content of ``qemu.toml``, which holds for every build."""

    format: int
    configure: tuple[str, ...]
    devices: tuple[str, ...]
    devices_from: dict[str, tuple[str, ...]]
    programs: dict[str, str]
    libraries: dict[str, str]
    libraries_before: dict[str, dict[str, str]]
    headers: tuple[Header, ...]

    @classmethod
    def load(cls) -> BuildRecipe:
        """Read the recipe that comes with the package."""
        path = resource("qemu", "qemu.toml")
        return msgspec.toml.decode(path.read_bytes(), type=cls)

    @property
    def tls(self) -> bool:
        """Whether builds can encrypt a migration."""
        return "--enable-gnutls" in self.configure

    def arguments(self, checks: Checks, version: str) -> tuple[str, ...]:
        """Return the arguments of QEMU's configure.

        :param checks: What the build checks.
        :param version: The version of QEMU, e.g. ``10.0.13``.
        """
        found = [
            *self.configure,
            f"--with-devices-x86_64={DEVICE_LIST}",
            "--enable-werror" if checks.werror else "--disable-werror",
        ]
        if checks.address:
            old = _numbers(version) < _ASAN_SINCE
            found.append(_SANITIZERS if old else _ASAN)
        return tuple(found)

    def libraries_for(self, version: str) -> Mapping[str, str]:
        """Return the names for pkg-config, with their Debian packages.

        :param version: The version of QEMU, e.g. ``10.0.13``.
        """
        found = dict(self.libraries)
        for bound, libraries in self.libraries_before.items():
            if _numbers(version) < _numbers(bound):
                found |= libraries
        return found

    def device_list(self, version: str) -> bytes:
        """Return ``configs/devices/x86_64-softmmu/<name>.mak``.

        :param version: The version of QEMU, e.g. ``10.0.13``.
        """
        found = list(self.devices)
        for bound, devices in self.devices_from.items():
            if _numbers(version) >= _numbers(bound):
                found += devices
        return "".join(f"CONFIG_{x}=y\n" for x in found).encode()


@dataclass(frozen=True)
class Checks:
    """What a build checks that one for measurements does not.

    :param werror: Whether compiler warnings are errors.  They are not for
        runs, since each compiler warns of other things.
    :param address: Whether AddressSanitizer ends QEMU when it uses memory
        that is not its own, and tells at the end what was not freed.
    """

    werror: bool = False
    address: bool = False


NO_CHECKS = Checks()


def sanitizes(arguments: Iterable[str]) -> bool:
    """Return whether arguments of configure ask for AddressSanitizer.

    :param arguments: The arguments.
    """
    return not {_ASAN, _SANITIZERS}.isdisjoint(arguments)


@dataclass(frozen=True)
class Toolchain:
    """The tools that compile, as far as they can make a difference.

    :param compiler: First line of ``cc --version``; empty if there is none.
    :param meson: Version of meson; empty if there is none.
    :param python: The interpreter that QEMU's configure is given. It has
                   meson and pycotap.
    """

    compiler: str
    meson: str
    python: str


def find_toolchain() -> Toolchain:
    """Return the tools that this machine has."""
    return Toolchain(_compiler(), _module("meson"), sys.executable)


def check_tools(recipe: BuildRecipe, version: str) -> None:
    """Look for everything that a build needs before one is started.

    :param recipe: Says what is needed.
    :param version: The version of the QEMU to build.
    :raise MissingToolError: When something is missing.
    """
    for error in missing_tools(recipe, version):
        raise error


def missing_tools(
    recipe: BuildRecipe, version: str
) -> Iterator[MissingToolError]:
    """Yield an error for each thing that a build needs and is missing.

    Libraries are looked for only if no program is missing, since the
    programs are needed to find them.

    :param recipe: Says what is needed.
    :param version: The version of the QEMU to build.
    """
    programs = [
        MissingToolError(program, package)
        for program, package in recipe.programs.items()
        if shutil.which(program) is None
    ]
    yield from programs
    if not programs:
        yield from _missing_libraries(recipe, version)
    for module in "meson", "pycotap":
        if not _module(module):
            yield MissingToolError(
                f"Python module {module}",
                f"python3-{module}",
                "It is a requirement of vfio-p2p. Install vfio-p2p again, "
                "with its requirements.",
            )
    if not programs and not _compiler():
        yield MissingToolError("a cc that works", "gcc")


def _missing_libraries(
    recipe: BuildRecipe, version: str
) -> Iterator[MissingToolError]:
    environment = build_environment()
    for library, package in recipe.libraries_for(version).items():
        if not _runs(["pkg-config", "--exists", library], environment):
            yield MissingToolError(f"library {library}", package)
    for item in recipe.headers:
        if not _links(item, environment):
            yield MissingToolError(f"header {item.header}", item.package)


def _module(name: str) -> str:
    """Return the version of a Python module; empty if it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _compiler() -> str:
    """Return the first line of ``cc --version``; empty if that fails."""
    if shutil.which("cc") is None:
        return ""
    banner = subprocess.run(
        ["cc", "--version"],
        env=build_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if banner.returncode else banner.stdout.partition("\n")[0]


def build_environment() -> Mapping[str, str]:
    """Return the whole environment of a build.

    CFLAGS and similar variables are left out: they would change the
    binary, and they are not part of its key.
    """
    return plain_environment({"NINJA_STATUS": "[%f/%t] "})


def _numbers(version: str) -> list[int]:
    return [int(x) for x in version.split(".")]


def _runs(argv: list[str], environment: Mapping[str, str]) -> bool:
    return not subprocess.run(
        argv, env=environment, capture_output=True, check=False
    ).returncode


def _links(item: Header, environment: Mapping[str, str]) -> bool:
    program = f"#include <{item.header}>\nint main(void) {{ return 0; }}\n"
    with temporary_folder() as name:
        source = Path(name, "test.c")
        source.write_text(program)
        done = subprocess.run(
            ["cc", "-o", f"{name}/test", str(source), f"-l{item.library}"],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode and os.strerror(errno.ENOSPC) in done.stderr:
        where = environment.get("TMPDIR", str(name.parent))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), where)
    return not done.returncode
