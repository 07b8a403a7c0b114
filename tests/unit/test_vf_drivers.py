# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of variant drivers."""

from __future__ import annotations

import re

import pytest
from inventories import changed, good
from vfio_p2p.devices.vf.drivers import (
    find_driver,
    load_drivers,
    numbers,
    parse_drivers,
)
from vfio_p2p.errors import ScenarioError, UsageError
from vfio_p2p.places.hosts.config import HostEntry
from vfio_p2p.resources import resource

TEXT = resource("devices", "vf", "drivers.toml").read_text()


def test_every_driver() -> None:
    drivers = load_drivers()
    assert set(drivers) == {
        "mlx5", "qat", "hisi_acc", "pds", "xe", "virtio", "p2pvf"
    }
    for driver in drivers.values():
        assert driver.title
        assert driver.module.isidentifier()
        assert driver.driver.replace("-", "_") == driver.module
        assert driver.pfs
        assert driver.vfs
        assert driver.pf_drivers
        assert set(driver.firmware) <= set(driver.pfs)
        assert all(x.reason.endswith(".") for x in driver.properties.values())


def test_no_function_has_two_drivers() -> None:
    vfs = [x for driver in load_drivers().values() for x in driver.vfs]
    assert len(vfs) == len(set(vfs))


def test_mlx5() -> None:
    driver = find_driver("mlx5")
    pf, one = good().functions[:2]
    assert driver.fits_pf(pf)
    assert driver.fits_vf(one)
    assert not driver.fits_pf(one)
    assert not driver.fits_vf(pf)
    assert driver.max_vfs == 4
    assert driver.port_caps == {"migratable": "enable"}
    assert driver.properties == {}
    lab = find_driver("p2pvf")
    nvme = changed(pf, vendor="1b36", device="0010")
    assert (lab.fits_pf(nvme), lab.fits_vf(nvme)) == (True, False)
    nvme = changed(nvme, kind="vf")
    assert (lab.fits_pf(nvme), lab.fits_vf(nvme)) == (False, True)
    assert find_driver("p2pvf").parameters == {"downtime-limit": 20000}


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('module = "p2pvf"', 'modul = "p2pvf"', "driver.p2pvf.modul"),
        ('"15b3:101e"', '"15b3:101E"', "driver.mlx5.vfs"),
        ('kernel = "6.7"', "kernel = 6.7", "driver.mlx5.kernel"),
        ("max_vfs = 4", 'same = ["x"]\nmax_vfs = 4', "not TOML"),
        ("format = 1", "format = 2", "format"),
    ],
)
def test_a_mistake_is_found(old: str, new: str, why: str) -> None:
    assert old in TEXT
    with pytest.raises(ScenarioError, match=why) as caught:
        parse_drivers(TEXT.replace(old, new, 1).encode(), "drivers.toml")
    assert caught.value.line


def test_the_reference_of_hosts_toml_names_every_driver() -> None:
    said = (HostEntry.__doc__ or "").partition(":param driver:")[2]
    said = said.partition(":param")[0]
    assert set(re.findall(r"``(\w+)``", said)) == load_drivers().keys()


def test_an_unknown_driver() -> None:
    with pytest.raises(UsageError, match="no variant driver 'mlx'") as caught:
        find_driver("mlx")
    assert "Did you mean 'mlx5'?" in caught.value.hint


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("6.12.95+deb12-amd64", (6, 12, 95)),
        ("28.41.1000", (28, 41, 1000)),
        ("200127", (200127,)),
        ("next", ()),
        ("", ()),
    ],
)
def test_numbers(version: str, found: tuple[int, ...]) -> None:
    assert numbers(version) == found
