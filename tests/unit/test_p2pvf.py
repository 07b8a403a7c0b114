# SPDX-License-Identifier: GPL-2.0-or-later
"""PCI functions in the testbed's VM, with folders in the kernel's place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from vfio_p2p.choice import VmKernel
from vfio_p2p.cli import main
from vfio_p2p.devices import Driver, kernelfs, p2pvf
from vfio_p2p.devices.p2pvf import (
    MAX_DEVICES,
    address_of,
    function_devices,
)
from vfio_p2p.devices.p2pvf_limits import adapt
from vfio_p2p.devices.vf.drivers import find_driver
from vfio_p2p.errors import HostError, UsageError
from vfio_p2p.places.sealed.outer import sealed_arguments
from vfio_p2p.scenario.load import load, parse
from vfio_p2p.scenario.model import Device, Scenario, from_json
from vfio_p2p.side import Side
from workshops import FakeWorkshop

SPECS = (Device(size_bytes=8192), Device())


@dataclass
class Kernel:
    """What the kernel is told, and how it answers.

    :param root: The folder that replaces its folders.
    :param refuses: The last words of a path that it refuses to write to.
    :param unbound: Addresses that no driver binds.
    """

    root: Path
    refuses: str = " "
    unbound: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)

    def write(self, path: Path, text: str) -> None:
        """Do what the kernel does."""
        self.told.append(f"{path.relative_to(self.root)} {text}")
        if str(path).endswith(self.refuses):
            raise HostError("refused")
        if path.name == "sriov_numvfs" and text != "0":
            side = next(
                x for x, y in p2pvf.PFS.items() if y == path.parent.name
            )
            for number in range(int(text)):
                (path.parents[1] / address_of(side, number)).mkdir()
        if path.name == "drivers_probe" and text not in self.unbound:
            (path.parent / "devices" / text / "driver").mkdir(exist_ok=True)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A kernel that has the controllers of both sides."""
    found = Kernel(tmp_path)
    for name in ("PCI", "CONFIGFS", "DEBUGFS"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(p2pvf, name, tmp_path / name)
    for pf in p2pvf.PFS.values():
        (tmp_path / "PCI" / "devices" / pf).mkdir(parents=True)
    monkeypatch.setattr(kernelfs, "write", found.write)
    return found


def test_addresses() -> None:
    found = [
        address_of(side, x) for side in Side for x in range(MAX_DEVICES)
    ]
    assert found[0] == "0000:01:00.1"
    assert found[MAX_DEVICES - 1] == "0000:01:01.0"
    assert found[MAX_DEVICES] == "0000:02:00.1"
    assert len(set(found)) == len(found)


def test_functions_come_and_go(kernel: Kernel) -> None:
    with function_devices(Side.SOURCE, SPECS) as devices:
        names = [device.name for device in devices]
        assert names == ["0000:01:00.1", "0000:01:00.2"]
        assert kernel.told.index(
            "PCI/devices/0000:01:00.0/sriov_numvfs 2"
        ) < kernel.told.index("PCI/drivers_probe 0000:01:00.1")
        for name in names:
            assert f"PCI/devices/{name}/driver_override p2pvf" in kernel.told
        assert "CONFIGFS/0000:01:00.1/size_bytes 8192" in kernel.told
        log = kernel.root / "DEBUGFS" / names[0] / "log"
        log.parent.mkdir()
        log.write_bytes(b"a log")
        assert devices[0].log() == b"a log"
    assert kernel.told[-1] == "PCI/devices/0000:01:00.0/sriov_numvfs 0"
    assert list((kernel.root / "CONFIGFS").iterdir()) == []


def test_properties_of_a_function(kernel: Kernel) -> None:
    with function_devices(Side.DESTINATION, SPECS[:1]) as (device,):
        assert device.qemu_properties == {
            "host": "0000:02:00.1",
            "enable-migration": "on",
            "x-no-mmap": "on",
            "x-pre-copy-dirty-page-tracking": "off",
        }


def test_what_is_needed_is_what_hosts_need() -> None:
    """The VM has no drivers.toml, and so its own copy of the values."""
    needed = find_driver(p2pvf.DRIVER).properties_with("tcg")
    assert {name: x.value for name, x in needed.items()} == (
        p2pvf.PROPERTIES
    )


@pytest.mark.parametrize("side", Side)
def test_faults_have_a_side(kernel: Kernel, side: Side) -> None:
    spec = Device(
        faults=("arc RUNNING PRE_COPY 1 late 1",), fault_side=Side.SOURCE
    )
    with function_devices(side, (spec,)):
        pass
    found = [x for x in kernel.told if "/faults " in x]
    assert len(found) == (side is Side.SOURCE)


def test_a_function_that_is_refused(kernel: Kernel) -> None:
    kernel.refuses = "0000:01:00.2/size_bytes"
    with (
        pytest.raises(HostError, match="refused"),
        function_devices(Side.SOURCE, SPECS),
    ):
        pytest.fail("there is only one")
    assert kernel.told[-1] == "PCI/devices/0000:01:00.0/sriov_numvfs 0"
    assert list((kernel.root / "CONFIGFS").iterdir()) == []


def test_a_function_that_is_not_bound(kernel: Kernel) -> None:
    kernel.unbound = {"0000:01:00.2"}
    with (
        pytest.raises(HostError, match=r"did not bind 0000:01:00\.2"),
        function_devices(Side.SOURCE, SPECS),
    ):
        pytest.fail("there is only one")


def test_no_controller(kernel: Kernel) -> None:
    (kernel.root / "PCI/devices/0000:01:00.0").rmdir()
    with (
        pytest.raises(HostError, match=r"no PCI device 0000:01:00\.0"),
        function_devices(Side.SOURCE, SPECS),
    ):
        pytest.fail("there is none")


def test_as_many_functions_as_there_are() -> None:
    arguments = " ".join(sealed_arguments(1, Driver.P2PVF, VmKernel.DEBIAN))
    assert arguments.count(f"sriov_max_vfs={MAX_DEVICES},") == 2
    asked = Scenario(name="x", devices=(Device(count=MAX_DEVICES),))
    assert adapt(asked).devices == asked.devices
    more = Scenario(name="x", devices=(Device(count=MAX_DEVICES + 1),))
    with pytest.raises(UsageError, match="each side has 8"):
        adapt(more)


def test_other_drivers_have_no_such_hardware() -> None:
    for driver in (Driver.P2PSIM, Driver.MTTY):
        arguments = " ".join(sealed_arguments(1, driver, VmKernel.DEBIAN))
        assert "nvme" not in arguments
        assert "iommu" not in arguments


def test_expectations_name_the_functions() -> None:
    text = b"""
name = "x"
[[devices]]
[expect.patched]
outcome = "refused"
message = "src0: no"
"""
    adapted = adapt(*parse(text, "x.toml"))
    assert adapted.expect.patched.message == "0000:01:00.1: no"
    assert adapted.name == "x-p2pvf"


def test_latencies_and_limits_stay() -> None:
    adapted = adapt(load("four-devices"))
    assert adapted.devices == load("four-devices").devices
    assert adapted.migration.parameters["downtime-limit"] == 20000
    own = load("short-downtime-limit")
    assert adapt(own).migration.parameters["downtime-limit"] == 50


def test_a_long_name_is_still_one() -> None:
    adapted = adapt(Scenario(name="x" * 63, devices=(Device(),)))
    assert from_json(adapted.to_json()) == adapted
    assert adapted.name.endswith("-p2pvf")


@pytest.mark.parametrize(
    ("scenario", "why"),
    [
        ("two-devices-with-heartbeat", "beats"),
        ("two-devices-with-traffic", "send to one another"),
    ],
)
def test_what_p2pvf_cannot_do_is_bad_input(
    scenario: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop = FakeWorkshop()
    assert main(["run", "--device", "p2pvf", scenario], workshop) == 2
    assert why in capsys.readouterr().err
    assert workshop.built == []
