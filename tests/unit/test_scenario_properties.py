# SPDX-License-Identifier: GPL-2.0-or-later
"""The properties of QEMU's vfio-pci that a scenario asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from vfio_p2p.errors import ScenarioError
from vfio_p2p.scenario.argv import Launcher, qemu_argv
from vfio_p2p.scenario.load import load, parse
from vfio_p2p.scenario.model import from_json

GOOD = """\
name = "two"

[[devices]]
count = 2

"""


def test_properties_of_functions() -> None:
    text = '[properties]\nx-no-mmap = "off"\n'
    (found,) = parse((GOOD + text).encode(), "x.toml")
    assert found.properties == {"x-no-mmap": "off"}
    assert from_json(found.to_json()) == found
    (plain,) = parse(GOOD.encode(), "x.toml")
    assert found.digest != plain.digest
    # The runner in the VM gives them to QEMU.
    assert found.course.properties == found.properties
    assert b"properties" not in plain.course.to_json()


def test_properties_add_nothing_where_there_are_none() -> None:
    """A new key would change all digests, and make kept results useless."""
    assert load("one-device").digest == (
        "c1284c830714ed6c20a4bafdc1aa5235ff56fb093459419e60ab4abc40f01623"
    )
    assert b"properties" not in load("one-device").to_json()
    assert from_json(load("one-device").to_json()) == load("one-device")


@pytest.mark.parametrize(
    "line",
    [
        'x-no-mmap = "off,host=0000:01:00.0"',
        '"x-no-mmap=on,x" = "off"',
        'x-no-mmap = ""',
        'x-no-mmap = "a\\n"',
        "x-no-mmap = false",
    ],
)
def test_bad_properties(line: str) -> None:
    text = f"{GOOD}[properties]\n{line}\n"
    with pytest.raises(ScenarioError, match="properties") as caught:
        parse(text.encode(), "x.toml")
    assert caught.value.exit_code == 2


def test_who_has_the_last_word() -> None:
    """First the place, then the scenario, then its single devices."""
    text = """\
name = "three"

[[devices]]
count = 2

[[devices]]
properties = {enable-migration = "auto", x-no-mmap = "off"}

[properties]
enable-migration = "off"
migration-events = "on"
"""
    (found,) = parse(text.encode(), "x.toml")
    given = [
        {"sysfsdev": f"/{x}", "enable-migration": "on"} for x in "abc"
    ]
    launcher = Launcher(("qemu",), Path("/firmware"))
    argv = qemu_argv(
        launcher, found.course, "source", given, incoming=False
    )
    made = [x for x in argv if x.startswith("vfio-pci,")]
    assert made == [
        "vfio-pci,id=vfio0,sysfsdev=/a,enable-migration=off,"
        "migration-events=on",
        "vfio-pci,id=vfio1,sysfsdev=/b,enable-migration=off,"
        "migration-events=on",
        "vfio-pci,id=vfio2,sysfsdev=/c,enable-migration=auto,"
        "migration-events=on,x-no-mmap=off",
    ]


@pytest.mark.parametrize("name", ["host", "sysfsdev", "id", "bus", "addr"])
@pytest.mark.parametrize("table", ["[properties]", "[devices.properties]"])
def test_which_device_it_is(name: str, table: str) -> None:
    text = f'{GOOD}{table}\n{name} = "0000:01:00.0"\n'
    with pytest.raises(ScenarioError, match=name) as caught:
        parse(text.encode(), "x.toml")
    assert caught.value.line == 6
    assert "which device" in str(caught.value)


def test_machine_and_globals() -> None:
    text = """
[guest]
machine = "pc-q35-10.0"

[globals]
"migration.switchover-ack-legacy" = "on"
"""
    (found,) = parse((GOOD + text).encode(), "x.toml")
    launcher = Launcher(("qemu",), Path("/firmware"))
    argv = qemu_argv(launcher, found.course, "x", [{}, {}], incoming=True)
    # One machine, whatever QEMU was built with.
    assert "pc-q35-10.0,hpet=off,vmport=off,accel=tcg" in argv
    number = argv.index("migration.switchover-ack-legacy=on")
    assert argv[number - 1] == "-global"
