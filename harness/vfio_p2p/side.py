# SPDX-License-Identifier: GPL-2.0-or-later
"""The two sides of a migration."""

from __future__ import annotations

from enum import StrEnum


class Side(StrEnum):
    """One side of a migration: of a QEMU, of its devices, of its log."""

    SOURCE = "source"
    DESTINATION = "destination"

    @property
    def prefix(self) -> str:
        """What the testbed's devices are called, before their number."""
        return "src" if self is Side.SOURCE else "dst"


def side_of(name: str) -> Side:
    """Tell on which side a QEMU started.

    :param name: The name of the QEMU's folder in the bundle, e.g.
        ``source-2``.
    """
    if name.startswith(Side.DESTINATION):
        return Side.DESTINATION
    return Side.SOURCE
