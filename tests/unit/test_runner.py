# SPDX-License-Identifier: GPL-2.0-or-later
"""The runner with a fake QEMU that follows a plan.

Limits are a second only where a hang is the point, and then that step is
the first to which the limit applies.
"""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from bench import (
    DESTINATION,
    DEVICES,
    SCENARIO,
    SIDES,
    SOURCE,
    Bench,
    fakes,
    launchers,
)
from qemu_log import PREFIXES, prefix
from vfio_p2p.scenario import runner
from vfio_p2p.scenario.argv import Launcher
from vfio_p2p.scenario.model import Limits, Outcome
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.runner import run
from vfio_p2p.side import Side

RETURNED = '{"return": {}, "id": "ID"}\r\n'
REFUSAL = "Migration is currently not supported with multiple VFIO devices"


async def test_a_migration_that_works(bench: Bench) -> None:
    found = await bench.run()
    assert found == Result(
        outcome=Outcome.MIGRATED,
        done=2,
        exit_states={SOURCE: 0, DESTINATION: 0},
        guest={SOURCE: "postmigrate", DESTINATION: "running"},
        migration={
            SOURCE: ("setup", "active", "completed"),
            DESTINATION: ("active", "completed"),
        },
        legs=((SOURCE, DESTINATION),),
        qmp_downtime_ms=20,
        qmp_total_time_ms=300,
    )
    assert set(bench.pids()) == set(SIDES)
    for side in SIDES:
        left = {path.name for path in (bench.out / side).iterdir()}
        assert left == {"trace.log", "qmp.jsonl", "stderr.txt"}


async def test_something_before_migrate(bench: Bench) -> None:
    sent: dict[str, str] = {}

    def look() -> None:
        for side in SIDES:
            sent[side] = (bench.out / side / "qmp.jsonl").read_text()

    await bench.run(before_migration=look)
    for said in sent.values():
        assert '"execute": "migrate-set-capabilities"' in said
        assert '"execute": "migrate"' not in said


async def test_transcript_has_both_ways_in_order(bench: Bench) -> None:
    await bench.run()
    lines = (bench.out / SOURCE / "qmp.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    times = [entry["time_ns"] for entry in entries]
    assert times == sorted(times)
    assert "QMP" in entries[0]["msg"]
    assert entries[0]["dir"] == "<-"
    sent = [e["msg"]["execute"] for e in entries if e["dir"] == "->"]
    assert sent[:3] == ["qmp_capabilities", "migrate-set-capabilities",
                        "migrate"]
    assert sent[-1] == "quit"


async def test_downtime_that_is_late(bench: Bench) -> None:
    # QEMU 8.1 reports "completed" first, and then one figure after another.
    late = [
        {"status": "completed"},
        {"status": "completed", "downtime": 0},
        {"status": "completed", "downtime": 33, "total-time": 0},
        {"status": "completed", "downtime": 33, "total-time": 250},
    ]
    found = await bench.run(source={"answers": late})
    assert found.outcome is Outcome.MIGRATED
    assert found.qmp_downtime_ms == 33
    assert found.qmp_total_time_ms == 250


@pytest.mark.parametrize("side", SIDES)
async def test_refusal_to_start(bench: Bench, side: str) -> None:
    said = f"qemu: -device vfio-pci: warning\nqemu: {REFUSAL}"
    plan: dict[str, Any] = {side: {"start": [["say", said], ["exit", 1]]}}
    found = await bench.run(**plan)
    assert found.outcome is Outcome.REFUSED
    assert found.side == side
    assert found.message.endswith(f"QEMU did not start: qemu: {REFUSAL}")
    assert found.stderr == f"{said}\n"
    assert found.exit_states[side] == 1
    # The source starts first; if it fails, no destination is started.
    assert found.exit_states[SOURCE if side == DESTINATION else side] == (
        0 if side == DESTINATION else 1
    )
    assert set(bench.pids()) == (
        {SOURCE} if side == SOURCE else set(SIDES)
    )


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGABRT])
async def test_death_at_start(bench: Bench, signum: signal.Signals) -> None:
    found = await bench.run(source={"start": [["signal", signum]]})
    assert found.outcome is Outcome.REFUSED
    assert found.side == SOURCE
    assert found.exit_states == {SOURCE: -signum, DESTINATION: None}
    assert signum.name in found.message


