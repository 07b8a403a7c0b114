# SPDX-License-Identifier: GPL-2.0-or-later
"""Simulated devices: made through p2psim's configfs, gone afterwards.

The interface, and the format of the devices' logs, are described in
images/p2psim/README.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.machine.errors import HostError
from vfio_p2p.scenario.course import Device, Peers

CONFIGFS = Path("/sys/kernel/config/p2psim")
DEBUGFS = Path("/sys/kernel/debug/p2psim")


@dataclass(frozen=True)
class SimulatedDevice:
    """A live p2psim device.

    :param name: Its name, which is also what QEMU's traces call it.
    :param sysfs: Its folder under /sys, for QEMU's ``sysfsdev=``.
    :param dma_logging: Whether it offers DMA logging.
    :param has_peers: Whether it has others to send to, or to answer.
    """

    name: str
    sysfs: Path
    dma_logging: bool = False
    has_peers: bool = False

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

    def start_traffic(self) -> None:
        """Have it send to its peers, if it has any.

        This migrates with the device: the destination's goes on.

        :raise HostError: When QEMU has not opened it, or is just saving or
            loading it.
        """
        if self.has_peers:
            _write(CONFIGFS / self.name / "traffic", "1")


def _write(path: Path, text: str) -> None:
    try:
        # One write(2) for one value, as configfs wants it, and never of
        # nothing: that would leave the old value.
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, f"{text}\n".encode())
        finally:
            os.close(fd)
    except OSError as err:
        raise HostError(
            f"p2psim refused {text!r} for {path.name} of "
            f"{path.parent.name}: {err.strerror}",
            "the kernel's log says more",
        ) from err


def peers_of(specs: tuple[Device, ...]) -> tuple[tuple[int, ...], ...]:
    """To which others each device sends, all by their place in `specs`."""
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


def _settings(spec: Device) -> Iterator[tuple[str, str]]:
    yield "flags", " ".join(spec.flags)
    yield "size_bytes", str(spec.size_bytes)
    yield "initial_bytes", str(spec.initial_bytes)
    yield "dirty_bytes", str(spec.dirty_bytes)
    yield "dma_logging", str(int(spec.dma_logging))
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
            "is the module p2psim loaded and configfs mounted?",
        ) from err
    for attribute, text in settings:
        _write(config / attribute, text)
    _write(config / "live", "1")
    sysfs = (config / "sysfs_path").read_text().strip()
    return SimulatedDevice(
        name,
        Path(sysfs),
        dma_logging=spec.dma_logging,
        has_peers=spec.peers is not Peers.NONE,
    )


def _create_all(
    prefix: str, specs: tuple[Device, ...], side: str
) -> Iterator[SimulatedDevice]:
    for number, (spec, peers) in enumerate(
        zip(specs, peers_of(specs), strict=True)
    ):
        settings = [*_settings(spec)]
        if spec.peers is not Peers.NONE:
            settings += _peer_settings(spec, prefix, number, peers)
        if spec.fault_side == side:
            settings.append(("faults", "\n".join(spec.faults)))
        yield _create(f"{prefix}{number}", spec, settings)


@contextmanager
def simulated_devices(
    prefix: str, specs: tuple[Device, ...], side: str
) -> Iterator[tuple[SimulatedDevice, ...]]:
    """Create one device for each spec; all are gone afterwards.

    :param prefix: Their names are this and a number, from 0.  It is also
        the group of those with peers: other sides are other groups.
    :param specs: One for each device, in order.
    :param side: Side whose faults they have; one of `Side`.
    :raise HostError: When the kernel refuses one.
    """
    names = [f"{prefix}{number}" for number in range(len(specs))]
    try:
        yield tuple(_create_all(prefix, specs, side))
    finally:
        for name in reversed(names):
            config = CONFIGFS / name
            with suppress(OSError, HostError):
                _write(config / "live", "0")
            with suppress(OSError):
                config.rmdir()
