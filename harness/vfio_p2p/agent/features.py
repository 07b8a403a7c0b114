# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether and how a device migrates, by debugfs or by asking the device."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vfio_p2p.agent.roots import Roots

# <linux/vfio.h>
_TYPE = ord(";") << 8
_SET_IOMMU = _TYPE | 102
_GROUP_GET_STATUS = _TYPE | 103
_GROUP_SET_CONTAINER = _TYPE | 104
_GROUP_GET_DEVICE_FD = _TYPE | 106
_DEVICE_FEATURE = _TYPE | 117
_FEATURE_GET = 1 << 16
_FEATURE_MIGRATION = 1
_TYPE1V2_IOMMU = 3
_VIABLE = 1
_STATUS = struct.Struct("=II")
_FEATURE = struct.Struct("=IIQ")

_FLAGS = ((1, "stop_copy"), (2, "p2p"), (4, "pre_copy"))


def unknown(error: str = "") -> dict[str, Any]:
    """Return the answer when nothing is known.

    :param error: Why, if it was tried.
    """
    return {"source": "", "flags": [], "error": error}


def by_debugfs(roots: Roots, address: str) -> dict[str, Any]:
    """Read what the kernel tells root, since Linux 6.18.

    :param roots: Where the kernel's folders are.
    :param address: The device's PCI address.
    """
    folder = roots.sys / "kernel/debug/vfio" / address
    try:
        said = (folder / "migration/features").read_text()
    except OSError:
        return unknown()
    flags = [line.strip().replace("-", "_") for line in said.split("\n")]
    return {
        "source": "debugfs",
        "flags": [flag for flag in flags if flag],
        "error": "",
    }


def by_probe(
    roots: Roots, group: Path, address: str
) -> tuple[bool | None, dict[str, Any]]:
    """Open a device and ask it, which enables and resets it.

    :param roots: Where the kernel's folders are.
    :param group: The node of the device's group.
    :param address: The device's PCI address.
    :return: Whether the group is in use (None if that could not be found
        out), and the flags.
    """
    try:
        with _opened(group) as fd:
            return False, _ask(roots, fd, address)
    except OSError as err:
        if err.errno == errno.EBUSY:
            return True, unknown()
        return None, unknown(f"{group}: {err.strerror}")


def _ask(roots: Roots, group: int, address: str) -> dict[str, Any]:
    try:
        # A buffer that can be written to makes ioctl() return a number.
        status = bytearray(_STATUS.pack(_STATUS.size, 0))
        fcntl.ioctl(group, _GROUP_GET_STATUS, status)
        if not _STATUS.unpack(status)[1] & _VIABLE:
            return unknown("a device of the group has another driver")
        with _opened(roots.dev / "vfio/vfio") as container:
            number = bytearray(struct.pack("=i", container))
            fcntl.ioctl(group, _GROUP_SET_CONTAINER, number)
            fcntl.ioctl(container, _SET_IOMMU, _TYPE1V2_IOMMU)
            name = bytearray(address.encode() + b"\0")
            device = fcntl.ioctl(group, _GROUP_GET_DEVICE_FD, name)
            try:
                flags = _migration_flags(device)
            finally:
                os.close(device)
    except OSError as err:
        return unknown(f"{err.filename or address}: {err.strerror}")
    return {"source": "probe", "flags": flags, "error": ""}


def _migration_flags(device: int) -> list[str]:
    argument = bytearray(
        _FEATURE.pack(_FEATURE.size, _FEATURE_GET | _FEATURE_MIGRATION, 0)
    )
    try:
        fcntl.ioctl(device, _DEVICE_FEATURE, argument)
    except OSError as err:
        if err.errno == errno.ENOTTY:
            # The driver does not migrate devices.
            return []
        raise
    flags = _FEATURE.unpack(argument)[2]
    return [name for bit, name in _FLAGS if flags & bit]


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