async def test_no_such_program(bench: Bench) -> None:
    bench.out.mkdir()
    missing = launchers("/nonexistent/qemu")
    found = await run(SCENARIO, missing, DEVICES, bench.out)
    assert found.outcome is Outcome.REFUSED
    assert "/nonexistent/qemu: No such file" in found.message
    assert found.exit_states == {SOURCE: None, DESTINATION: None}


async def test_either_side_has_its_own_program(bench: Bench) -> None:
    bench.out.mkdir()
    started = fakes(bench.plan())
    started[Side.DESTINATION] = Launcher(
        ("/nonexistent/other",), Path("/firmware")
    )
    found = await run(SCENARIO, started, DEVICES, bench.out)
    assert found.outcome is Outcome.REFUSED
    assert found.side == DESTINATION
    assert "/nonexistent/other: No such file" in found.message


@pytest.mark.usefixtures("impatient")
async def test_hang_before_the_greeting(bench: Bench) -> None:
    found = await bench.run(
        Limits(launch_s=1), source={"start": [["hang"]]}
    )
    assert found.outcome is Outcome.TIMEOUT
    assert (found.side, found.step) == (SOURCE, "start")
    assert "1 s" in found.message
    assert found.exit_states == {SOURCE: None, DESTINATION: None}


async def test_hang_in_a_command(bench: Bench) -> None:
    found = await bench.run(
        Limits(command_s=1, quit_s=1),
        source={"migrate-set-capabilities": [["hang"]]},
    )
    assert found.outcome is Outcome.TIMEOUT
    assert (found.side, found.step) == (SOURCE, "migrate-set-capabilities")
    assert found.exit_states[SOURCE] is None
    assert found.mute == (SOURCE,)


async def test_hang_in_the_migration(bench: Bench) -> None:
    found = await bench.run(
        Limits(migrate_s=1), source={"active": [["skip"]]}
    )
    assert found.outcome is Outcome.TIMEOUT
    assert (found.side, found.step) == (SOURCE, "migration")
    assert found.at == "step 2 (wait source completed)"
    # The source still answers, so it ends as for a user.
    assert found.exit_states[SOURCE] == 0
    assert found.mute == ()


@pytest.mark.parametrize("side", SIDES)
async def test_output_without_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setattr(runner, "OUTPUT_LIMIT_BYTES", 1 << 20)
    endless = [["say", "x" * (1 << 20)], ["skip"]]
    found = await bench.run(
        Limits(migrate_s=600),
        source={"active": endless} if side == SOURCE else {},
        destination={"load": endless} if side == DESTINATION else {},
    )
    assert found.outcome is Outcome.OUTPUT
    assert found.message.startswith(f"{side}: QEMU wrote more than 1 MiB")
    assert found.exit_states[SOURCE] == 0


@pytest.mark.parametrize("kind", PREFIXES)
async def test_cleanup_in_the_log_of_any_version(
    bench: Bench, kind: str
) -> None:
    begins = prefix(kind, 1_700_000_000_123_456_000)
    found = await bench.run(source={"prefix": begins})
    assert found.outcome is Outcome.MIGRATED


@pytest.mark.parametrize("point", ["cleanup", "last cleanup"])
async def test_hang_in_the_cleanup(bench: Bench, point: str) -> None:
    found = await bench.run(Limits(settle_s=1), source={point: [["skip"]]})
    assert found.outcome is Outcome.TIMEOUT
    assert (found.side, found.step) == (SOURCE, "cleanup of the migration")


async def test_quit_that_is_ignored(bench: Bench) -> None:
    hang = {"quit": [["send", RETURNED], ["hang"]]}
    found = await bench.run(Limits(quit_s=1), source=hang)
    assert found.outcome is Outcome.TIMEOUT
    assert (found.side, found.step) == (SOURCE, "exit after quit")
    assert found.exit_states[SOURCE] is None


@pytest.mark.parametrize("side", SIDES)
async def test_command_that_is_answered_with_an_error(
    bench: Bench, side: str
) -> None:
    command = "migrate" if side == SOURCE else "migrate-incoming"
    plan: dict[str, Any] = {side: {command: [["error", "not today"]]}}
    found = await bench.run(**plan)
    assert found.outcome is Outcome.REJECTED
    assert found.side == side
    assert found.message == f"{side}: {command}: not today"
    assert found.exit_states == {SOURCE: 0, DESTINATION: 0}


