# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices of Linux's sample driver mtty: an independent witness.

The abilities of mtty are fixed (Linux 6.12, samples/vfio-mdev/mtty.c): all
three migration flags, arcs that take no time, a state of 96 bytes for mtty-2,
no DMA and no log.  Closing a device does not reset its state, so each run
gets new devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.machine.errors import HostError
from vfio_p2p.scenario.device import Device

TYPE = Path("/sys/class/mtty/mtty/mdev_supported_types/mtty-2")
DEVICES = Path("/sys/bus/mdev/devices")


@dataclass(frozen=True)
class MttyDevice:
    """A mediated device of the type mtty-2.

    :param name: Its UUID, which is also its name in QEMU's traces.
    """

    name: str

    @property
    def sysfs(self) -> Path:
        """The device's folder under /sys, for QEMU's ``sysfsdev=``."""
        return DEVICES / self.name

    @property
    def qemu_properties(self) -> dict[str, str]:
        """The properties of QEMU's vfio-pci that the device needs.

        The device offers DMA logging, but a kernel without IOMMUFD, such as
        the testbed's, cannot report the logged pages (include/linux/
        iova_bitmap.h).  So QEMU has to use the container's dirty tracking,
        and then migration must be enabled explicitly, as with p2psim.
        """
        return {
            "sysfsdev": str(self.sysfs),
            "enable-migration": "on",
            "x-device-dirty-page-tracking": "off",
        }

    def log(self) -> bytes:
        """Return nothing: mtty keeps no log."""
        return b""

    def start_traffic(self) -> None:
        """Do nothing: mtty has no peers."""


def _uuid(prefix: str, number: int) -> str:
    """Make a fixed UUID, whose first group is the prefix in ASCII."""
    first = int.from_bytes(prefix.encode("ascii"))
    return f"{first:08x}-0000-4000-8000-{number:012}"


@contextmanager
def mtty_devices(
    prefix: str, specs: tuple[Device, ...]
) -> Iterator[tuple[MttyDevice, ...]]:
    """Create one device for each spec, and remove them all afterwards.

    :param prefix: Up to four ASCII characters, which fix the UUIDs.
    :param specs: Only their number counts; see
        `vfio_p2p.devices.mtty_limits`.
    :raise HostError: When the kernel refuses a device.
    """
    devices = tuple(
        MttyDevice(_uuid(prefix, number)) for number in range(len(specs))
    )
    try:
        for device in devices:
            _create(device)
        yield devices
    finally:
        for device in reversed(devices):
            with suppress(OSError):
                (device.sysfs / "remove").write_text("1")


def _create(device: MttyDevice) -> None:
    try:
        (TYPE / "create").write_text(device.name)
    except OSError as err:
        raise HostError(
            f"cannot create the mtty device {device.name}: {err.strerror}",
            "Load the kernel modules mdev and mtty.",
        ) from err
