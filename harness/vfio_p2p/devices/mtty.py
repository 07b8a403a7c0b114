# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices of Linux's sample driver mtty: an independent witness.

What mtty offers is fixed (Linux 6.12, samples/vfio-mdev/mtty.c): all three
migration flags, arcs that take no time, a state of 96 bytes in mtty-2, no
DMA and no log.  Closing a device does not reset its state, so that each run
gets devices of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vfio_p2p.errors import HostError, SourceError, UsageError
from vfio_p2p.scenario.model import Device, Scenario

TYPE = Path("/sys/class/mtty/mtty/mdev_supported_types/mtty-2")
DEVICES = Path("/sys/bus/mdev/devices")

# MAX_MTTYS of its 24 ports, two for each device, and two sides.
MAX_DEVICES = 24 // 2 // 2

# Whoever asks for nothing in particular gets what mtty has.
_ORDINARY = Device()
_GRANTED = ("count", "root_port")
_DROPPED = ("profile", "latency_us")

_SUFFIX = "-mtty"

_FIRST_QEMU = (9, 1)


@dataclass(frozen=True)
class MttyDevice:
    """A mediated device of the type mtty-2.

    :param name: Its UUID, which is also what QEMU's traces call it.
    """

    name: str

    @property
    def sysfs(self) -> Path:
        """Its folder under /sys, for QEMU's ``sysfsdev=``."""
        return DEVICES / self.name

    @property
    def qemu_properties(self) -> str:
        """Properties of QEMU's vfio-pci that select it.

        It offers DMA logging, and a kernel without IOMMUFD, such as the
        testbed's, cannot report what was logged (include/linux/
        iova_bitmap.h): QEMU is to use the container's dirty tracking, for
        which migration has to be asked for, as with p2psim.
        """
        return (
            f"sysfsdev={self.sysfs},enable-migration=on,"
            "x-device-dirty-page-tracking=off"
        )

    def log(self) -> bytes:
        """Nothing: mtty keeps no log."""
        return b""

    def start_traffic(self) -> None:
        """Nothing: mtty has no peers."""


def _uuid(prefix: str, number: int) -> str:
    """A fixed one: its first group is the prefix in ASCII."""
    first = int.from_bytes(prefix.encode("ascii"))
    return f"{first:08x}-0000-4000-8000-{number:012}"


@contextmanager
def mtty_devices(
    prefix: str, specs: tuple[Device, ...]
) -> Iterator[tuple[MttyDevice, ...]]:
    """Create one device for each spec; all are gone afterwards.

    :param prefix: Up to four ASCII characters; fixes their UUIDs.
    :param specs: Only their number counts; see `adapt`.
    :raise HostError: When the kernel refuses one.
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
            "are the modules mdev and mtty loaded?",
        ) from err


def adapt(scenario: Scenario) -> Scenario:
    """What of a scenario mtty can play: all but the latencies.

    That is another scenario: it has a name of its own, and its summary says
    what was left out.

    :raise UsageError: When it asks for what mtty cannot do.
    """
    for number, device in enumerate(scenario.devices):
        for key in Device.__struct_fields__:
            if key in (*_GRANTED, *_DROPPED):
                continue
            if getattr(device, key) != getattr(_ORDINARY, key):
                raise _cannot(
                    scenario,
                    f"devices[{number}].{key}",
                    "its devices have all flags, and a size and "
                    "a behaviour that are fixed",
                )
    if len(scenario.each_device()) > MAX_DEVICES:
        raise _cannot(
            scenario, "devices.count", f"it has {MAX_DEVICES} for each side"
        )
    summary = f"{scenario.name} on mtty"
    if any(device.latency_us for device in scenario.devices):
        summary += f", without {_DROPPED[-1]}: its arcs take no time"
    return msgspec.structs.replace(
        scenario,
        # As long as a name may be.
        name=f"{scenario.name[: 63 - len(_SUFFIX)]}{_SUFFIX}",
        summary=summary,
        devices=tuple(
            msgspec.structs.replace(device, profile="", latency_us={})
            for device in scenario.devices
        ),
    )


def _cannot(scenario: Scenario, key: str, why: str) -> UsageError:
    return UsageError(
        f"{scenario.name}: mtty cannot do what {key} asks for",
        f"{why}; run it without --device mtty",
    )


def check_qemu(version: str) -> None:
    """See that a QEMU can migrate mtty's devices in the testbed.

    :param version: As in QEMU's file VERSION.
    :raise SourceError: When it is too old.
    """
    first = ".".join(map(str, _FIRST_QEMU))
    if tuple(map(int, version.split(".")[:2])) < _FIRST_QEMU:
        raise SourceError(
            f"QEMU {version} cannot migrate mtty's devices in the testbed",
            "its kernel cannot report what a device logged, and only from "
            f"{first} on QEMU's vfio-pci can do without it",
        )
