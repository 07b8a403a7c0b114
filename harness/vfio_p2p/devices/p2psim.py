# SPDX-License-Identifier: GPL-2.0-or-later
"""Simulated devices: created through p2psim's configfs, then removed.

images/p2psim/README.md describes the interface, and the format of the
devices' logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET

from vfio_p2p.devices import kernelfs
from vfio_p2p.machine.errors import HostError
from vfio_p2p.scenario.device import WAYS, Device, Peers, dma_addresses

CONFIGFS = Path("/sys/kernel/config/p2psim")
DEBUGFS = Path("/sys/kernel/debug/p2psim")


@dataclass(frozen=True)
class SimulatedDevice:
    """A live p2psim device.

    :param name: Its name, which is also its name in QEMU's traces.
    :param sysfs: Its folder under /sys, for QEMU's ``sysfsdev=``.
    :param dma_logging: Whether it offers DMA logging.
    :param has_peers: Whether there are devices that it exchanges traffic
        with.
    :param does_dma: Whether it writes to the guest's memory.
    """

    name: str
    sysfs: Path
    dma_logging: bool = False
    has_peers: bool = False
    does_dma: bool = False

    @property
    def qemu_properties(self) -> dict[str, str]:
        """The properties of QEMU's vfio-pci that the device needs.

        Migration must be enabled explicitly: with ``auto``, QEMU refuses
        devices without dirty tracking of their own (hw/vfio/migration.c).
        """
        migration = "auto" if self.dma_logging else "on"
        return {
            "sysfsdev": str(self.sysfs),
            "enable-migration": migration,
        }

    def log(self) -> bytes:
        """Read the device's own log, with the kernel's clock."""
        return (DEBUGFS / self.name / "log").read_bytes()

    def start_traffic(self) -> None:
        """Make the device send to its peers, and write to the guest's memory.

        What it sends to peers migrates with the device, and continues at the
        destination.

        :raise HostError: When QEMU has not opened the device, or is just
            saving or loading it.
        """
        if self.has_peers:
            kernelfs.write(CONFIGFS / self.name / "traffic", "1")
        if self.does_dma:
            kernelfs.write(CONFIGFS / self.name / "dma", "1")


def peers_of(specs: tuple[Device, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the numbers of the devices to which each device sends."""
    found = []
    for number, spec in enumerate(specs):
        alike = [n for n, s in enumerate(specs) if s.peers is spec.peers]
        match spec.peers:
            case Peers.NONE:
                alike = []
            case Peers.PAIRS:
                first = alike.index(number) // 2 * 2
                alike = alike[first : first + 2]
        found.append(tuple(n for n in alike if n != number))
    return tuple(found)


def settings_of(spec: Device) -> Iterator[tuple[str, str]]:
    """Yield the attributes of a device, and their values, in order.

    Peers and faults depend on more than the device, and are left out.

    :param spec: What the device is to be.
    """
    yield "flags", " ".join(spec.flags)
    yield "size_bytes", str(spec.size_bytes)
    yield "initial_bytes", str(spec.initial_bytes)
    yield "dirty_bytes", str(spec.dirty_bytes)
    yield "dma_logging", str(int(spec.dma_logging))
    if spec.precopy_info_v2:
        yield "precopy_info_v2", "1"
        yield "reinit_drain", str(spec.reinit_drain)
        yield "reinit_query", str(spec.reinit_query)
    for name in WAYS:
        value = getattr(spec, name)
        if value is not UNSET:
            yield name, str(value)
    for arc, latency_us in spec.latency_us.items():
        start, end = arc.split(">")
        yield "latency_us", f"{start} {end} {latency_us}"


def _peer_settings(
    spec: Device, group: str, number: int, peers: tuple[int, ...]
) -> Iterator[tuple[str, str]]:
    yield "peer_group", group
    yield "peer_id", str(number)
    yield "peers", " ".join(map(str, peers))
    yield "peer_period_us", str(spec.peer_period_us)
    yield "peer_completion_us", str(spec.peer_completion_us)


def _create(
    name: str, spec: Device, settings: Iterable[tuple[str, str]]
) -> SimulatedDevice:
    config = CONFIGFS / name
    try:
        config.mkdir()
    except OSError as err:
        raise HostError(
            f"cannot create the p2psim device {name}: {err.strerror}",
            "Load the kernel module p2psim, and mount configfs.",
        ) from err
    for attribute, text in settings:
        kernelfs.write(config / attribute, text)
    kernelfs.write(config / "live", "1")
    sysfs = (config / "sysfs_path").read_text().strip()
    return SimulatedDevice(
        name,
        Path(sysfs),
        dma_logging=spec.dma_logging,
        has_peers=spec.peers is not Peers.NONE,
        does_dma=bool(spec.dma_bytes),
    )


def _create_all(
    prefix: str, specs: tuple[Device, ...], side: str
) -> Iterator[SimulatedDevice]:
    for number, (spec, peers, address) in enumerate(
        zip(specs, peers_of(specs), dma_addresses(specs), strict=True)
    ):
        settings = [*settings_of(spec)]
        if spec.dma_bytes:
            settings += [
                ("dma_iova", str(address)),
                ("dma_bytes", str(spec.dma_bytes)),
                ("dma_period_us", str(spec.dma_period_us)),
            ]
        if spec.peers is not Peers.NONE:
            settings += _peer_settings(spec, prefix, number, peers)
        if spec.fault_side == side:
            settings.append(("faults", "\n".join(spec.faults)))
        yield _create(f"{prefix}{number}", spec, settings)


@contextmanager
def simulated_devices(
    prefix: str, specs: tuple[Device, ...], side: str
) -> Iterator[tuple[SimulatedDevice, ...]]:
    """Create one device for each spec, and remove them all afterwards.

    :param prefix: The devices' names are this prefix and a number, from 0.
        It is also the group of the devices with peers, so that each side
        has a group of its own.
    :param specs: The specs, in the order of the devices.
    :param side: The side of the devices; only its own faults are set.
    :raise HostError: When the kernel refuses a device.
    """
    names = [f"{prefix}{number}" for number in range(len(specs))]
    try:
        yield tuple(_create_all(prefix, specs, side))
    finally:
        for name in reversed(names):
            config = CONFIGFS / name
            with suppress(OSError, HostError):
                kernelfs.write(config / "live", "0")
            with suppress(OSError):
                config.rmdir()
