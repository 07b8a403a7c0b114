# SPDX-License-Identifier: GPL-2.0-or-later
"""Read a scenario as the devices of a run can play it."""

from __future__ import annotations

from vfio_p2p.devices import Driver, mtty_limits, p2pvf_limits
from vfio_p2p.errors import UsageError
from vfio_p2p.plans.setting import Setting
from vfio_p2p.progress import Reporter
from vfio_p2p.scenario.load import load, load_profile
from vfio_p2p.scenario.model import Scenario


def load_for(what: str, setting: Setting, reporter: Reporter) -> Scenario:
    """Read a scenario, and adapt it to the devices of a setting.

    :param what: The name or file of a scenario.
    :param setting: Names the driver, and the profile if there is one.
    :param reporter: Told what a driver leaves out of the scenario.
    :raise UsageError: When there is no such scenario, or the driver cannot
        play it.
    :raise ScenarioError: When the file is not a scenario.
    """
    scenario = load(what)
    driver, profile = setting.driver, setting.profile
    if profile is not None:
        if driver is Driver.MTTY:
            raise UsageError(
                f"--profile {profile} is for p2psim: the latencies of "
                f"{driver} cannot be set",
                f"Leave out --profile, or --device {driver}.",
            )
        try:
            scenario = load_profile(profile).replace(scenario)
        except ValueError as err:
            raise UsageError(
                f"profile {profile} does not fit {scenario.name}: {err}",
                "Choose a scenario whose devices offer all flags.",
            ) from None
    adapted = as_driven(scenario, driver)
    if adapted != scenario:
        reporter.remark(f"{adapted.name}: {adapted.summary}")
    return adapted


def as_driven(scenario: Scenario, driver: Driver) -> Scenario:
    """Adapt a scenario to the devices of a driver.

    :param scenario: The scenario.
    :param driver: The driver.
    :raise UsageError: When the driver cannot play it.
    """
    match driver:
        case Driver.P2PSIM:
            return scenario
        case Driver.MTTY:
            return mtty_limits.adapt(scenario)
        case Driver.P2PVF:
            return p2pvf_limits.adapt(scenario)


def check_qemu(driver: Driver, version: str) -> None:
    """See that the devices of a driver can migrate with a QEMU.

    :param driver: The driver.
    :param version: The content of QEMU's file VERSION.
    :raise SourceError: When they cannot.
    """
    if driver is Driver.MTTY:
        mtty_limits.check_qemu(version)
