# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations that are begun in QEMUs that somebody else started."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from vfio_p2p.attach.drive import Drive, driving
from vfio_p2p.attach.process import Log, Process
from vfio_p2p.attach.qemu import AttachedQemu
from vfio_p2p.attach.target import parse_target
from vfio_p2p.cli import main
from vfio_p2p.cli.migrate import _capability, _parameter
from vfio_p2p.errors import CommandError, UsageError
from vfio_p2p.machine.host import Host
from vfio_p2p.scenario.course import Migration
from vfio_p2p.side import Side


class Told:
    """A monitor that notes what it is told."""

    name = "source"
    closed = False

    def __init__(self, status: str = "active", refuses: str = "") -> None:
        self.told: list[str] = []
        self._status = status
        self._refuses = refuses

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        limit_s: float = 0,
    ) -> Any:
        """Note a command."""
        self.told.append(command)
        if command == self._refuses:
            raise CommandError(self.name, "no such thing")
        return {"status": self._status} if command[0] == "q" else {}

    async def lost(self) -> None:
        """Never."""
        await asyncio.Event().wait()


def attached(
    incoming: str = "",
    monitor: Told | None = None,
    target: str = "/run/vm.sock",
    name: str = "source",
) -> AttachedQemu:
    process = Process(
        1, "qemu", "root", ["qemu"], 1, [], "", [], incoming, Log("", ""),
        True, [], True,
    )  # fmt: skip
    return AttachedQemu(
        name, cast(Host, None), parse_target(target), process, monitor, None,
        why="all its QMP monitors are taken",
    )  # fmt: skip


def begin(
    source: AttachedQemu,
    destination: AttachedQemu | None,
    wanted: Drive,
    error: Exception | None = None,
) -> None:
    async def go() -> None:
        qemus = {Side.SOURCE: source}
        if destination:
            qemus[Side.DESTINATION] = destination
        async with driving(qemus, wanted):
            if error:
                raise error

    asyncio.run(go())


def test_where_the_destination_listens() -> None:
    monitor = Told()
    begin(attached(monitor=monitor), attached("unix:/run/m"), Drive())
    assert monitor.told == ["migrate-set-capabilities", "migrate"]


def test_a_destination_that_has_to_be_told() -> None:
    there = Told()
    wanted = Drive("tcp:b:4444", Migration(parameters={"downtime-limit": 9}))
    begin(attached(monitor=Told()), attached("defer", there), wanted)
    # Parameters such as multifd count before QEMU listens.
    assert there.told == [
        "migrate-set-capabilities", "migrate-set-parameters",
        "migrate-incoming",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("incoming", "uri", "said"),
    [
        ("", "unix:/run/m", "does not wait for a migration"),
        ("defer", "", "has to be told where to listen"),
        ("tcp:0:4444", "", "may have another name"),
    ],
)
def test_no_address(incoming: str, uri: str, said: str) -> None:
    monitor = Told()
    with pytest.raises(UsageError, match=said):
        begin(
            attached(monitor=monitor), attached(incoming, Told()), Drive(uri)
        )
    # Nothing was changed.
    assert monitor.told == []


def test_no_destination() -> None:
    with pytest.raises(UsageError, match="where to migrate to"):
        begin(attached(monitor=Told()), None, Drive())


def test_no_monitor() -> None:
    with pytest.raises(UsageError, match="monitors are taken"):
        begin(attached(), None, Drive("unix:/run/m"))


def test_libvirt_migrates_its_domains() -> None:
    source = attached(monitor=Told(), target="domain:web1")
    with pytest.raises(UsageError, match="by libvirt") as caught:
        begin(source, None, Drive("unix:/run/m"))
    assert "virsh migrate" in caught.value.hint


def test_an_unknown_parameter() -> None:
    monitor = Told(refuses="migrate-set-parameters")
    wanted = Drive("unix:/run/m", Migration(parameters={"nosuch": 1}))
    with pytest.raises(UsageError, match="no such thing"):
        begin(attached(monitor=monitor), None, wanted)
    assert "migrate" not in monitor.told


@pytest.mark.parametrize(
    ("status", "cancelled"),
    [("active", True), ("pre-switchover", True), ("completed", False)],
)
def test_an_interruption(status: str, cancelled: bool) -> None:
    monitor = Told(status)
    with pytest.raises(KeyError):
        begin(attached(monitor=monitor), None, Drive("unix:/m"), KeyError())
    assert ("migrate_cancel" in monitor.told) is cancelled


def test_options() -> None:
    assert _capability("multifd") == ("multifd", True)
    assert _capability("multifd=off") == ("multifd", False)
    assert _parameter("downtime-limit=300") == ("downtime-limit", 300)
    assert _parameter("tls-creds=tls0") == ("tls-creds", "tls0")
    assert _parameter("cpu-throttle-tailslow=on")[1] is True
    for wrong in ("", "=on", "multifd=maybe"):
        with pytest.raises(argparse.ArgumentTypeError):
            _capability(wrong)
    for wrong in ("", "x", "=1"):
        with pytest.raises(argparse.ArgumentTypeError):
            _parameter(wrong)


def test_nothing_to_migrate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--uri", "unix:/run/m"]) == 2
    assert "not known what to migrate" in capsys.readouterr().err