async def test_migration_that_fails(bench: Bench) -> None:
    found = await bench.run(
        source={"active": [["fail", "vfio: state STOP_COPY refused"]]}
    )
    assert found.outcome is Outcome.FAILED
    assert found.side == SOURCE
    assert found.message == (
        "source: migration failed: vfio: state STOP_COPY refused"
    )
    # The destination's end is a consequence and not a second fault.
    assert found.exit_states == {SOURCE: 0, DESTINATION: 1}


async def test_migration_that_fails_with_a_destination_that_hangs(
    bench: Bench,
) -> None:
    found = await bench.run(
        Limits(settle_s=1, quit_s=1),
        source={"active": [["fail", "no"]]},
        destination={"incoming": [["hang"]]},
    )
    assert found.outcome is Outcome.FAILED
    assert found.side == SOURCE


async def test_destination_that_fails(bench: Bench) -> None:
    found = await bench.run(destination={"load": [["fail", "no"]]})
    assert found.outcome is Outcome.FAILED
    assert found.side == DESTINATION


async def test_description_that_is_no_text(bench: Bench) -> None:
    found = await bench.run(source={"active": [["fail", "a\x1b\ud800"]]})
    assert found.outcome is Outcome.FAILED
    assert "\\ud800" in found.message


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGABRT])
async def test_source_dies_in_the_migration(
    bench: Bench, signum: signal.Signals
) -> None:
    found = await bench.run(
        source={"active": [["say", "qemu: oops"], ["signal", signum]]}
    )
    killed = signum is signal.SIGKILL
    assert found.outcome is (Outcome.LOST if killed else Outcome.CRASHED)
    assert found.side == SOURCE
    assert signum.name in found.message
    assert "in migration" in found.message
    assert found.message.endswith("qemu: oops")
    assert found.exit_states == {SOURCE: -signum, DESTINATION: 1}


async def test_source_dies_in_a_command(bench: Bench) -> None:
    found = await bench.run(source={"migrate": [["exit", 3]]})
    assert found.outcome is Outcome.LOST
    assert found.side == SOURCE
    assert "migrate (exit status 3)" in found.message
    assert found.exit_states == {SOURCE: 3, DESTINATION: 0}


@pytest.mark.parametrize("answers", [True, False])
async def test_source_dies_at_its_end(bench: Bench, answers: bool) -> None:
    # A device that fails when the VM stops can bring that about.
    dump = "x: Assertion `mutex->initialized' failed.\nRAX=0\nRBX=0"
    answer = [["send", RETURNED]] if answers else []
    found = await bench.run(
        source={
            "quit": [*answer, ["say", dump], ["signal", signal.SIGABRT]]
        }
    )
    assert found.outcome is Outcome.CRASHED
    assert (found.side, found.at) == (SOURCE, "the end")
    assert found.message.endswith("Assertion `mutex->initialized' failed.")
    assert found.exit_states == {SOURCE: -signal.SIGABRT, DESTINATION: 0}


async def test_destination_that_exits_before_it_is_told_to(
    bench: Bench,
) -> None:
    # It does so when its source quits in the middle of a migration.
    found = await bench.run(destination={"quit": [["exit", 1]]})
    assert found.outcome is Outcome.MIGRATED
    assert found.exit_states == {SOURCE: 0, DESTINATION: 1}


@pytest.mark.usefixtures("impatient")
async def test_qmp_that_ends_before_qemu_does(bench: Bench) -> None:
    found = await bench.run(source={"quit": [["send", "}\n"], ["hang"]]})
    assert found.outcome is Outcome.LOST
    assert found.side == SOURCE
    assert "QEMU still runs" in found.message


async def test_source_dies_in_the_cleanup(bench: Bench) -> None:
    # Patch 1 moves a device's last request there; hw_error() is near.
    found = await bench.run(source={"cleanup": [["signal", signal.SIGABRT]]})
    assert found.outcome is Outcome.CRASHED
    assert found.side == SOURCE
    assert "SIGABRT" in found.message


@pytest.mark.parametrize(
    "source",
    [
        pytest.param([["skip"]], id="goes on"),
        pytest.param([["hang"]], id="hangs"),
        pytest.param([["fail", "Broken pipe"]], id="notices"),
    ],
)
async def test_destination_crashes(bench: Bench, source: list[Any]) -> None:
    abort = [["say", "assertion failed"], ["signal", signal.SIGABRT]]
    found = await bench.run(
        Limits(settle_s=1, quit_s=1),
        source={"active": source},
        destination={"incoming": abort},
    )
    assert found.outcome is Outcome.CRASHED
    assert found.side == DESTINATION
    assert "SIGABRT" in found.message
    assert found.message.endswith("assertion failed")
    assert found.exit_states[DESTINATION] == -signal.SIGABRT


