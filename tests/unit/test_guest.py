# SPDX-License-Identifier: GPL-2.0-or-later
"""The program that the guest can run."""

from __future__ import annotations

from pathlib import Path

import pytest
from vfio_p2p import resources
from vfio_p2p.errors import BuildError, ScenarioError
from vfio_p2p.places.sealed import image
from vfio_p2p.scenario.argv import HEARTBEAT, Launcher, qemu_argv
from vfio_p2p.scenario.load import load, parse
from vfio_p2p.scenario.model import GuestProgram, Scenario

SCENARIO = """
name = "x"
[[devices]]
root_port = {port}
[guest]
{guest}
"""


def scenario(guest: str, port: bool = False) -> Scenario:
    text = SCENARIO.format(guest=guest, port=str(port).lower())
    return parse(text.encode(), "x.toml")[0]


def options(what: Scenario, *, incoming: bool) -> dict[str, str]:
    """Return the options that choose the guest's program."""
    program = Launcher(("qemu",), Path("/firmware"))
    argv = qemu_argv(program, what, "x", [{"host": "p"}], incoming=incoming)
    return {
        argv[i]: argv[i + 1]
        for i, word in enumerate(argv)
        if word in ("-bios", "-fw_cfg")
    }


@pytest.mark.parametrize("incoming", [False, True])
def test_qemu_is_given_the_program(incoming: bool) -> None:
    asked = scenario(
        'program = "heartbeat"\nheartbeat_period_us = 2500\n'
        "dirty_pages_per_s = 70\ndirty_blocks_per_s = 9"
    )
    # Both sides need it: QEMU migrates the ROM, which must have its size.
    assert options(asked, incoming=incoming) == {
        "-bios": HEARTBEAT,
        "-fw_cfg": "name=opt/vfio-p2p/heartbeat,string=2500 70 9",
    }


def test_else_it_is_the_firmware() -> None:
    assert options(scenario(""), incoming=False) == {}
    assert scenario("").guest.program is GuestProgram.FIRMWARE


@pytest.mark.parametrize(
    ("guest", "why"),
    [
        ('program = "linux"', "linux"),
        ("dirty_pages_per_s = 1", "dirty_pages_per_s: only the program"),
        ("dirty_blocks_per_s = 1", "dirty_blocks_per_s: only the program"),
        ('program = "heartbeat"\nheartbeat_period_us = 100', ">= 200"),
        # 16 bits of the PIT's clock are 54925 us.
        ('program = "heartbeat"\nheartbeat_period_us = 50_001', "<= 50000"),
        ('program = "heartbeat"\ndirty_pages_per_s = 65_537', "<= 65536"),
        ('program = "heartbeat"\ndirty_blocks_per_s = 4_097', "<= 4096"),
    ],
)
def test_what_makes_no_sense(guest: str, why: str) -> None:
    with pytest.raises(ScenarioError, match=why):
        scenario(guest)


def test_no_device_behind_a_port() -> None:
    scenario("", port=True)
    with pytest.raises(ScenarioError, match="does not find devices behind"):
        scenario('program = "heartbeat"', port=True)


def test_what_the_guest_is_owed_fits() -> None:
    # The guest counts millionths of a page, or of a block, in 32 bits.
    most = scenario(
        'program = "heartbeat"\nheartbeat_period_us = 50_000\n'
        "dirty_pages_per_s = 65_536"
    ).guest
    owed = most.heartbeat_period_us * most.dirty_pages_per_s + 999_999
    assert owed < 1 << 32


@pytest.mark.parametrize(
    "name", ["one-device-with-heartbeat", "two-devices-with-heartbeat"]
)
def test_scenarios(name: str) -> None:
    plain = load(name.removesuffix("-with-heartbeat"))
    assert load(name).devices == plain.devices
    assert load(name).expect == plain.expect


def test_it_is_a_rom_and_always_the_same(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "another-folder"]
    for folder in folders:
        folder.mkdir()
    first, second = map(image.build_guest, folders)
    assert first == second
    # The processor begins at the end of the ROM, with a jump.
    assert len(first) == 1 << 16
    assert first[-16] in (0xE9, 0xEB)
    assert b"opt/vfio-p2p/heartbeat\0" in first
    assert [*tmp_path.glob("*/*")] == []


def test_its_sources_are_in_the_images_identity() -> None:
    made_of = {path.name for path in image._guest_sources()}
    folder = resources.images() / "guest"
    there = {path.name for path in folder.iterdir() if path.is_file()}
    assert made_of == there - {"README.md"}


def test_one_that_does_not_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "Makefile"
    broken.write_text("all:\n\t@echo no such thing; exit 3\n")
    monkeypatch.setattr(image, "_guest_sources", lambda: [broken])
    with pytest.raises(BuildError, match="make failed"):
        image.build_guest(tmp_path)
