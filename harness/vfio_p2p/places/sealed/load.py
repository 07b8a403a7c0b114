# SPDX-License-Identifier: GPL-2.0-or-later
"""Load a VM with the programs and the scenario of a job."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from vfio_p2p.places.sealed.cpio import Layer
from vfio_p2p.places.sealed.image import Image
from vfio_p2p.places.sealed.inside import COURSE, QEMU, TELLS
from vfio_p2p.side import Side

_BINARY = "qemu-system-x86_64"

_LOADER = "lib/ld.so"

# A static program needs no loader, and the runner starts all of them by one.
_STATIC = b"""\
#!/bin/busybox sh
shift 2
exec "$@"
"""

# For people in a shell; the runner needs no shell to start a program.
_RUN = b"""\
#!/bin/sh
here=/qemu/source
exec $here/lib/ld.so --library-path $here/lib $here/qemu-system-x86_64 \\
    -L /usr/share/seabios "$@"
"""


def job_files(
    source: Mapping[str, bytes],
    destination: Mapping[str, bytes] | None = None,
    *,
    course: bytes,
) -> dict[str, bytes]:
    """Return the files of a job by their paths in the VM, without a ``/``.

    :param source: `Program.files` of the source's QEMU.
    :param destination: Those of the destination's QEMU; by default, they
        are the source's.  Equal programs are one copy in the VM.
    :param course: The course of the run as JSON.
    """
    files = {str(COURSE): course, **_program(Side.SOURCE, source)}
    if destination not in (None, source):
        files |= _program(Side.DESTINATION, destination or {})
    return files


def _program(side: Side, files: Mapping[str, bytes]) -> dict[str, bytes]:
    if _LOADER not in files:
        files = {**files, _LOADER: _STATIC}
    found = {}
    for name, data in files.items():
        # The runner starts both by one name.
        known = name.startswith("lib/") or name == TELLS
        found[f"{QEMU}/{side}/{name if known else _BINARY}"] = data
    return found


def write_initramfs(
    path: Path, image: Image, files: Mapping[str, bytes]
) -> None:
    """Write an initramfs for a VM that people use.

    :param path: The file to write.
    :param image: The image that it starts with.
    :param files: The other files by path, as of `job_files`.
    """
    layer = Layer()
    for name, data in files.items():
        layer.add(name, data, executable=True)
    layer.add(f"{QEMU}/run", _RUN, executable=True)
    shutil.copy(image.initramfs, path)
    with path.open("ab") as file:
        file.write(layer.to_bytes())
