# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scenarios a change of QEMU's source bears on, by the files it changes.

The first line of the table that fits a file counts; a change of several files
bears on the scenarios of all of them.  What must not be run by these rules can
be named with ``--scenario``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from vfio_p2p.plans.validate import SCENARIOS
from vfio_p2p.scenario.load import load, names
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.step import Migrate


@dataclass(frozen=True)
class Bearing:
    """What a change of some files bears on.

    :param files: Patterns of their paths, in which a star is any text.
    :param what: The scenarios in words, for messages and documentation.
    :param takes: Whether a scenario of the library is one of them.
    """

    files: tuple[str, ...]
    what: str
    takes: Callable[[Scenario], bool]


def _every(scenario: Scenario) -> bool:
    return True


def _none(scenario: Scenario) -> bool:
    return False


def _migrates(scenario: Scenario) -> bool:
    return any(isinstance(step, Migrate) for step in scenario.steps)


def _migrates_without_faults(scenario: Scenario) -> bool:
    return _migrates(scenario) and not any(
        device.faults for device in scenario.devices
    )


def _plain(scenario: Scenario) -> bool:
    return scenario.name in SCENARIOS


BEARINGS = (
    Bearing(
        ("docs/*", "tests/*", "*.rst", "*.md", "MAINTAINERS", ".*"),
        "no scenario",
        _none,
    ),
    Bearing(
        (
            "hw/core/vm-change-state-handler.c",
            "include/*/runstate.h",
            "softmmu/runstate.c",
            "softmmu/cpus.c",
            "system/runstate.c",
            "system/cpus.c",
        ),
        "every scenario, those without a migration included",
        _every,
    ),
    Bearing(
        (
            "hw/vfio/*migration*",
            "hw/vfio/trace-events",
            "include/hw/vfio/*migration*",
            "include/hw/vfio/vfio-common.h",
        ),
        "every scenario that migrates, those with failing devices included",
        _migrates,
    ),
    Bearing(
        (
            "hw/vfio/*",
            "include/hw/vfio/*",
            "include/migration/*",
            "linux-headers/*",
            "migration/*",
            "qapi/migration.json",
        ),
        "every scenario that migrates devices that do not fail",
        _migrates_without_faults,
    ),
    Bearing(("*",), f"only {', '.join(SCENARIOS)}", _plain),
)


def bearing_of(path: str) -> Bearing:
    """Return the line of the table that fits a file.

    :param path: The path of the file in QEMU's tree.
    """
    return next(
        x for x in BEARINGS if any(fnmatchcase(path, y) for y in x.files)
    )


def scenarios_for(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the scenarios that a change bears on.

    :param paths: The paths of the files that it changes.
    """
    found = tuple({bearing_of(path): None for path in paths})
    return tuple(
        name
        for name in names()
        if any(x.takes(load(name)) for x in found)
    )
