# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scenario needs, and not every kernel offers."""

from __future__ import annotations

from enum import StrEnum


class Need(StrEnum):
    """A part of Linux that Debian's kernel does not have.

    `iommufd` is /dev/iommu, and a file of its own for each VFIO device.
    `dma-logging` means that devices can report the pages that they wrote to,
    which takes the bitmaps of IOMMUFD's drivers.
    """

    IOMMUFD = "iommufd"
    DMA_LOGGING = "dma-logging"
