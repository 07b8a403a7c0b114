# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of a scenario, one kind after another."""

from __future__ import annotations

import itertools
import json
import signal

import msgspec
import pytest
from bench import (
    DESTINATION,
    SCENARIO,
    SIDES,
    SOURCE,
    Bench,
)
from vfio_p2p.scenario.model import (
    Device,
    Expect,
    Expectation,
    Guest,
    Limits,
    Outcome,
    Scenario,
)
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.step import (
    PLAIN,
    Cancel,
    Cont,
    Continue,
    Kill,
    LoadVM,
    Migrate,
    Reset,
    SaveVM,
    Status,
    Step,
    Stop,
    Turn,
    Unplug,
    Wait,
)
from vfio_p2p.side import Side

ANY = Expect(
    base=Expectation(outcome=Outcome.IDLE),
    patched=Expectation(outcome=Outcome.IDLE),
)


def steps(*wanted: Step) -> Scenario:
    """Return a scenario of these steps, with any outcome."""
    return msgspec.structs.replace(SCENARIO, steps=wanted, expect=ANY)


CANCEL = steps(
    Migrate(),
    Wait(status=Status.ACTIVE),
    Cancel(),
    Wait(status=Status.CANCELLED),
)
DEST = Side.DESTINATION
ACTIVE = {"active": [["skip"]]}


