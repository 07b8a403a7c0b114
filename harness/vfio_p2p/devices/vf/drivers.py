# SPDX-License-Identifier: GPL-2.0-or-later
"""The variant drivers, as data: what each needs of a host.

``drivers.toml`` has one table for each. A new driver is a new table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vfio_p2p.devices.vf.inventory import PciFunction
from vfio_p2p.errors import UsageError
from vfio_p2p.names import suggest
from vfio_p2p.resources import resource
from vfio_p2p.scenario.strict import TomlDocument, read
from vfio_p2p.scenario.values import Integer, Strict

PciId = Annotated[str, Meta(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}\Z")]
Numbers = Annotated[str, Meta(pattern=r"^\d+(\.\d+)*\Z")]

_NUMBERS = re.compile(r"\d+(?:\.\d+)*")


class Property(Strict, frozen=True, kw_only=True):
    """A property of QEMU's vfio-pci that a driver needs.

    :param value: Its value.
    :param reason: Why it is needed, in whole sentences.
    :param accelerator: The accelerator with which it is needed, ``tcg`` or
        ``kvm``; absent if it is needed with both.
    """

    value: str
    reason: str
    accelerator: Literal["tcg", "kvm", ""] = ""


class VariantDriver(Strict, frozen=True, kw_only=True):
    """A driver of vfio-pci's family that migrates some devices.

    :param title: The devices, in a few words.
    :param module: The name of the kernel module.
    :param name: The name of the driver, if it is not that of the module.
    :param config: The kernel's option that builds it.
    :param in_debian: Whether Debian's kernels have it; absent if that is
        not known.
    :param kernel: The first kernel whose driver does what is needed.
    :param qemu: The first QEMU that migrates these devices.
    :param iproute2: The first iproute2 that knows what is needed.
    :param pfs: The PFs, by vendor and device.
    :param vfs: The VFs, by vendor and device.
    :param pf_drivers: The drivers of the PF with which the VFs work.
    :param devlink_optional: Whether a PF that devlink does not know needs
        nothing of what only devlink can tell or change.
    :param eswitch: The mode in which the card's switch must be.
    :param port_caps: The capabilities that each VF's port must have.
    :param max_vfs: How many VFs of a PF can migrate at a time.
    :param same: What must be equal on both hosts.
    :param firmware: The oldest firmware that will do, by PF.
    :param settings: The settings of the firmware that are needed.
    :param properties: What QEMU's vfio-pci has to be told.
    :param parameters: Migration parameters that such devices need.
    :param configurable: Whether the driver can be told how its devices
        behave, as the lab's can.
    """

    title: str
    module: str
    name: str = ""
    config: str
    in_debian: bool | None = None
    kernel: Numbers
    qemu: Numbers = "8.1"
    iproute2: Numbers | None = None
    pfs: tuple[PciId, ...]
    vfs: tuple[PciId, ...]
    pf_drivers: tuple[str, ...]
    devlink_optional: bool = False
    eswitch: Literal["legacy", "switchdev", ""] = ""
    port_caps: dict[str, str] = msgspec.field(default_factory=dict)
    max_vfs: int | None = None
    same: tuple[Literal["psid", "firmware"], ...] = ()
    firmware: dict[PciId, Numbers] = msgspec.field(default_factory=dict)
    settings: dict[str, str] = msgspec.field(default_factory=dict)
    properties: dict[str, Property] = msgspec.field(default_factory=dict)
    parameters: dict[str, Integer | str | bool] = msgspec.field(
        default_factory=dict
    )
    configurable: bool = False

    @property
    def driver(self) -> str:
        """The name of the driver, as sysfs has it."""
        return self.name or self.module

    def properties_with(self, accelerator: str) -> dict[str, Property]:
        """Return what QEMU's vfio-pci has to be told, by property.

        :param accelerator: ``tcg`` or ``kvm``.
        """
        return {
            name: x
            for name, x in self.properties.items()
            if x.accelerator in ("", accelerator)
        }

    def fits_pf(self, function: PciFunction) -> bool:
        """Whether VFs of a function can be migrated by the driver."""
        return function.kind == "pf" and function.id in self.pfs

    def fits_vf(self, function: PciFunction) -> bool:
        """Whether a function can be migrated by the driver."""
        return function.kind == "vf" and function.id in self.vfs


class _DriversFile(Strict, frozen=True, kw_only=True):
    format: Literal[1]
    driver: dict[str, VariantDriver]


@cache
def load_drivers() -> Mapping[str, VariantDriver]:
    """Return all drivers by their keys in ``drivers.toml``.

    :raise ScenarioError: When the file is wrong.
    """
    path = resource("devices", "vf", "drivers.toml")
    return parse_drivers(read(path), "drivers.toml")


def parse_drivers(data: bytes, path: str) -> Mapping[str, VariantDriver]:
    """Decode a file of drivers.

    :param data: Its content.
    :param path: Its path, for messages.
    :raise ScenarioError: When it is wrong.
    """
    return TomlDocument.of(data, path).convert(_DriversFile).driver


def find_driver(name: str) -> VariantDriver:
    """Return a driver by its key.

    :param name: The key in ``drivers.toml``.
    :raise UsageError: When there is none.
    """
    drivers = load_drivers()
    if name not in drivers:
        raise UsageError(
            f"there is no variant driver {name!r}", suggest(name, drivers)
        )
    return drivers[name]


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version; an empty one if it has none.

    :param version: E.g. ``6.12.95+deb12-amd64``.
    """
    found = _NUMBERS.match(version)
    return tuple(map(int, found[0].split("."))) if found else ()
