# SPDX-License-Identifier: GPL-2.0-or-later
"""The limits of mtty: which scenarios it can play, and with which QEMU."""

from __future__ import annotations

import msgspec

from vfio_p2p.errors import SourceError, UsageError
from vfio_p2p.scenario.model import Device, Scenario

# mtty has 24 ports (MAX_MTTYS); each device takes two, and there are two
# sides.
MAX_DEVICES = 24 // 2 // 2

# A device of a scenario that keeps these defaults can be a device of mtty.
_ORDINARY = Device()
_GRANTED = ("count", "root_port", "properties")
_DROPPED = ("profile", "latency_us")

_SUFFIX = "-mtty"

_FIRST_QEMU = (9, 1)


def adapt(scenario: Scenario) -> Scenario:
    """Make a scenario for mtty from one for p2psim, without latencies.

    The new scenario has a name of its own, and its summary says what was
    left out.

    :param scenario: The scenario for p2psim.
    :raise UsageError: When mtty cannot do what the scenario asks for.
    """
    for number, device in enumerate(scenario.devices):
        for key in Device.__struct_fields__:
            if key in (*_GRANTED, *_DROPPED):
                continue
            if getattr(device, key) != getattr(_ORDINARY, key):
                raise _cannot(
                    scenario,
                    f"devices[{number}].{key}",
                    "The flags, the size and the behaviour of its devices "
                    "are fixed",
                )
    if len(scenario.each_device()) > MAX_DEVICES:
        raise _cannot(
            scenario, "devices.count", f"It has {MAX_DEVICES} for each side"
        )
    summary = f"{scenario.name} on mtty"
    if any(device.latency_us for device in scenario.devices):
        summary += f", without {_DROPPED[-1]}: its arcs take no time"
    return msgspec.structs.replace(
        scenario,
        # A name has at most 63 characters.
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
        f"{why}. Run the scenario without --device mtty.",
    )


def check_qemu(version: str) -> None:
    """Check that a QEMU can migrate mtty's devices in the testbed.

    :param version: The content of QEMU's file ``VERSION``.
    :raise SourceError: When QEMU is too old.
    """
    first = ".".join(map(str, _FIRST_QEMU))
    if tuple(map(int, version.split(".")[:2])) < _FIRST_QEMU:
        raise SourceError(
            f"QEMU {version} cannot migrate mtty's devices in the testbed",
            f"Use QEMU {first} or later: the testbed's kernel cannot report "
            "logged pages, and older versions of vfio-pci need them.",
        )
