# SPDX-License-Identifier: GPL-2.0-or-later
"""Which devices are in the VMs, as steps plug and unplug them."""

from __future__ import annotations

from collections.abc import Sequence

from vfio_p2p.scenario.step import Plug, Step, Unplug


def starting(count: int, steps: Sequence[Step]) -> tuple[int, ...]:
    """Return the numbers of the devices that the VMs start with.

    :param count: The number of all devices.
    :param steps: The steps; a device that they plug first comes later.
    """
    later: dict[int, bool] = {}
    for step in steps:
        if isinstance(step, Plug | Unplug):
            later.setdefault(step.device, isinstance(step, Plug))
    return tuple(x for x in range(count) if not later.get(x))


def present(
    count: int, steps: Sequence[Step], done: int | None = None
) -> tuple[int, ...]:
    """Return the numbers of the devices that are there after some steps.

    :param count: The number of all devices.
    :param steps: All steps.
    :param done: The number of steps that were done; None means all.
    :return: The numbers in the order in which the devices were plugged.
    """
    found = [*starting(count, steps)]
    for step in steps[:done]:
        match step:
            case Plug(device=device):
                found.append(device)
            case Unplug(device=device):
                found.remove(device)
    return tuple(found)


def check_slots(steps: Sequence[Step]) -> None:
    """Check that no step plugs a device that is there, or unplugs another.

    :param steps: The steps.
    :raise ValueError: When one does, or plugs a device again, which a trace
        could not tell from the first one.
    """
    there: dict[int, bool] = {}
    for number, step in enumerate(steps, 1):
        if not isinstance(step, Plug | Unplug):
            continue
        comes = isinstance(step, Plug)
        if comes and step.device in there:
            raise ValueError(
                f"steps: step {number}: device {step.device} was there before"
            )
        if not comes and not there.get(step.device, True):
            raise ValueError(
                f"steps: step {number}: device {step.device} is not there"
            )
        there[step.device] = comes
