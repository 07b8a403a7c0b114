# SPDX-License-Identifier: GPL-2.0-or-later
"""Simulated devices: made through p2psim's configfs, gone afterwards.

The interface, and the format of the devices' logs, are described in
images/p2psim/README.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError
from harness.scenario.model import Device

CONFIGFS = Path("/sys/kernel/config/p2psim")
DEBUGFS = Path("/sys/kernel/debug/p2psim")


@dataclass(frozen=True)
class SimulatedDevice:
    """A live p2psim device.

    :param name: Its name, which is also what QEMU's traces call it.
    :param sysfs: Its folder under /sys, for QEMU's ``sysfsdev=``.
    :param dma_logging: Whether it offers DMA logging.
    """

    name: str
    sysfs: Path
    dma_logging: bool = False

    @property
    def qemu_properties(self) -> str:
        """Properties of QEMU's vfio-pci that select it.

        Migration has to be asked for: with ``auto`` QEMU refuses devices
        without dirty tracking of their own (facts: hw/vfio/migration.c).
        """
        migration = "auto" if self.dma_logging else "on"
        return f"sysfsdev={self.sysfs},enable-migration={migration}"

    def log(self) -> bytes:
        """Its own log of arcs, with the kernel's clock."""
        return (DEBUGFS / self.name / "log").read_bytes()


def _write(path: Path, text: str) -> None:
    try:
        # One write(2) for one value, as configfs wants it.
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as err:
        raise HostError(
            f"p2psim refused {text!r} for {path.name} of "
            f"{path.parent.name}: {err.strerror}",
            "the kernel's log says more",
        ) from err


def _create(name: str, spec: Device) -> SimulatedDevice:
    config = CONFIGFS / name
    try:
        config.mkdir()
    except OSError as err:
        raise HostError(
            f"cannot create the p2psim device {name}: {err.strerror}",
            "is the module p2psim loaded and configfs mounted?",
        ) from err
    _write(config / "flags", " ".join(spec.flags))
    _write(config / "size_bytes", str(spec.size_bytes))
    _write(config / "initial_bytes", str(spec.initial_bytes))
    _write(config / "dirty_bytes", str(spec.dirty_bytes))
    _write(config / "dma_logging", str(int(spec.dma_logging)))
    for arc, latency_us in spec.latency_us.items():
        start, end = arc.split(">")
        _write(config / "latency_us", f"{start} {end} {latency_us}")
    _write(config / "live", "1")
    sysfs = (config / "sysfs_path").read_text().strip()
    return SimulatedDevice(name, Path(sysfs), spec.dma_logging)


@contextmanager
def simulated_devices(
    prefix: str, specs: tuple[Device, ...]
) -> Iterator[tuple[SimulatedDevice, ...]]:
    """Create one device for each spec; all are gone afterwards.

    :param prefix: Their names are this and a number, from 0.
    :param specs: One for each device, in order.
    :raise HostError: When the kernel refuses one.
    """
    names = [f"{prefix}{number}" for number in range(len(specs))]
    try:
        yield tuple(map(_create, names, specs))
    finally:
        for name in reversed(names):
            config = CONFIGFS / name
            with suppress(OSError, HostError):
                _write(config / "live", "0")
            with suppress(OSError):
                config.rmdir()
