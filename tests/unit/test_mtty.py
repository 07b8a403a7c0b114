# SPDX-License-Identifier: GPL-2.0-or-later
"""The witness mtty: its devices, and the scenarios that it can play."""

from __future__ import annotations

import uuid
from pathlib import Path

import msgspec
import pytest
from vfio_p2p.cli import main
from vfio_p2p.devices import mtty
from vfio_p2p.devices.mtty import mtty_devices
from vfio_p2p.devices.mtty_limits import adapt, check_qemu
from vfio_p2p.errors import HostError, SourceError, UsageError
from vfio_p2p.scenario.load import load, parse
from vfio_p2p.scenario.model import Device, Scenario, from_json
from workshops import FakeWorkshop

SPECS = (Device(), Device())


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests to the kernel, which has no device "00000078-...2"."""
    said: list[str] = []

    def write(path: Path, text: str) -> int:
        said.append(f"{path.relative_to(tmp_path)} {text}")
        if text.endswith("2"):
            raise OSError(28, "No space left on device")
        return len(text)

    monkeypatch.setattr(mtty, "TYPE", tmp_path / "mtty-2")
    monkeypatch.setattr(mtty, "DEVICES", tmp_path / "devices")
    monkeypatch.setattr(Path, "write_text", write)
    return said


def test_devices_come_and_go(told: list[str]) -> None:
    with mtty_devices("x", SPECS) as devices:
        names = [device.name for device in devices]
        assert told == [f"mtty-2/create {name}" for name in names]
        told.clear()
    assert told == [f"devices/{name}/remove 1" for name in reversed(names)]


def test_names_are_fixed_uuids(told: list[str]) -> None:
    with mtty_devices("src", SPECS) as one, mtty_devices("dst", SPECS) as two:
        names = [device.name for device in (*one, *two)]
    assert len(set(names)) == 4
    # The kernel and QEMU take no other spelling.
    assert names == [str(uuid.UUID(name)) for name in names]
    assert names[1] == "00737263-0000-4000-8000-000000000001"


def test_what_qemu_is_told(told: list[str]) -> None:
    with mtty_devices("x", SPECS) as (device, _):
        assert device.qemu_properties == {
            "sysfsdev": f"{mtty.DEVICES}/{device.name}",
            "enable-migration": "on",
            "x-device-dirty-page-tracking": "off",
        }
        assert device.log() == b""


def test_device_that_is_refused_takes_the_others_along(
    told: list[str],
) -> None:
    specs = (Device(),) * 3
    with pytest.raises(HostError) as caught, mtty_devices("x", specs):
        pytest.fail("there are only two")
    assert "No space left" in caught.value.what
    assert [x.rpartition("/")[2] for x in told[3:]] == ["remove 1"] * 3


def test_devices_go_when_the_run_fails(told: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt), mtty_devices("x", SPECS):
        raise KeyboardInterrupt
    assert [x.rpartition("/")[2] for x in told[2:]] == ["remove 1"] * 2


def test_only_the_timing_is_left_out() -> None:
    asked = load("four-devices")
    adapted = adapt(asked)
    assert adapted.name == "four-devices-mtty"
    assert "without latency_us" in adapted.summary
    assert asked.devices[0].latency_us
    assert adapted.devices == (Device(count=4),)
    assert adapted.expect == asked.expect
    assert adapted.migration == asked.migration
    assert adapted.digest != asked.digest


def test_nothing_is_left_out() -> None:
    scenario = load("one-device-cancelled")
    adapted = adapt(scenario)
    assert adapted.steps == scenario.steps
    assert "without" not in adapted.summary


def test_a_long_name_is_still_one() -> None:
    scenario = Scenario(name="x" * 63, devices=(Device(),))
    adapted = adapt(scenario)
    assert from_json(adapted.to_json()) == adapted
    assert adapted.name.endswith("-mtty")


@pytest.mark.parametrize(
    "line",
    [
        'flags = ["stop_copy", "pre_copy"]',
        "size_bytes = 8192",
        "initial_bytes = 0",
        "dirty_bytes = 1",
        "dma_logging = true",
    ],
)
def test_what_mtty_cannot_do(line: str) -> None:
    text = f'name = "x"\n[[devices]]\n[[devices]]\n{line}\n'
    with pytest.raises(UsageError) as caught:
        adapt(*parse(text.encode(), "x.toml"))
    assert f"devices[1].{line.partition(' ')[0]} " in caught.value.what


def test_every_key_of_a_device_is_thought_of() -> None:
    # A new key is refused until mtty is known to support it.
    granted = {"count", "root_port", "profile", "latency_us"}
    assert granted < {x.name for x in msgspec.structs.fields(Device)}
    scenario = load("one-device")
    device = Device(
        count=2,
        root_port=True,
        profile="cx7",
        latency_us={"RUNNING>STOP": 1},
    )
    assert adapt(
        msgspec.structs.replace(scenario, devices=(device,))
    ).devices == (Device(count=2, root_port=True),)


def test_as_many_as_there_are_ports() -> None:
    six = Scenario(name="six", devices=(Device(count=4), Device(count=2)))
    assert adapt(six).devices == six.devices
    seven = Scenario(name="seven", devices=(Device(count=4),) + SPECS * 2)
    with pytest.raises(UsageError, match=r"devices\.count"):
        adapt(seven)


@pytest.mark.parametrize("version", ["8.1.0", "8.2.10", "9.0.4"])
def test_qemu_that_is_too_old(version: str) -> None:
    with pytest.raises(SourceError, match="cannot migrate"):
        check_qemu(version)


@pytest.mark.parametrize("version", ["9.1.0", "10.0.13", "11.0.50"])
def test_qemu_that_is_new_enough(version: str) -> None:
    check_qemu(version)


@pytest.mark.parametrize("command", ["run", "validate"])
def test_what_mtty_cannot_do_is_bad_input(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = ["mixed-devices"]
    if command == "validate":
        scenario.insert(0, "--scenario")
    workshop = FakeWorkshop()
    words = [command, "--device", "mtty", *scenario]
    assert main(words, workshop) == 2
    assert "devices[1].flags" in capsys.readouterr().err
    assert workshop.built == []


@pytest.mark.parametrize(
    "option", ["--mutants", "--followups", "--per-patch"]
)
def test_what_is_judged_with_p2psim_only(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop = FakeWorkshop()
    words = ["validate", "--device", "mtty", option]
    assert main(words, workshop) == 2
    assert "p2psim" in capsys.readouterr().err
    assert workshop.built == []
