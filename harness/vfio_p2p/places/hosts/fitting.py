# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scenarios real devices can play, and how they play them.

The flags of a real device are what they are, its arcs take the time that they
take, and nobody can make it fail.  So latencies are left out, and a scenario
that needs more of its devices than to be there is not played.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from vfio_p2p.scenario.course import Device, Migration, Peers
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.step import Migrate

# What the size of a simulated device's memory is good for.
_SIMULATED = ("size_bytes", "initial_bytes", "dirty_bytes")
_ORDINARY = Device()


def unplayable(scenario: Scenario, most: int, *, far: bool) -> str:
    """Say why real devices cannot play a scenario.

    :param scenario: The scenario.
    :param most: The number of devices that each side has.
    :param far: Whether the QEMUs run on other machines than this one.
    :return: A clause; empty if they can.
    """
    devices = scenario.each_device()
    for device in devices:
        if device.faults:
            return "its devices have faults, and real ones cannot be told to"
        if device.peers is not Peers.NONE:
            return "its devices send to one another, which p2psim's alone do"
        if set(device.flags) != set(_ORDINARY.flags):
            return (
                "its devices lack migration flags, and those of real ones "
                "cannot be chosen"
            )
        if device.dma_logging:
            return "it depends on the dirty tracking of its devices"
    if any(
        getattr(device, key) != getattr(_ORDINARY, key)
        for device in devices
        for key in _SIMULATED
    ):
        return "it depends on the size of its devices' state"
    if len(devices) > most:
        return f"it needs {len(devices)} devices, and each side has {most}"
    if far and any(
        isinstance(step, Migrate) and step.cut_bytes is not None
        for step in scenario.steps
    ):
        return "its stream is cut by a proxy on this machine"
    return ""


def as_played(
    scenario: Scenario, parameters: Mapping[str, int | str | bool]
) -> Scenario:
    """Return a scenario as real devices play it.

    :param scenario: A scenario that they can play.
    :param parameters: Migration parameters that the hosts need, in addition
        to those of the scenario or in place of them.
    """
    return msgspec.structs.replace(
        scenario,
        devices=tuple(
            msgspec.structs.replace(device, profile="", latency_us={})
            for device in scenario.devices
        ),
        migration=Migration(
            capabilities=scenario.migration.capabilities,
            parameters={**scenario.migration.parameters, **parameters},
        ),
    )
