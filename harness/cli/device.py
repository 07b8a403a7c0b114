# SPDX-License-Identifier: GPL-2.0-or-later
"""``--device``: whose devices scenarios run on."""

from __future__ import annotations

import argparse
import sys

from harness.device import Driver, mtty
from harness.scenario.load import load
from harness.scenario.model import Scenario


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


def driver_of(args: argparse.Namespace) -> Driver:
    """The module that the option asks for."""
    return Driver(args.device)


def load_for(driver: Driver, what: str) -> Scenario:
    """Read a scenario, as far as a driver can play it.

    :param what: A scenario's name or file.
    :raise UsageError: When there is none, or the driver cannot play it.
    :raise ScenarioError: When the file is not a scenario.
    """
    scenario = load(what)
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
