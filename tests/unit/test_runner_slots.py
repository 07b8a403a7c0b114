# SPDX-License-Identifier: GPL-2.0-or-later
"""The runner with a fake QEMU: plugged devices, files, and TLS."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from bench import DESTINATION, SCENARIO, SOURCE, Bench
from vfio_p2p.scenario.course import Migration, Tls
from vfio_p2p.scenario.device import Device
from vfio_p2p.scenario.model import Limits, Outcome, Scenario
from vfio_p2p.scenario.step import (
    Incoming,
    Kill,
    Migrate,
    Plug,
    Status,
    Through,
    Turn,
    Unplug,
    Wait,
)
from vfio_p2p.side import Side

FILE = (
    Migrate(through=Through.FILE),
    Wait(status=Status.COMPLETED),
    Incoming(),
    Wait(status=Status.COMPLETED, on=Side.DESTINATION),
)


def scenario(*steps: Any, **changes: Any) -> Scenario:
    return msgspec.structs.replace(SCENARIO, steps=steps, **changes)


def asked(bench: Bench, name: str, command: str) -> list[dict[str, Any]]:
    """The arguments of each such command that a QEMU was sent."""
    lines = (bench.out / name / "qmp.jsonl").read_text().splitlines()
    sent = [json.loads(line)["msg"] for line in lines]
    return [x["arguments"] for x in sent if x.get("execute") == command]


async def test_a_file(bench: Bench) -> None:
    found = await bench.run(scenario=scenario(*FILE))
    assert found.outcome is Outcome.MIGRATED
    assert found.guest == {SOURCE: "postmigrate", DESTINATION: "running"}
    (there,) = asked(bench, SOURCE, "migrate")
    (back,) = asked(bench, DESTINATION, "migrate-incoming")
    assert there == back
    assert there["uri"].startswith("file:/")
    # Until the source has completed, the destination knows of nothing.
    source, destination = (
        (bench.out / x / "qmp.jsonl").read_text().splitlines()
        for x in (SOURCE, DESTINATION)
    )
    times = {
        word: json.loads(line)["time_ns"]
        for lines in (source, destination)
        for line in lines
        for word in ("completed", "migrate-incoming")
        if word in line and (lines is source) == (word == "completed")
    }
    assert times["completed"] < times["migrate-incoming"]


async def test_a_file_that_the_destination_refuses(bench: Bench) -> None:
    found = await bench.run(
        scenario=scenario(*FILE), destination={"load": [["fail", "no"]]}
    )
    assert found.outcome is Outcome.FAILED
    assert found.side == DESTINATION
    assert found.at == "step 4 (wait destination completed)"


async def test_a_file_that_nobody_has_read(bench: Bench) -> None:
    # A source that is done is not enough, as it is with a connection.
    steps = scenario(*FILE[:2], Kill(on=Side.DESTINATION))
    found = await bench.run(scenario=steps)
    assert found.outcome is Outcome.FAILED
    assert found.message == "destination: migration not begun"


async def test_nobody_waits_for_who_was_not_told(bench: Bench) -> None:
    # Such a destination has no reason to exit.
    steps = scenario(FILE[0], Wait(status=Status.FAILED), Kill())
    found = await bench.run(
        Limits(quit_s=2),
        scenario=steps, source={"active": [["fail", "full"]]},
    )  # fmt: skip
    assert found.outcome is Outcome.FAILED
    assert found.exit_states[DESTINATION] == 0


async def test_a_source_that_cannot_write_a_file(bench: Bench) -> None:
    found = await bench.run(
        scenario=scenario(*FILE), source={"active": [["fail", "full"]]}
    )
    assert found.outcome is Outcome.FAILED
    assert found.message == "source: migration failed: full"
    # The destination was not told of a file, and has no reason to exit.
    assert found.exit_states == {SOURCE: 0, DESTINATION: 0}


async def test_a_device_is_plugged_into_both(bench: Bench) -> None:
    steps = scenario(
        Plug(device=1),
        Migrate(),
        Wait(status=Status.COMPLETED),
        devices=(Device(), Device(root_port=True)),
        properties={"migration-events": "on", "x-pci-vendor-id": "5"},
    )
    found = await bench.run(scenario=steps)
    assert found.outcome is Outcome.MIGRATED
    for name in (SOURCE, DESTINATION):
        (added,) = asked(bench, name, "device_add")
        assert added["driver"] == "vfio-pci"
        assert (added["id"], added["bus"]) == ("vfio1", "port1")
        # QMP takes no text for these.
        assert added["migration-events"] is True
        assert added["x-pci-vendor-id"] == 5
        assert isinstance(added["sysfsdev"], str)


async def test_a_device_that_is_refused(bench: Bench) -> None:
    steps = scenario(
        Plug(device=1),
        Migrate(),
        devices=(Device(), Device(root_port=True)),
    )
    found = await bench.run(
        scenario=steps, source={"device_add": [["error", "not today"]]}
    )
    assert found.outcome is Outcome.REJECTED
    assert found.at == "step 1 (plug 1)"
    assert found.message == "source: device_add: not today"


async def test_a_fresh_qemu_gets_the_same_devices(bench: Bench) -> None:
    steps = scenario(
        Plug(device=1),
        Unplug(device=0),
        Migrate(),
        Wait(status=Status.COMPLETED),
        Turn(),
        devices=(Device(root_port=True), Device(root_port=True)),
    )
    found = await bench.run(scenario=steps)
    assert found.outcome is Outcome.MIGRATED
    (added,) = asked(bench, "source-2", "device_add")
    assert (added["id"], added["sysfsdev"]) == ("vfio1", "/b")
    assert asked(bench, "source-2", "device_del") == [{"id": "vfio0"}]


async def test_tls(bench: Bench) -> None:
    steps = scenario(
        *SCENARIO.steps, *SCENARIO.steps,
        migration=Migration(tls=Tls.PSK),
    )
    await bench.run(scenario=steps)
    (client,) = asked(bench, SOURCE, "object-add")
    (server,) = asked(bench, DESTINATION, "object-add")
    endpoints = client["endpoint"], server["endpoint"]
    assert endpoints == ("client", "server")
    assert client["dir"] == server["dir"]
    assert "username" in client
    # A server that is told a name refuses it.
    assert "username" not in server
    for name, role in ((SOURCE, "source"), (DESTINATION, "destination")):
        first = asked(bench, name, "migrate-set-parameters")[0]
        assert first == {"tls-creds": f"tls-{role}"}
