# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine type that the two QEMUs of a migration have in common.

``q35`` is another machine in each release.  A migration between two releases
needs one with a version, such as ``pc-q35-10.0``, which stays the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec

from vfio_p2p.errors import UsageError
from vfio_p2p.names import suggest
from vfio_p2p.scenario.model import Scenario

_VERSIONED = re.compile(r"pc-q35-(\d{1,4}(?:\.\d{1,4}){1,2})")


def common_machine(machines: Sequence[Collection[str]]) -> str | None:
    """Return the newest q35 machine type with a version that all know.

    :param machines: The machine types of each QEMU.
    :return: None if they have none in common.
    """
    shared = set.intersection(*map(set, machines))
    found = [
        (tuple(map(int, match[1].split("."))), name)
        for name in shared
        if (match := _VERSIONED.fullmatch(name))
    ]
    return max(found)[1] if found else None


def with_machine(scenario: Scenario, machine: str) -> Scenario:
    """Return a scenario whose guest is a machine of this type.

    :param scenario: The scenario.
    :param machine: The machine type.
    """
    guest = msgspec.structs.replace(scenario.guest, machine=machine)
    return msgspec.structs.replace(scenario, guest=guest)


def pinned(
    scenario: Scenario,
    machines: Sequence[Collection[str]],
    wanted: str | None = None,
) -> Scenario:
    """Give a scenario the machine type that its QEMUs need.

    A scenario that names a machine type itself keeps it, unless the user
    asks for another one.

    :param scenario: The scenario.
    :param machines: The machine types of each QEMU.
    :param wanted: The machine type that the user asks for; None takes the
        newest that all have.
    :raise UsageError: When no QEMU has what is wanted, or they have nothing
        in common.
    """
    if wanted is None:
        found = scenario.machine or common_machine(machines)
        if found is None:
            raise UsageError(
                "the two QEMUs have no machine type pc-q35-VERSION in common",
                "Choose two releases that are less far apart.",
            )
        return with_machine(scenario, found)
    every = sorted({x for names in machines for x in names})
    if wanted not in every:
        raise UsageError(
            f"no QEMU of this request has the machine type {wanted!r}",
            suggest(wanted, every),
        )
    return with_machine(scenario, wanted)
