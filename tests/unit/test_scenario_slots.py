# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that come and go, files, and TLS, in scenario files."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from vfio_p2p.errors import ScenarioError
from vfio_p2p.scenario.argv import Launcher, qemu_argv
from vfio_p2p.scenario.load import load, parse
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.step import Incoming, Migrate, Plug, Through, Unplug

HEAD = """\
name = "x"
devices = [{}, {root_port = true}, {root_port = true}]
"""
FILE = '{do = "migrate", through = "file"}'
WRITTEN = f'{FILE}, {{do = "wait", status = "completed"}}'


def scenario(steps: str, more: str = "") -> Scenario:
    (found,) = parse(f"{HEAD}steps = [{steps}]\n{more}".encode(), "x.toml")
    return found


def argv(found: Scenario) -> list[str]:
    given = [{"sysfsdev": f"/sys/{x}"} for x in range(3)]
    launcher = Launcher(("qemu",), Path("/firmware"))
    return qemu_argv(launcher, found.course, "source", given, incoming=False)


def test_who_is_there() -> None:
    found = scenario(
        '{do = "unplug", device = 2}, {do = "plug", device = 1},'
        '{do = "unplug", device = 1}, {do = "migrate"}'
    )
    assert found.steps == (
        Unplug(device=2), Plug(device=1), Unplug(device=1), Migrate(),
    )  # fmt: skip
    assert found.starting() == (0, 2)
    assert [found.present(done) for done in range(4)] == [
        (0, 2), (0,), (0, 1), (0,),
    ]  # fmt: skip
    assert found.present() == (0,)
    assert found.slots() == {1, 2}


def test_a_plugged_device_comes_last() -> None:
    found = scenario('{do = "plug", device = 1}, {do = "migrate"}')
    assert found.present() == (0, 2, 1)


def test_a_device_that_is_plugged_is_not_there_at_the_start() -> None:
    words = argv(scenario('{do = "plug", device = 1}, {do = "migrate"}'))
    devices = [x for x in words if x.startswith(("vfio", "pcie"))]
    assert devices == [
        "vfio-pci,id=vfio0,sysfsdev=/sys/0",
        "pcie-root-port,id=port1,chassis=1",
        "pcie-root-port,id=port2,chassis=2",
        "vfio-pci,id=vfio2,bus=port2,sysfsdev=/sys/2",
    ]


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ('{do = "plug", device = 0}', "no device 0 with a root_port"),
        ('{do = "plug", device = 3}', "no device 3 with a root_port"),
        (
            '{do = "plug", device = 1}, {do = "plug", device = 1}',
            "step 2: device 1 was there before",
        ),
        (
            '{do = "unplug", device = 1}, {do = "plug", device = 1}',
            "step 2: device 1 was there before",
        ),
        (
            '{do = "unplug", device = 1}, {do = "unplug", device = 1}',
            "step 2: device 1 is not there",
        ),
        (FILE, "the file that step 1 writes needs a step 'incoming'"),
        (f'{FILE}, {{do = "turn"}}', "the file that step 1 writes"),
        (f"{FILE}, {FILE}", "the file that step 1 writes"),
        ('{do = "migrate"}, {do = "incoming"}', "step 2 has no file to read"),
        (
            f'{WRITTEN}, {{do = "incoming"}}, {{do = "incoming"}}',
            "step 4 has no file to read",
        ),
        (f'{FILE}, {{do = "incoming"}}', "put a 'wait' for 'completed'"),
        (
            f'{WRITTEN}, {{do = "incoming"}}, {FILE}, {{do = "incoming"}}',
            "step 5 reads a file that may not be whole",
        ),
        (
            '{do = "migrate", through = "file", cut_bytes = 5}',
            "cut_bytes: only a connection can break",
        ),
        ('{do = "migrate", through = "pipe"}', "pipe"),
    ],
)
def test_steps_that_make_no_sense(steps: str, why: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(steps)
    assert why in caught.value.what


@pytest.mark.parametrize("end", ["cancel", "kill", "incoming"])
def test_a_file_that_nobody_need_read_anymore(end: str) -> None:
    found = scenario(f'{WRITTEN}, {{do = "{end}"}}, {{do = "migrate"}}')
    assert found.steps[0] == Migrate(through=Through.FILE)
    assert [found.through_file(x) for x in (1, 3, 4)] == [True, False, False]
    assert str(found.steps[0]) == "migrate file"


def test_nothing_new_is_written_where_nothing_new_is_said() -> None:
    plain = load("two-devices").to_json()
    for word in (b"through", b"tls", b"only_migratable", b"witness"):
        assert word not in plain
    said = load("file-two-devices").to_json()
    assert b'"through": "file"' in said
    assert msgspec.json.decode(said, type=Scenario).steps[2] == Incoming()
    assert b'"tls": "psk"' in load("tls-multifd").to_json()


def test_only_migratable() -> None:
    migrate = '{do = "migrate"}'
    found = scenario(migrate, "[guest]\nonly_migratable = true\n")
    assert "-only-migratable" in argv(found)
    assert "-only-migratable" not in argv(scenario(migrate))
    assert b"only_migratable" in found.to_json()


def test_a_witness() -> None:
    found = load("two-devices-with-witness")
    given = [{"sysfsdev": f"/sys/{x}"} for x in range(2)]
    launcher = Launcher(("qemu",), Path("/firmware"))
    words = qemu_argv(
        launcher, found.course, "source", given, incoming=False
    )
    assert words[-4:] == [
        "-device", "virtio-serial-pci", "-trace", "virtio_set_status*",
    ]  # fmt: skip


def test_firmware_does_not_leave_a_witness_alone() -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario("", "[guest]\nwitness = true\n")
    assert "needs the program 'heartbeat'" in caught.value.what
