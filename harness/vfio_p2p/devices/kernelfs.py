# SPDX-License-Identifier: GPL-2.0-or-later
"""Write to the files of sysfs and configfs."""

from __future__ import annotations

import os
from pathlib import Path

from vfio_p2p.machine.errors import HostError


def write(path: Path, text: str) -> None:
    """Write one value to an attribute.

    :param path: The file of the attribute.
    :param text: The value, without a newline.
    :raise HostError: When the kernel refuses it.
    """
    try:
        # configfs needs one write(2) for each value.  It must not be empty:
        # that would leave the old value in place.
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, f"{text}\n".encode())
        finally:
            os.close(fd)
    except OSError as err:
        raise HostError(
            f"the kernel refused {text!r} for {path.name} of "
            f"{path.parent.name}: {err.strerror}",
            "See the kernel's log (dmesg) for the reason.",
        ) from err
