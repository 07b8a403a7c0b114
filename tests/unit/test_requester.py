# SPDX-License-Identifier: GPL-2.0-or-later
"""On whose behalf hosts are used."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import vfio_p2p
from vfio_p2p.devices.vf.drivers import find_driver
from vfio_p2p.errors import SkipError
from vfio_p2p.machine.host import HostSpec, open_host
from vfio_p2p.places.hosts.machine import Machine
from vfio_p2p.places.hosts.requester import requester

MODULE = str(Path(vfio_p2p.__file__).with_name("__main__.py"))


@pytest.mark.parametrize("program", ["/usr/bin/vfio-p2p", MODULE])
def test_a_command(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr("sys.argv", [program, "run", "x", "--at", "box"])
    monkeypatch.setenv("LOGNAME", "alice")
    machine = socket.gethostname()
    wanted = f"vfio-p2p run x --at box of alice on {machine}"
    assert requester() == wanted


def test_a_long_command_does_not_hide_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["vfio-p2p", "validate", *["-v"] * 99])
    monkeypatch.setenv("LOGNAME", "alice")
    told = requester()
    assert told.startswith("vfio-p2p validate -v -v")
    assert told.endswith(f"... of alice on {socket.gethostname()}")


def test_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/home/alice/nightly.py", "a\nb"])
    assert requester().startswith("nightly.py a")
    assert "\n" not in requester()


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert " of user " in requester()


async def test_the_holder_of_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs on this machine, with a card that it has."""
    cards = sorted(Path("/sys/bus/pci/devices").glob("*"))
    if not cards:
        pytest.skip("This machine has no PCI device.")
    monkeypatch.setattr("sys.argv", ["vfio-p2p", "run", "first"])
    async with open_host(HostSpec()) as host:
        machine = Machine("box", host, find_driver("mlx5"))
        async with machine.holding([cards[0].name]):
            with pytest.raises(SkipError, match="taken by vfio-p2p run first"):
                async with machine.holding([cards[0].name]):
                    pass
