# SPDX-License-Identifier: GPL-2.0-or-later
"""What the devices of mtty cannot do, and which QEMU can migrate them."""

from __future__ import annotations

import msgspec

from vfio_p2p.errors import SourceError, UsageError
from vfio_p2p.scenario.model import Device, Scenario

# MAX_MTTYS of its 24 ports, two for each device, and two sides.
MAX_DEVICES = 24 // 2 // 2

# Whoever asks for nothing in particular gets what mtty has.
_ORDINARY = Device()
_GRANTED = ("count", "root_port")
_DROPPED = ("profile", "latency_us")

_SUFFIX = "-mtty"

_FIRST_QEMU = (9, 1)


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
