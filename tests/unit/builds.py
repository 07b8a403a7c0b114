# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptions of builds for tests; nothing is built."""

from __future__ import annotations

from pathlib import Path

from vfio_p2p.qemu import Build, Source
from vfio_p2p.qemu.job import BuildJob
from vfio_p2p.qemu.recipe import Toolchain
from vfio_p2p.series import Variant

TOOLS = Toolchain("cc 12", "1.5", "python")


def source_of(version: str, origin: str = "here") -> Source:
    """A QEMU tree without files."""
    return Source("5" * 64, "tarball", version, origin, Path("/src"), {})


def build_of(
    source: Source, variant: Variant, version: str, path: Path
) -> Build:
    """Return a build as the builder describes one that was in the store.

    :param version: The version that QEMU prints.
    :param path: The binary.
    """
    return Build(
        variant=variant.name,
        key="1" * 32,
        directory=path.parent,
        path=path,
        version=version,
        sha256="",
        reused=True,
        job=BuildJob(source, {}, (), b"", TOOLS),
        patches=variant.patches,
    )
