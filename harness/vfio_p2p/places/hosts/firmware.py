# SPDX-License-Identifier: GPL-2.0-or-later
"""The firmware of the QEMUs under test, the same on every machine."""

from __future__ import annotations

from pathlib import Path

from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.places.sealed.compiler import compiler
from vfio_p2p.places.sealed.image import build_guest
from vfio_p2p.places.sealed.kit import get_kit, read_recipe
from vfio_p2p.progress import Progress
from vfio_p2p.scenario.argv import HEARTBEAT


def firmware_files(progress: Progress) -> dict[str, bytes]:
    """Return the files of the folder that QEMU's ``-L`` gets, by name.

    They are those of the testbed.  The program ``heartbeat`` is built in such
    a way that it writes to its console as well, since real devices take no
    beats.

    :param progress: Told of each step.
    :raise HostError: When a package is not available.
    :raise BuildError: When the guest program does not build.
    """
    recipe = read_recipe()
    kit = get_kit(recipe, progress)
    files = {
        Path(name).name: (kit.root / "usr/share" / name).read_bytes()
        for name in dict.fromkeys(
            (*recipe.firmware, *recipe.outer_firmware)
        )
    }
    with (
        compiler(recipe, kit) as tools,
        temporary_folder() as folder,
    ):
        files[HEARTBEAT] = build_guest(
            Path(folder), tools, console=True
        )
    return files
