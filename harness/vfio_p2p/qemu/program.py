# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU under test: its binary, with everything that it needs to run."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Protocol

import msgspec

from vfio_p2p.bundle.manifest import AppliedPatch, MadeOf, ProgramInput
from vfio_p2p.errors import MissingToolError, SourceError
from vfio_p2p.qemu.builder import Build
from vfio_p2p.tells import Tells

# The name of the dynamic loader, wherever a distribution has it.
LOADER = "ld.so"

# One line of ldd(1): "libz.so.1 => /lib/libz.so.1 (0x...)", or the loader,
# "/lib64/ld-linux-x86-64.so.2 (0x...)", perhaps with an arrow to another one.
_LIBRARY = re.compile(r"^\s*(?:(\S+) => )?(/\S+) \(0x")


@dataclass(frozen=True)
class Program:
    """A QEMU under test on this machine.

    :param what: The program, by its content.
    :param binary: The path of the binary.
    :param libraries: The path of every library by its name, the loader
        being `LOADER`.  A static program has none.
    :param launch: How it is started on this machine, if not by its path.
    """

    what: ProgramInput
    binary: Path
    libraries: Mapping[str, Path]
    launch: tuple[str, ...] = ()

    def named(self, variant: str) -> Program:
        """Return the same program under another name.

        :param variant: The name of its variant.
        """
        return replace(
            self, what=msgspec.structs.replace(self.what, variant=variant)
        )

    @property
    def argv(self) -> tuple[str, ...]:
        """The beginning of its command line on this machine."""
        return self.launch or (str(self.binary),)

    @classmethod
    def of(cls, build: Build) -> Program:
        """Make a build from the store into a program.

        :param build: The build.
        :raise SourceError: When it is not a program of this machine.
        """
        return cls.at(
            build.path,
            variant=build.variant,
            build=build.key,
            version=build.version,
            made_of=MadeOf(
                source=build.job.source.key,
                version=build.job.source.version,
                patches=tuple(
                    AppliedPatch(name=x.name, sha256=x.sha256)
                    for x in build.patches
                ),
                compiler=build.job.toolchain.compiler,
                meson=build.job.toolchain.meson,
            ),
        )

    @classmethod
    def at(
        cls,
        binary: Path,
        *,
        variant: str,
        version: str,
        build: str = "",
        made_of: MadeOf | None = None,
        tells: Tells = Tells.LOG,
        libraries: Mapping[str, Path] | None = None,
        launch: tuple[str, ...] = (),
    ) -> Program:
        """Make a binary into a program.

        :param binary: The path of the binary.
        :param variant: The name of the tree that it was built from.
        :param version: QEMU's version string.
        :param build: The key in the build store; empty without one.
        :param made_of: The parts from which it was built, if known.
        :param tells: How it tells of its migrations.
        :param libraries: Its libraries; None takes those of this machine.
        :param launch: How it is started here, if not by its path.
        :raise SourceError: When it is not a program of this machine.
        """
        if libraries is None:
            libraries = libraries_of(binary)
        return cls(
            what=ProgramInput(
                variant=variant,
                build=build,
                version=version,
                sha256=_sha256_of(binary),
                libraries={
                    name: _sha256_of(path)
                    for name, path in libraries.items()
                },
                made_of=made_of,
                tells=tells,
            ),
            binary=binary,
            libraries=libraries,
            launch=launch,
        )

    @property
    def content(self) -> str:
        """A hash of the binary and the libraries, whatever they are called."""
        return _content(self.what)

    def files(self) -> dict[str, bytes]:
        """Read the binary (by its name) and the libraries (``lib/NAME``).

        :raise SourceError: When a file is no longer what `what` says.
        """
        found = {}
        for name, path, sha256 in (
            (self.binary.name, self.binary, self.what.sha256),
            *(
                (f"lib/{name}", path, self.what.libraries.get(name))
                for name, path in self.libraries.items()
            ),
        ):
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != sha256:
                raise SourceError(
                    f"{path} has changed since it was examined",
                    "Run the command again when nothing changes the file.",
                )
            found[name] = data
        return found


class Programs(Protocol):
    """The programs that a place can find on its machine."""

    def find(self, what: ProgramInput) -> Program:
        """Find a program by its content.

        :param what: The program, as a job names it.
        :raise SourceError: When this machine does not have it.
        """


class KnownPrograms:
    """Programs that were found or built before the jobs were made.

    :param programs: The programs to begin with.
    """

    def __init__(self, programs: Iterable[Program] = ()) -> None:
        self._programs: dict[str, Program] = {}
        for program in programs:
            self.add(program)

    def add(self, program: Program) -> ProgramInput:
        """Make a program known.

        :param program: The program.
        :return: Its name in jobs.
        """
        self._programs[_content(program.what)] = program
        return program.what

    def find(self, what: ProgramInput) -> Program:
        """Find a program by its content; see `Programs.find`."""
        try:
            return self._programs[_content(what)]
        except KeyError:
            raise SourceError(
                f"this machine does not have the QEMU {what.version} "
                f"({what.variant}) with the SHA-256 {what.sha256}",
                "Build it here first, with 'vfio-p2p build'.",
            ) from None


def _content(what: ProgramInput) -> str:
    """Return the identity of a program, without its name."""
    text = "\n".join(
        [what.sha256, *map("=".join, sorted(what.libraries.items()))]
    )
    return hashlib.sha256(text.encode()).hexdigest()


def libraries_of(
    binary: Path, command: Sequence[str] = ("ldd",)
) -> dict[str, Path]:
    """Find the libraries of a dynamic program.

    :param binary: The program.
    :param command: What lists them: ldd, or a loader of its own.
    :raise SourceError: When it is no dynamic program of this machine, or
        lacks a library.
    """
    try:
        ldd = subprocess.run(
            [*command, str(binary)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except FileNotFoundError as err:
        raise MissingToolError("ldd", "libc-bin") from err
    found = {}
    for line in ldd.stdout.splitlines():
        library = _LIBRARY.match(line)
        if library:
            alone = not library[1] or library[1].startswith("/")
            name = LOADER if alone else Path(library[1]).name
            found[name] = Path(library[2])
    missing = re.findall(r"^\s*(\S+) => not found", ldd.stdout, re.MULTILINE)
    if missing:
        raise SourceError(
            f"{binary} lacks the library {', '.join(missing)}",
            "Install it, or name the root of the system that the QEMU is "
            "from.",
        )
    if ldd.returncode or LOADER not in found:
        raise SourceError(
            f"{binary} is not a dynamic program of this machine",
            "Build QEMU with 'vfio-p2p build'.",
        )
    return found


def _sha256_of(path: Path) -> str:
    # Hundreds of runs share a few files.
    found = path.stat()
    return _sha256(path, found.st_size, found.st_mtime_ns, found.st_ino)


@cache
def _sha256(path: Path, size_bytes: int, mtime_ns: int, inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
