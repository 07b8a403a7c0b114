# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes into the VM before power-on: a QEMU, and a scenario."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vfio_p2p.bundle.manifest import MadeOf, Patch
from vfio_p2p.errors import SourceError
from vfio_p2p.places.sealed.cpio import Layer
from vfio_p2p.places.sealed.image import Image

if TYPE_CHECKING:
    # The testbed needs nothing of what builds QEMU.
    from vfio_p2p.qemu import Build

# One line of ldd(1): "libz.so.1 => /lib/libz.so.1 (0x...)", or the loader
# alone, "/lib64/ld-linux-x86-64.so.2 (0x...)".
_LIBRARY = re.compile(r"^\s*(?:(\S+) => )?(/\S+) \(0x")


@dataclass(frozen=True)
class Program:
    """A QEMU binary with all that it needs to run somewhere else.

    :param variant: Name of the tree that it was built from.
    :param build: Key in the build store.
    :param version: QEMU's version string.
    :param binary: Path of the binary.
    :param made_of: What it was built from; None if that is not known.
    """

    variant: str
    build: str
    version: str
    binary: Path
    made_of: MadeOf | None = None

    @classmethod
    def of(cls, build: Build) -> Program:
        """A build from the store, as something to run."""
        return cls(
            variant=build.variant,
            build=build.key,
            version=build.version,
            binary=build.path,
            made_of=MadeOf(
                source=build.job.source.key,
                version=build.job.source.version,
                patches=tuple(
                    Patch(name=x.name, sha256=x.sha256)
                    for x in build.patches
                ),
                compiler=build.job.toolchain.compiler,
                meson=build.job.toolchain.meson,
            ),
        )

    def files(self) -> dict[str, bytes]:
        """Contents by name: the binary, its libraries, the loader.

        :raise SourceError: When it is not a program of this machine.
        """
        found = {self.binary.name: self.binary.read_bytes()}
        ldd = subprocess.run(
            ["ldd", str(self.binary)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        for line in ldd.stdout.splitlines():
            library = _LIBRARY.match(line)
            if library:
                path = Path(library[2])
                name = library[1] or "ld.so"
                found[f"lib/{Path(name).name}"] = path.read_bytes()
        if ldd.returncode or "lib/ld.so" not in found:
            raise SourceError(
                f"{self.binary} is not a dynamic program of this machine",
                "build QEMU with vfio-p2p build",
            )
        return found


# For people in a shell; the runner needs no shell to start a program.
_RUN = b"""\
#!/bin/sh
exec /qemu/lib/ld.so --library-path /qemu/lib /qemu/qemu-system-x86_64 \\
    -L /usr/share/seabios "$@"
"""


def write_initramfs(
    path: Path, image: Image, files: dict[str, bytes], scenario: bytes
) -> None:
    """Write the whole initramfs of one run.

    :param path: The file to write.
    :param image: The image that it starts with.
    :param files: `Program.files` of the QEMU under test.
    :param scenario: The scenario as JSON.
    """
    layer = Layer()
    for name, data in files.items():
        layer.add(f"qemu/{name}", data, executable=True)
    layer.add("qemu/run", _RUN, executable=True)
    layer.add("job/scenario.json", scenario)
    shutil.copy(image.initramfs, path)
    with path.open("ab") as file:
        file.write(layer.to_bytes())
