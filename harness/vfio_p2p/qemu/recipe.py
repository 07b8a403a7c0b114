# SPDX-License-Identifier: GPL-2.0-or-later
"""How QEMU is configured, and what that needs on this machine."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vfio_p2p.errors import MissingToolError
from vfio_p2p.resources import resource

DEVICE_LIST = "vfio-p2p"


class Header(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A library that has no ``.pc`` file."""

    header: str
    library: str
    package: str


class Recipe(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``qemu.toml``: the same for every build."""

    format: int
    configure: tuple[str, ...]
    devices: tuple[str, ...]
    devices_from: dict[str, tuple[str, ...]]
    programs: dict[str, str]
    libraries: dict[str, str]
    libraries_before: dict[str, dict[str, str]]
    headers: tuple[Header, ...]

    @classmethod
    def load(cls) -> Recipe:
        """Read the recipe that comes with the package."""
        path = resource("qemu", "qemu.toml")
        return msgspec.toml.decode(path.read_bytes(), type=cls)

    def arguments(self, *, werror: bool) -> tuple[str, ...]:
        """Arguments of QEMU's configure.

        :param werror: Whether compiler warnings are errors. Off for runs:
                       another compiler warns of other things.
        """
        return (
            *self.configure,
            f"--with-devices-x86_64={DEVICE_LIST}",
            "--enable-werror" if werror else "--disable-werror",
        )

    def libraries_for(self, version: str) -> Mapping[str, str]:
        """Names for pkg-config, and the Debian packages.

        :param version: Of QEMU, e.g. ``10.0.13``.
        """
        found = dict(self.libraries)
        for bound, libraries in self.libraries_before.items():
            if _numbers(version) < _numbers(bound):
                found |= libraries
        return found

    def device_list(self, version: str) -> bytes:
        """Content of ``configs/devices/x86_64-softmmu/<name>.mak``.

        :param version: Of QEMU, e.g. ``10.0.13``.
        """
        found = list(self.devices)
        for bound, devices in self.devices_from.items():
            if _numbers(version) >= _numbers(bound):
                found += devices
        return "".join(f"CONFIG_{x}=y\n" for x in found).encode()


@dataclass(frozen=True)
class Toolchain:
    """What compiles, as far as it can make a difference.

    :param compiler: First line of ``cc --version``.
    :param meson: Version of meson.
    :param python: The interpreter that QEMU's configure gets; meson and
                   pycotap come with it.
    """

    compiler: str
    meson: str
    python: str


def find_toolchain(recipe: Recipe, version: str) -> Toolchain:
    """Look for all that a build needs before one is started.

    :param recipe: Says what is needed.
    :param version: Of the QEMU to build.
    :raise MissingToolError: When something is missing; names the package.
    """
    for program, package in recipe.programs.items():
        if shutil.which(program) is None:
            raise MissingToolError(program, package)
    environment = build_environment()
    for library, package in recipe.libraries_for(version).items():
        if not _runs(["pkg-config", "--exists", library], environment):
            raise MissingToolError(f"library {library}", package)
    for item in recipe.headers:
        if not _links(item, environment):
            raise MissingToolError(f"header {item.header}", item.package)
    versions = {}
    for module in "meson", "pycotap":
        try:
            versions[module] = importlib.metadata.version(module)
        except importlib.metadata.PackageNotFoundError as error:
            raise MissingToolError(
                f"Python module {module}", f"{module} (with pip)"
            ) from error
    banner = subprocess.run(
        ["cc", "--version"],
        env=environment, capture_output=True, text=True, check=False,
    )
    if banner.returncode:
        raise MissingToolError("a cc that works", "gcc")
    return Toolchain(
        banner.stdout.partition("\n")[0], versions["meson"], sys.executable
    )


def build_environment() -> Mapping[str, str]:
    """The whole environment of a build.

    CFLAGS and their kind are left out: they would change the binary and
    are not in its key.
    """
    kept = ("PATH", "HOME", "TMPDIR")
    return {x: os.environ[x] for x in kept if x in os.environ} | {
        "LC_ALL": "C.UTF-8",
        "NINJA_STATUS": "[%f/%t] ",
    }


def _numbers(version: str) -> list[int]:
    return [int(x) for x in version.split(".")]


def _runs(argv: list[str], environment: Mapping[str, str]) -> bool:
    return not subprocess.run(
        argv, env=environment, capture_output=True, check=False
    ).returncode


def _links(item: Header, environment: Mapping[str, str]) -> bool:
    program = f"#include <{item.header}>\nint main(void) {{ return 0; }}\n"
    with tempfile.TemporaryDirectory(prefix="vfio-p2p-") as name:
        source = Path(name, "test.c")
        source.write_text(program)
        return _runs(
            ["cc", "-o", f"{name}/test", str(source), f"-l{item.library}"],
            environment,
        )
