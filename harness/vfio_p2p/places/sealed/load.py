# SPDX-License-Identifier: GPL-2.0-or-later
"""Load the VM before power-on with the programs and the scenario."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from vfio_p2p.places.sealed.cpio import Layer
from vfio_p2p.places.sealed.image import Image
from vfio_p2p.places.sealed.inside import TELLS
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


def write_initramfs(
    path: Path,
    image: Image,
    source: Mapping[str, bytes],
    destination: Mapping[str, bytes] | None = None,
    *,
    course: bytes,
) -> None:
    """Write the whole initramfs of one run.

    :param path: The file to write.
    :param image: The image that it starts with.
    :param source: `Program.files` of the source's QEMU.
    :param destination: Those of the destination's QEMU; by default, they
        are the source's.  Equal programs are one copy in the VM.
    :param course: The course of the run as JSON.
    """
    layer = Layer()
    _add_program(layer, Side.SOURCE, source)
    if destination is None or destination == source:
        layer.link(f"qemu/{Side.DESTINATION}", Side.SOURCE)
    else:
        _add_program(layer, Side.DESTINATION, destination)
    layer.add("qemu/run", _RUN, executable=True)
    layer.add("job/course.json", course)
    shutil.copy(image.initramfs, path)
    with path.open("ab") as file:
        file.write(layer.to_bytes())


def _add_program(
    layer: Layer, side: Side, files: Mapping[str, bytes]
) -> None:
    if _LOADER not in files:
        files = {**files, _LOADER: _STATIC}
    for name, data in files.items():
        # The runner starts both by one name.
        known = name.startswith("lib/") or name == TELLS
        target = name if known else _BINARY
        layer.add(f"qemu/{side}/{target}", data, executable=True)
