# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that are plugged into a running VM, and unplugged from it."""

from __future__ import annotations

from collections.abc import Mapping

from vfio_p2p.machine.qemu import Qemu
from vfio_p2p.scenario.course import Limits

_DRIVER = "vfio-pci"
_YES = ("on", "yes", "true")


async def plug(
    vm: Qemu, properties: Mapping[str, str], limits: Limits
) -> None:
    """Plug a device.

    :param vm: The QEMU.
    :param properties: The properties of vfio-pci, as ``-device`` takes them.
    :param limits: The time limits.
    :raise VMError: When QEMU refuses the device.
    """
    listed = await vm.execute(
        "device-list-properties",
        {"typename": _DRIVER},
        limit_s=limits.command_s,
    )
    types = {x["name"]: x["type"] for x in listed}
    await vm.execute(
        "device_add",
        {
            "driver": _DRIVER,
            **{
                name: _typed(value, types.get(name, ""))
                for name, value in properties.items()
            },
        },
        limit_s=limits.command_s,
    )


def _typed(value: str, type_: str) -> str | int | bool:
    """Return a value as QMP takes it.

    Up to QEMU 9.1, QMP's device_add took texts as well.
    """
    if type_ == "bool":
        return value in _YES
    if type_.startswith(("int", "uint")) and value.isdecimal():
        return int(value)
    return value


async def unplug(vm: Qemu, device: str, limits: Limits) -> None:
    """Unplug a device, and wait until it has gone.

    :param vm: The QEMU.
    :param device: The id of the device.
    :param limits: The time limits.
    :raise VMError: When QEMU refuses.
    """
    await vm.execute(
        "device_del", {"id": device}, limit_s=limits.command_s
    )
    async with vm.step("unplug", limits.settle_s):
        while True:
            match await vm.next_event("unplug"):
                case {"event": "DEVICE_DELETED", "data": {"device": gone}}:
                    if gone == device:
                        break
