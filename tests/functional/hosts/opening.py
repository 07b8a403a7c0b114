# SPDX-License-Identifier: GPL-2.0-or-later
"""Open a VFIO device as QEMU does, until stdin ends.

This file needs nothing but Python, and is sent to a host of the lab::

    python3 opening.py 0000:01:10.0

It prints the number of its process when it has the device open.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys

# <linux/vfio.h>
VFIO_SET_IOMMU = 0x3B66
VFIO_GROUP_SET_CONTAINER = 0x3B68
VFIO_GROUP_GET_DEVICE_FD = 0x3B6A
VFIO_TYPE1V2_IOMMU = 3


def main() -> None:
    """Open the device, and keep it."""
    address = sys.argv[1]
    link = f"/sys/bus/pci/devices/{address}/iommu_group"
    number = os.path.basename(os.readlink(link))
    container = os.open("/dev/vfio/vfio", os.O_RDWR)
    group = os.open(f"/dev/vfio/{number}", os.O_RDWR)
    fcntl.ioctl(group, VFIO_GROUP_SET_CONTAINER, struct.pack("i", container))
    fcntl.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1V2_IOMMU)
    name = bytearray(address.encode() + b"\0")
    fcntl.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name)
    print(os.getpid(), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
