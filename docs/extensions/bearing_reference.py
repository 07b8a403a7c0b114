# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of what a change of QEMU's files bears on."""

from __future__ import annotations

from vfio_p2p.plans.bearing import BEARINGS

from .pages import code, table


def render() -> str:
    """Return the table; the first line that fits a file counts."""
    return table(
        ("files", "scenarios"),
        (
            (", ".join(map(code, bearing.files)), bearing.what)
            for bearing in BEARINGS
        ),
    )
