# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scenario adds to a plain migration: cancelling, unplugging."""

from __future__ import annotations

import json
import signal

import msgspec
import pytest
from bench import SCENARIO, Bench

from harness.scenario.model import (
    Device,
    Expect,
    Expectation,
    Limits,
    Outcome,
    Scenario,
)
from harness.scenario.result import Result
from harness.scenario.runner import DESTINATION, SIDES, SOURCE
from harness.scenario.step import (
    PLAIN,
    Cancel,
    Migrate,
    Status,
    Unplug,
    Wait,
)

CANCELLED = Expectation(outcome=Outcome.CANCELLED)
CANCEL = msgspec.structs.replace(
    SCENARIO,
    steps=(
        Migrate(),
        Wait(status=Status.ACTIVE),
        Cancel(),
        Wait(status=Status.CANCELLED),
    ),
    expect=Expect(base=CANCELLED, patched=CANCELLED),
)
ACTIVE = {"active": [["skip"]]}


async def test_cancelled_migration(bench: Bench) -> None:
    found = await bench.run(scenario=CANCEL, source=ACTIVE)
    assert found == Result(
        outcome=Outcome.CANCELLED,
        exit_states={SOURCE: 0, DESTINATION: 1},
        guest={SOURCE: "running"},
        migration={
            SOURCE: ("setup", "active", "cancelling", "cancelled"),
            DESTINATION: ("active",),
        },
        legs=((SOURCE, DESTINATION),),
    )


async def test_too_fast_to_be_cancelled(bench: Bench) -> None:
    found = await bench.run(scenario=CANCEL)
    assert found.outcome is Outcome.FAILED
    assert found.message == "source: migration completed: no reason"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("point", ["active", "migrate_cancel", "cleanup"])
async def test_source_dies_when_cancelled(bench: Bench, point: str) -> None:
    found = await bench.run(
        scenario=CANCEL, source={**ACTIVE, point: [["signal", 11]]}
    )
    assert found.outcome is Outcome.LOST
    assert found.exit_states[SOURCE] == -signal.SIGSEGV


async def test_destination_stays_when_cancelled(bench: Bench) -> None:
    found = await bench.run(
        Limits(quit_s=1),
        CANCEL,
        source=ACTIVE,
        destination={"incoming": [["hang"]]},
    )
    assert found.outcome is Outcome.TIMEOUT
    assert (found.side, found.step) == (DESTINATION, "exit after the migration")


UNPLUG = msgspec.structs.replace(
    SCENARIO,
    devices=(Device(), Device(root_port=True)),
    steps=(Unplug(device=1), *PLAIN),
)


async def test_unplugged_on_both_sides(bench: Bench) -> None:
    found = await bench.run(scenario=UNPLUG)
    assert found.outcome is Outcome.MIGRATED
    for side in SIDES:
        sent = (bench.out / side / "qmp.jsonl").read_text()
        assert sent.count('"device_del"') == 1
        assert sent.index('"vfio1"') < sent.index('"unix:')
        assert '"vfio0"' not in sent


async def test_device_that_cannot_be_unplugged(bench: Bench) -> None:
    found = await bench.run(
        scenario=UNPLUG, source={"device_del": [["error", "no hotplug"]]}
    )
    assert found.outcome is Outcome.REJECTED
    assert found.message == "source: device_del: no hotplug"


OTHER_DELETED = (
    '{"event": "DEVICE_DELETED", "data": {"device": "vfio0"},'
    ' "timestamp": {"seconds": 1, "microseconds": 0}}\r\n'
)


@pytest.mark.parametrize(
    "instead",
    [
        ["skip"],
        ["send", OTHER_DELETED],
    ],
    ids=lambda x: str(x[0]),
)
async def test_device_that_stays(bench: Bench, instead: list[str]) -> None:
    found = await bench.run(
        Limits(settle_s=1), UNPLUG, source={"deleted": [instead]}
    )
    assert found.outcome is Outcome.TIMEOUT
    assert (found.side, found.step) == (SOURCE, "unplug")


@pytest.mark.parametrize("scenario", [SCENARIO, UNPLUG])
async def test_only_what_is_unplugged_gets_a_port(
    bench: Bench, scenario: Scenario
) -> None:
    await bench.run(scenario=scenario)
    for side in SIDES:
        argv = json.loads((bench.folder / f"{side}.argv").read_text())
        devices = [x for x in argv if "vfio-pci" in x or "port" in x]
        if scenario is SCENARIO:
            assert devices == [
                "vfio-pci,id=vfio0,sysfsdev=/a",
                "vfio-pci,id=vfio1,sysfsdev=/b",
            ]
            continue
        assert devices == [
            "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
            "vfio-pci,id=vfio0,sysfsdev=/a",
            "pcie-root-port,id=port1,chassis=1",
            "vfio-pci,id=vfio1,bus=port1,addr=0.1,sysfsdev=/b",
        ]