async def test_source_that_runs_out_of_time_alone(bench: Bench) -> None:
    # The destination's end is the cause, and the time-out a consequence.
    found = await bench.run(
        Limits(migrate_s=4),
        source={"active": [["skip"]], "noticed": [["skip"]]},
        destination={"incoming": [["exit", 1]]},
    )
    assert found.outcome is Outcome.LOST
    assert found.side == DESTINATION


async def test_destination_dies_after_the_source_completed(
    bench: Bench,
) -> None:
    found = await bench.run(destination={"load": [["exit", 1]]})
    assert found.outcome is Outcome.LOST
    assert found.side == DESTINATION
    assert found.exit_states == {SOURCE: 0, DESTINATION: 1}


GARBAGE = {
    "text": "segmentation fault\r\n",
    "not UTF-8": "\xff\xfe\r\n",
    "a list": "[]\r\n",
    "endless": "x" * (16 << 20),
    "deep": "[" * 100_000 + "\r\n",
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_instead_of_a_greeting(
    bench: Bench, garbage: str
) -> None:
    found = await bench.run(
        Limits(quit_s=1), source={"start": [["send", garbage], ["hang"]]}
    )
    # The fake cannot send the whole endless line, and dies.
    assert found.outcome in (Outcome.LOST, Outcome.REFUSED)
    assert found.side == SOURCE


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_in_the_migration(bench: Bench, garbage: str) -> None:
    found = await bench.run(
        Limits(settle_s=1, quit_s=1),
        source={"active": [["send", garbage], ["hang"]]},
    )
    assert found.outcome is Outcome.LOST
    assert found.side == SOURCE
    assert "in migration" in found.message


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ({}, Outcome.LOST),
        ({"error": 1}, Outcome.LOST),
        ({"return": []}, Outcome.TIMEOUT),
        ({"return": {"downtime": "x", "total-time": 1}}, Outcome.TIMEOUT),
        ({"return": {"downtime": 1, "total-time": None}}, Outcome.TIMEOUT),
    ],
    ids=str,
)
async def test_garbage_as_an_answer(
    bench: Bench, answer: dict[str, Any], outcome: Outcome
) -> None:
    text = json.dumps({**answer, "id": "ID"}) + "\r\n"
    found = await bench.run(
        Limits(settle_s=1), source={"query-migrate": [["send", text]]}
    )
    assert found.outcome is outcome
    assert found.side == SOURCE
    assert found.qmp_downtime_ms is None


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"return": {}, "id": "nobody"},
        {"event": "MIGRATION", "timestamp": {}},
        {"event": "MIGRATION", "data": {"status": ["completed"]}},
    ],
    ids=str,
)
async def test_messages_that_say_nothing(
    bench: Bench, message: dict[str, Any]
) -> None:
    found = await bench.run(
        Limits(migrate_s=1),
        source={"active": [["send", f"{json.dumps(message)}\r\n"]]},
    )
    assert found.outcome is Outcome.TIMEOUT
    assert (found.side, found.step) == (SOURCE, "migration")


@pytest.mark.parametrize(
    "points",
    [
        {"start": [["child"]]},
        {"start": [["child"], ["exit", 1]]},
        {"active": [["child"], ["signal", signal.SIGABRT]]},
        {"start": [["child"]], "quit": [["send", RETURNED], ["hang"]]},
    ],
    ids=str,
)
async def test_what_qemu_started_ends_with_it(
    bench: Bench, points: dict[str, Any]
) -> None:
    # The bench checks that nothing is left.
    await bench.run(Limits(quit_s=1), source=points)
    assert "source-child" in bench.pids()


@pytest.mark.parametrize(
    ("side", "point"),
    [
        (SOURCE, "start"),
        (DESTINATION, "start"),
        (DESTINATION, "migrate-incoming"),
        (SOURCE, "active"),
        (DESTINATION, "load"),
        (SOURCE, "cleanup"),
        (SOURCE, "last cleanup"),
        (DESTINATION, "quit"),
    ],
)
async def test_cancelled(bench: Bench, side: str, point: str) -> None:
    plan: dict[str, Any] = {side: {point: [["mark"], ["hang"]]}}
    task = asyncio.create_task(bench.run(**plan))
    await asyncio.to_thread(bench.wait_for, side)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (bench.out / "result.json").exists()
