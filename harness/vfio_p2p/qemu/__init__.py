# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU sources, and the content-addressed store of builds."""

from vfio_p2p.qemu.builder import Build, build
from vfio_p2p.qemu.recipe import NO_CHECKS, Checks
from vfio_p2p.qemu.source import Source, find_source

__all__ = [
    "NO_CHECKS",
    "Build",
    "Checks",
    "Source",
    "build",
    "find_source",
]
