# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scenarios virtual functions can play, and how they play them.

The flags of a real device are what they are, its arcs take the time that they
take, and nobody can make it fail.  So latencies are left out, and a scenario
that needs more of its devices than to be there is not played.

The driver p2pvf can be told all of that, by root.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from vfio_p2p.scenario.device import Device, Peers
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.step import Migrate

# What the testbed calls its devices.
_SIMULATED_NAME = re.compile(r"\b(?:src|dst)\d+\b")

# What the size of a simulated device's memory is good for.
_SIMULATED = ("size_bytes", "initial_bytes", "dirty_bytes")
_ORDINARY = Device()


def unplayable(
    scenario: Scenario,
    most: int,
    *,
    far: bool,
    told: bool,
    alike: bool = False,
) -> str:
    """Say why the devices of a place cannot play a scenario.

    :param scenario: The scenario.
    :param most: The number of devices that each side has.
    :param far: Whether the QEMUs run on other machines than this one.
    :param told: Whether the devices can be told how to behave.
    :param alike: Whether devices of both sides may have the same names.
    :return: A clause; empty if they can.
    """
    devices = scenario.each_device()
    for device in devices:
        if device.peers is not Peers.NONE:
            return "its devices send to one another, which p2psim's alone do"
        if device.dma_bytes:
            return "its devices do DMA, which p2psim's alone do"
        if device.iommufd:
            return "its devices are reached through an IOMMUFD"
        if device.dma_logging:
            return "it depends on the dirty tracking of its devices"
        if not told and (why := _untold(device)):
            return why
    if alike and _SIMULATED_NAME.search(_expected(scenario)):
        return (
            "its expectations name devices, and those of the two hosts may "
            "have the same names"
        )
    if len(devices) > most:
        return f"it needs {len(devices)} devices, and each side has {most}"
    if far and any(
        isinstance(step, Migrate) and step.cut_bytes is not None
        for step in scenario.steps
    ):
        return "its stream is cut by a proxy on this machine"
    if alike and any(
        isinstance(step, Migrate) and step.through for step in scenario.steps
    ):
        return "its file would be on one machine, and has to be on two"
    if (far or alike) and scenario.migration.tls:
        return "the key of its encryption is in a file on this machine"
    if scenario.guest.witness:
        return "a guest of the hosts may use its virtio device"
    return ""


def _expected(scenario: Scenario) -> str:
    return msgspec.json.encode(scenario.expect).decode()


def _untold(device: Device) -> str:
    """Say why a real device cannot stand for a simulated one."""
    if device.faults:
        return "its devices have faults, and real ones cannot be told to"
    if set(device.flags) != set(_ORDINARY.flags):
        return (
            "its devices lack migration flags, and those of real ones "
            "cannot be chosen"
        )
    if any(getattr(device, x) != getattr(_ORDINARY, x) for x in _SIMULATED):
        return "it depends on the size of its devices' state"
    return ""


def as_played(
    scenario: Scenario,
    parameters: Mapping[str, int | str | bool],
    *,
    told: bool,
    names: Mapping[str, str] | None = None,
) -> Scenario:
    """Return a scenario as the devices of a place play it.

    :param scenario: A scenario that they can play.
    :param parameters: Migration parameters that the hosts need, in addition
        to those of the scenario or in place of them.
    :param told: Whether the devices can be told how to behave.
    :param names: The names of the devices in QEMU's traces, by those that
        they have in the testbed, such as ``src0``.
    """
    devices = scenario.devices
    known = names or {}
    expect = msgspec.json.decode(
        _SIMULATED_NAME.sub(
            lambda x: known.get(x[0], x[0]), _expected(scenario)
        ),
        type=type(scenario.expect),
    )
    if not told:
        devices = tuple(
            msgspec.structs.replace(device, profile="", latency_us={})
            for device in devices
        )
    return msgspec.structs.replace(
        scenario,
        devices=devices,
        expect=expect,
        migration=msgspec.structs.replace(
            scenario.migration,
            parameters={**scenario.migration.parameters, **parameters},
        ),
    )
