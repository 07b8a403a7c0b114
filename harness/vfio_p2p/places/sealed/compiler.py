# SPDX-License-Identifier: GPL-2.0-or-later
"""The kit's own compiler: it makes the same module on every machine.

gcc finds its parts beside itself, wherever it was unpacked.  Its libraries
come from the kit as well, except for the C library, which has to fit the
machine's own dynamic loader.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.errors import BuildError, HostError, MissingToolError
from vfio_p2p.machine.process import bound
from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.places.sealed.kit import LIBRARIES, ImageRecipe, Kit

# How much of a log is shown.
_LINES = 20


@dataclass(frozen=True)
class Compiler:
    """A compiler that is ready to be used.

    :param environment: The whole environment of a build.
    :param version: The first line of the version that it reports.
    """

    environment: Mapping[str, str]
    version: str


@contextmanager
def compiler(recipe: ImageRecipe, kit: Kit) -> Iterator[Compiler]:
    """Make the kit's compiler the one that make finds.

    :param recipe: Names its programs and libraries.
    :param kit: The kit that contains them.
    :raise TestbedError: When the kit lacks one of them.
    :raise HostError: When the compiler does not run on this machine.
    """
    with temporary_folder() as name:
        programs, libraries = Path(name, "bin"), Path(name, "lib")
        programs.mkdir()
        libraries.mkdir()
        for tool, program in recipe.tools.items():
            found = kit.find(f"bin/{program}").resolve()
            (programs / tool).symlink_to(found)
        for library in recipe.tool_libraries:
            found = kit.find(f"{LIBRARIES}/{library}").resolve()
            (libraries / library).symlink_to(found)
        # Few of our variables: make and the compiler obey many of them.
        kept = ("HOME", "TMPDIR")
        environment = {x: os.environ[x] for x in kept if x in os.environ} | {
            "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}",
            "LD_LIBRARY_PATH": str(libraries),
            "LC_ALL": "C",
        }
        yield Compiler(environment, _version(programs / "gcc", environment))


def _version(gcc: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        [str(gcc), "--version"],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    version = done.stdout.partition("\n")[0]
    if done.returncode:
        raise HostError(
            f"the testbed's compiler does not run here: {version}",
            "Use a machine with the C library of Debian 12, or a newer one.",
        )
    return version


def call(
    argv: list[str],
    cwd: Path,
    log: Path,
    *,
    package: str,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a program that makes a part of the testbed.

    :param argv: The program and its arguments.
    :param cwd: Its working directory.
    :param log: The file that gets what it prints; it is replaced.
    :param package: The Debian package that has the program.
    :param environment: Its whole environment; by default, a small one.
    :raise BuildError: When it fails.
    :raise MissingToolError: When it is missing.
    """
    if environment is None:
        kept = ("PATH", "HOME", "TMPDIR")
        environment = {x: os.environ[x] for x in kept if x in os.environ} | {
            "LC_ALL": "C",
            # The order of a set is in the bytecode.
            "PYTHONHASHSEED": "0",
        }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                bound(argv),
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        except FileNotFoundError as err:
            raise MissingToolError(argv[0], package) from err
    if done.returncode:
        raise failure(f"the testbed's {Path(argv[0]).name} failed", log)


def failure(what: str, log: Path) -> BuildError:
    """Return the error that tells of a failed build.

    :param what: What has failed.
    :param log: The file of its output, of which the end is shown.
    """
    lines = log.read_text(errors="replace").splitlines()
    return BuildError(what, log, "\n".join(lines[-_LINES:]))