async def test_cancelled_migration(bench: Bench) -> None:
    found = await bench.run(scenario=CANCEL, source=ACTIVE)
    assert found == Result(
        outcome=Outcome.CANCELLED,
        done=4,
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


@pytest.mark.parametrize("point", ["active", "migrate_cancel", "cleanup"])
async def test_source_dies_when_cancelled(bench: Bench, point: str) -> None:
    found = await bench.run(
        scenario=CANCEL, source={**ACTIVE, point: [["signal", 11]]}
    )
    assert found.outcome is Outcome.CRASHED
    assert found.exit_states[SOURCE] == -signal.SIGSEGV


async def test_destination_stays_when_cancelled(bench: Bench) -> None:
    found = await bench.run(
        Limits(quit_s=1),
        CANCEL,
        source=ACTIVE,
        destination={"incoming": [["hang"]]},
    )
    assert found.outcome is Outcome.TIMEOUT
    assert found.side == DESTINATION
    assert found.step == "exit after the migration"


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


async def test_no_step_at_all(bench: Bench) -> None:
    found = await bench.run(scenario=steps())
    assert found == Result(
        outcome=Outcome.IDLE,
        done=0,
        exit_states={SOURCE: 0, DESTINATION: 0},
        guest={SOURCE: "running", DESTINATION: "inmigrate"},
        migration={SOURCE: (), DESTINATION: ()},
    )


async def test_stopped_and_continued(bench: Bench) -> None:
    found = await bench.run(
        scenario=steps(Stop(), Cont(), Stop(), *PLAIN, Cont(on=DEST))
    )
    assert found.outcome is Outcome.MIGRATED
    assert bench.sent(SOURCE)[2:6] == ["stop", "cont", "stop", "migrate"]
    assert bench.sent(DESTINATION)[-3:] == ["cont", "query-status", "quit"]


async def test_reset(bench: Bench) -> None:
    found = await bench.run(scenario=steps(Stop(), Reset(), *PLAIN))
    assert found.outcome is Outcome.MIGRATED
    assert bench.sent(SOURCE)[2:5] == ["stop", "system_reset", "migrate"]


async def test_reset_that_does_not_come(bench: Bench) -> None:
    found = await bench.run(
        Limits(settle_s=1), steps(Reset()), source={"reset": [["skip"]]}
    )
    assert found.outcome is Outcome.TIMEOUT
    assert (found.side, found.step) == (SOURCE, "reset")


async def test_how_the_guests_are_in_the_end(bench: Bench) -> None:
    found = await bench.run(scenario=steps(Stop()))
    assert found.guest == {SOURCE: "paused", DESTINATION: "inmigrate"}


async def test_step_that_fails_leaves_what_is_known(bench: Bench) -> None:
    found = await bench.run(
        scenario=steps(Stop(), Migrate()),
        source={"migrate": [["error", "no"]]},
    )
    assert found.outcome is Outcome.REJECTED
    assert found.at == "step 2 (migrate)"
    assert found.guest == {SOURCE: "paused", DESTINATION: "inmigrate"}
    assert found.legs == ()


@pytest.mark.parametrize("hangs", ["stop", "cont"])
async def test_step_that_hangs(bench: Bench, hangs: str) -> None:
    found = await bench.run(
        Limits(command_s=1, quit_s=1),
        steps(Stop(), Cont()),
        source={hangs: [["hang"]]},
    )
    assert found.outcome is Outcome.TIMEOUT
    assert (found.side, found.step) == (SOURCE, hangs)
    number = 1 if hangs == "stop" else 2
    assert found.at == f"step {number} ({hangs} source)"


async def test_goes_on_when_it_is_told_to(bench: Bench) -> None:
    found = await bench.run(
        scenario=steps(
            Migrate(), Wait(status=Status.ACTIVE), Continue(), PLAIN[1]
        ),
        source=ACTIVE,
    )
    assert found.outcome is Outcome.MIGRATED
    assert "migrate-continue" in bench.sent(SOURCE)


async def test_destination_is_killed(bench: Bench) -> None:
    found = await bench.run(
        scenario=steps(
            Migrate(),
            Wait(on=DEST, status=Status.ACTIVE),
            Kill(on=DEST),
            Wait(status=Status.FAILED),
        ),
        source=ACTIVE,
    )
    assert found.outcome is Outcome.FAILED
    assert found.message == "source: migration failed: Broken pipe"
    assert found.killed == (DESTINATION,)
    assert found.exit_states == {SOURCE: 0, DESTINATION: -signal.SIGKILL}
    assert found.at == ""


async def test_destination_is_killed_when_it_is_done(bench: Bench) -> None:
    found = await bench.run(
        scenario=steps(
            Migrate(),
            Wait(on=DEST, status=Status.COMPLETED),
            Kill(on=DEST),
            Wait(status=Status.COMPLETED),
        )
    )
    assert found.outcome is Outcome.MIGRATED
    assert found.killed == (DESTINATION,)


async def test_destination_is_killed_and_nobody_notices(
    bench: Bench,
) -> None:
    found = await bench.run(
        scenario=steps(
            Migrate(),
            Wait(on=DEST, status=Status.ACTIVE),
            Kill(on=DEST),
            Wait(status=Status.COMPLETED),
        ),
        destination={"load": [["skip"]]},
    )
    assert found.outcome is Outcome.MIGRATED
    assert found.migration[DESTINATION] == ("active",)


async def test_source_is_killed_before_it_connects(bench: Bench) -> None:
    returned = '{"return": {}, "id": "ID"}\r\n'
    found = await bench.run(
        Limits(quit_s=1),
        steps(Migrate(), Kill()),
        source={"migrate": [["send", returned], ["hang"]]},
    )
    assert found.outcome is Outcome.FAILED
    assert found.exit_states == {SOURCE: -signal.SIGKILL, DESTINATION: 0}


async def test_source_is_killed(bench: Bench) -> None:
    found = await bench.run(
        scenario=steps(Migrate(), Wait(status=Status.ACTIVE), Kill()),
        source=ACTIVE,
    )
    assert found.outcome is Outcome.FAILED
    assert found.message == "source: migration active: killed"
    assert found.exit_states == {SOURCE: -signal.SIGKILL, DESTINATION: 1}


@pytest.mark.parametrize("step", [Stop(), Kill(), Migrate(), Turn()])
async def test_step_for_one_that_was_killed(
    bench: Bench, step: Step
) -> None:
    found = await bench.run(scenario=steps(Kill(), step))
    assert found.killed[0] == SOURCE
    if step != Kill():
        assert found.outcome is Outcome.LOST
        assert found.side == SOURCE


async def test_migration_is_tried_again(bench: Bench) -> None:
    found = await bench.run(
        scenario=steps(*CANCEL.steps, Migrate(), Continue(), PLAIN[1]),
        source=ACTIVE,
    )
    assert found.outcome is Outcome.MIGRATED
    assert found.legs == ((SOURCE, DESTINATION), (SOURCE, "destination-2"))
    assert found.exit_states == {
        SOURCE: 0, DESTINATION: 1, "destination-2": 0,
    }
    assert found.migration[SOURCE][-4:] == (
        "cancelled", "setup", "active", "completed",
    )


async def test_second_cleanup_is_waited_for(bench: Bench) -> None:
    found = await bench.run(
        Limits(settle_s=1),
        steps(*CANCEL.steps, Migrate(), Continue(), PLAIN[1]),
        source={**ACTIVE, "cleanup 2": [["skip"]]},
    )
    assert found.outcome is Outcome.TIMEOUT
    assert found.step == "cleanup of the migration"


async def test_to_and_fro(bench: Bench) -> None:
    found = await bench.run(
        scenario=steps(*PLAIN, Turn(), *PLAIN, Turn(), *PLAIN)
    )
    assert found.outcome is Outcome.MIGRATED
    names = [SOURCE, DESTINATION, "source-2", "destination-2"]
    assert found.legs == tuple(itertools.pairwise(names))
    assert found.exit_states == dict.fromkeys(names, 0)
    assert found.guest == {
        **dict.fromkeys(names[:3], "postmigrate"), names[3]: "running",
    }
    for name in names:
        argv = json.loads((bench.folder / f"{name}.argv").read_text())
        assert ("-incoming" in argv) == (name != SOURCE)


async def test_third_one_does_not_start(bench: Bench) -> None:
    found = await bench.run(
        scenario=steps(*PLAIN, Turn(), *PLAIN),
        source_2={"start": [["say", "no"], ["exit", 1]]},
    )
    assert found.outcome is Outcome.REFUSED
    assert (found.side, found.at) == ("source-2", "step 3 (turn)")


JOBS = [
    "blockdev-create", "query-jobs", "job-dismiss", "blockdev-add",
    "blockdev-create", "query-jobs", "job-dismiss", "blockdev-add",
    "snapshot-save", "query-jobs", "job-dismiss",
    "snapshot-save", "query-jobs", "job-dismiss",
    "snapshot-load", "query-jobs", "job-dismiss",
]  # fmt: skip


async def test_saved_and_loaded(bench: Bench) -> None:
    found = await bench.run(scenario=steps(SaveVM(), SaveVM(), LoadVM()))
    assert found.outcome is Outcome.IDLE
    assert bench.sent(SOURCE)[2:-2] == JOBS


async def test_job_that_fails(bench: Bench) -> None:
    found = await bench.run(
        scenario=steps(SaveVM()), source={"concluded": [["fail", "no room"]]}
    )
    assert found.outcome is Outcome.REJECTED
    assert found.message == "source: blockdev-create: no room"


async def test_job_that_hangs(bench: Bench) -> None:
    found = await bench.run(
        Limits(command_s=1),
        steps(SaveVM()),
        source={"concluded": [["skip"]]},
    )
    assert found.outcome is Outcome.TIMEOUT
    assert (found.side, found.step) == (SOURCE, "blockdev-create")


@pytest.mark.parametrize("text", ["migration_realize", "never"])
async def test_wait_for_a_line(bench: Bench, text: str) -> None:
    found = await bench.run(
        Limits(migrate_s=1), steps(Wait(on=DEST, trace=text))
    )
    if text == "never":
        assert found.outcome is Outcome.TIMEOUT
        assert (found.side, found.step) == (DESTINATION, "trace")
        assert found.at == "step 1 (wait destination never)"
    else:
        assert found.outcome is Outcome.IDLE


async def test_stream_that_is_cut(bench: Bench) -> None:
    found = await bench.run(
        scenario=steps(Migrate(cut_bytes=0), Wait(status=Status.FAILED)),
        source=ACTIVE,
    )
    assert found.outcome is Outcome.FAILED
    assert found.exit_states == {SOURCE: 0, DESTINATION: 1}


async def test_stream_that_is_not_cut(bench: Bench) -> None:
    found = await bench.run(scenario=steps(Migrate(cut_bytes=6), PLAIN[1]))
    assert found.outcome is Outcome.MIGRATED


async def test_told_before_the_first_migration(bench: Bench) -> None:
    pids = []
    found = await bench.run(
        scenario=steps(*PLAIN, Turn(), *PLAIN),
        before_migration=lambda: pids.append(set(bench.pids())),
    )
    assert found.outcome is Outcome.MIGRATED
    assert pids == [set(SIDES)]


async def test_never_told_without_a_migration(bench: Bench) -> None:
    def told() -> None:
        pytest.fail("there is none")

    await bench.run(scenario=steps(Stop()), before_migration=told)


async def test_started_as_paused(bench: Bench) -> None:
    paused = msgspec.structs.replace(SCENARIO, guest=Guest(paused=True))
    await bench.run(scenario=paused)
    for side in SIDES:
        argv = json.loads((bench.folder / f"{side}.argv").read_text())
        assert ("-S" in argv) == (side == SOURCE)


@pytest.mark.usefixtures("impatient")
async def test_hang_leaves_the_others_as_they_were(bench: Bench) -> None:
    found = await bench.run(
        Limits(migrate_s=2, quit_s=1),
        source={"active": [["skip"]], "noticed": [["skip"]]},
        destination={"incoming": [["hang"]]},
    )
    assert found.outcome is Outcome.TIMEOUT
    assert found.mute == (DESTINATION,)
    # If the source quit, its last state could not be checked.
    assert found.guest == {SOURCE: "running"}
    assert found.exit_states == {SOURCE: None, DESTINATION: None}
