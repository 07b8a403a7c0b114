# SPDX-License-Identifier: GPL-2.0-or-later
"""The findings in QEMU, from the files that the package has of them."""

from __future__ import annotations

from vfio_p2p.defects.model import load_defects
from vfio_p2p.defects.texts import page


def render() -> str:
    """Return a table of all findings, and then a section for each."""
    return page(load_defects())
