# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference of ``hosts.toml``, and of the variant drivers it can name."""

from __future__ import annotations

from vfio_p2p.devices.vf.drivers import VariantDriver, load_drivers
from vfio_p2p.places.hosts.config import HostsFile

from .pages import code, escape, table
from .scenario_reference import tables


def render_keys() -> str:
    """A section for each table of ``hosts.toml``."""
    return tables(HostsFile)


def render_drivers() -> str:
    """A table of the variant drivers."""
    return table(
        ("key", "devices", "kernel module", "needs"),
        (
            (
                code(name),
                escape(driver.title),
                code(driver.module),
                _needs(driver),
            )
            for name, driver in load_drivers().items()
        ),
    )


def _needs(driver: VariantDriver) -> str:
    found = [f"Linux {driver.kernel}", f"QEMU {driver.qemu}"]
    if driver.iproute2:
        found.append(f"iproute2 {driver.iproute2}")
    if driver.firmware:
        oldest = " or ".join(dict.fromkeys(driver.firmware.values()))
        found.append(f"firmware {oldest}")
    return escape(", ".join(found))
