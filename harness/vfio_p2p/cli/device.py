# SPDX-License-Identifier: GPL-2.0-or-later
"""``--device``: whose devices scenarios run on."""

from __future__ import annotations

import argparse
import sys

from vfio_p2p.devices import Driver, mtty
from vfio_p2p.errors import UsageError
from vfio_p2p.scenario.load import load, load_profile, profiles
from vfio_p2p.scenario.model import Scenario


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that says whose devices, for `driver_of`."""
    parser.add_argument(
        "--device",
        choices=[driver.value for driver in Driver],
        default=Driver.P2PSIM.value,
        help="the kernel module whose devices QEMU gets: ours, or Linux's "
        "sample mtty, as an independent witness of basic scenarios "
        "(default: %(default)s)",
    )


def add_profile_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how long arcs take, for `load_for`."""
    parser.add_argument(
        "--profile",
        metavar="P",
        help="latencies of the devices, in place of the scenario's: "
        f"{', '.join(profiles())}, or a file (a model: see docs/profiles.md)",
    )


def driver_of(args: argparse.Namespace) -> Driver:
    """The module that the option asks for."""
    return Driver(args.device)


def load_for(
    driver: Driver, what: str, profile: str | None = None
) -> Scenario:
    """Read a scenario, as far as a driver can play it.

    :param what: A scenario's name or file.
    :param profile: A profile's name or file, to replace its latencies.
    :raise UsageError: When there is none, or the driver cannot play it.
    :raise ScenarioError: When the file is not a scenario.
    """
    scenario = load(what)
    if profile is not None:
        if driver is not Driver.P2PSIM:
            raise UsageError(
                f"--profile {profile} is for p2psim: the arcs of {driver} "
                "take the time that they take",
                f"leave out --profile, or --device {driver}",
            )
        try:
            scenario = load_profile(profile).replace(scenario)
        except ValueError as err:
            raise UsageError(
                f"profile {profile} does not fit {scenario.name}: {err}",
                "choose a scenario whose devices have them",
            ) from None
    if driver is not Driver.MTTY:
        return scenario
    adapted = mtty.adapt(scenario)
    print(f"{adapted.name}: {adapted.summary}", file=sys.stderr)
    return adapted


def check_qemu(driver: Driver, version: str) -> None:
    """See that a driver's devices can migrate with a QEMU.

    :param version: As in QEMU's file VERSION.
    :raise SourceError: When they cannot.
    """
    if driver is Driver.MTTY:
        mtty.check_qemu(version)
