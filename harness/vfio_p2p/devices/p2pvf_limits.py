# SPDX-License-Identifier: GPL-2.0-or-later
"""The limits of p2pvf in the testbed: which scenarios it can play, and how."""

from __future__ import annotations

import msgspec

from vfio_p2p.devices.p2pvf import DRIVER, MAX_DEVICES, address_of
from vfio_p2p.devices.vf.drivers import find_driver
from vfio_p2p.devices.vf.fitting import as_played, unplayable
from vfio_p2p.errors import UsageError
from vfio_p2p.scenario.course import GuestProgram
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.side import Side

_SUFFIX = "-p2pvf"


def adapt(scenario: Scenario) -> Scenario:
    """Make a scenario for p2pvf from one for p2psim.

    The new scenario has a name of its own.  Its expectations name the
    functions by their addresses, as QEMU does.

    :param scenario: The scenario for p2psim.
    :raise UsageError: When p2pvf cannot do what the scenario asks for.
    """
    if why := _obstacle(scenario):
        raise UsageError(
            f"p2pvf cannot play {scenario.name}: {why}",
            "Run the scenario without --device p2pvf.",
        )
    played = as_played(
        scenario,
        {
            **find_driver(DRIVER).parameters,
            **scenario.migration.parameters,
        },
        told=True,
        names={
            f"{side.prefix}{number}": address_of(side, number)
            for side in Side
            for number in range(MAX_DEVICES)
        },
    )
    return msgspec.structs.replace(
        played,
        # A name has at most 63 characters.
        name=f"{scenario.name[: 63 - len(_SUFFIX)]}{_SUFFIX}",
        summary=f"{scenario.name} on PCI virtual functions",
    )


def _obstacle(scenario: Scenario) -> str:
    if scenario.guest.program is GuestProgram.HEARTBEAT:
        return "its guest sends beats to p2psim's devices"
    return unplayable(scenario, MAX_DEVICES, far=False, told=True)
