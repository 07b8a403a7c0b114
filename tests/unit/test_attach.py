# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMUs that somebody else started: their names, and their migrations."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from vfio_p2p.attach.capture import BACK_BYTES, Capture, Phase
from vfio_p2p.attach.folder import next_bundle, prune
from vfio_p2p.attach.qemu import explain
from vfio_p2p.attach.recorder import Recorder
from vfio_p2p.attach.target import Target, TargetKind, parse_target
from vfio_p2p.attach.tracing import Tracing, note_path
from vfio_p2p.attach.view import QemuView
from vfio_p2p.bundle.manifest import Inputs, ProgramInput
from vfio_p2p.bundle.provenance import AttachedMachine, AttachedProvenance
from vfio_p2p.bundle.write import seal
from vfio_p2p.cli import main
from vfio_p2p.errors import (
    CommandError,
    ConnectionLostError,
    NoSpaceError,
    UsageError,
)
from vfio_p2p.plans.attach import AttachRequest, record
from vfio_p2p.scenario.course import Outcome
from vfio_p2p.scenario.result import Result
from vfio_p2p.side import Side

S_NS = 1_000_000_000
DATA = Path(__file__).with_name("data")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("/run/vm.sock", TargetKind.UNIX, "/run/vm.sock"),
        ("./vm.sock", TargetKind.UNIX, "./vm.sock"),
        ("unix:vm.sock", TargetKind.UNIX, "vm.sock"),
        ("/run/a:b.sock", TargetKind.UNIX, "/run/a:b.sock"),
        ("tcp:localhost:4444", TargetKind.TCP, "localhost:4444"),
        ("tcp:[::1]:4444", TargetKind.TCP, "[::1]:4444"),
        ("pid:12", TargetKind.PID, "12"),
        ("12", TargetKind.PID, "12"),
        ("domain:web 1", TargetKind.DOMAIN, "web 1"),
    ],
)
def test_names_of_qemus(text: str, kind: TargetKind, value: str) -> None:
    found = parse_target(text)
    assert found == Target(kind, value)
    assert parse_target(str(found)) == found


@pytest.mark.parametrize(
    "text",
    ["", "vm", "tcp:4444", "tcp:host:", "tcp::1", "pid:0", "pid:x", "pid:",
     "domain:", "unix:", "host:4444"],
)  # fmt: skip
def test_names_of_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="names no QEMU") as caught:
        parse_target(text)
    assert "tcp:HOST:PORT" in caught.value.hint


class Kept:
    """Captures migrations into memory."""

    def __init__(self, *sides: Side) -> None:
        self.capture = Capture(sides, self._begin)
        self.logs = {side: io.BytesIO() for side in sides}
        self.events = {side: io.StringIO() for side in sides}

    def _begin(self, capture: Capture) -> None:
        for side, stream in capture.streams.items():
            stream.log, stream.events = self.logs[side], self.events[side]

    def status(self, side: Side, *statuses: str, at_s: float = 0) -> None:
        """Let a QEMU trace statuses."""
        for status in statuses:
            line = f"migrate_set_state new state {status}\n"
            self.capture.log(side, line.encode(), int(at_s * S_NS))


SOURCE, DESTINATION = Side
BOTH = (SOURCE, DESTINATION)


def test_a_migration() -> None:
    kept = Kept(*BOTH)
    kept.capture.log(SOURCE, b"vfio_migration_realize  (a)\n", 0)
    kept.status(DESTINATION, "setup")
    assert str(kept.capture.phase) == "idle"
    kept.status(SOURCE, "setup", "active", at_s=1)
    assert kept.capture.phase is Phase.RUNNING
    kept.status(DESTINATION, "active", "completed", at_s=2)
    kept.status(SOURCE, "device", "completed", at_s=3)
    assert str(kept.capture.phase) == "ending"
    assert not kept.capture.done(int(3.5 * S_NS))
    kept.capture.log(SOURCE, b"savevm_state_cleanup \n", int(3.9 * S_NS))
    assert not kept.capture.done(int(4.5 * S_NS))
    assert kept.capture.done(5 * S_NS)
    log = kept.logs[SOURCE].getvalue()
    # What came before belongs to it, and what comes after it, too.
    assert log.startswith(b"vfio_migration_realize")
    assert log.endswith(b"savevm_state_cleanup \n")
    assert b"state setup" in kept.logs[DESTINATION].getvalue()
    result = kept.capture.result(12)
    assert result.outcome is Outcome.MIGRATED
    assert result.qmp_downtime_ms == 12
    assert result.migration["source"] == (
        "setup", "active", "device", "completed",
    )


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        (("setup", "active", "cancelling", "cancelled"), Outcome.CANCELLED),
        (("setup", "active", "failed"), Outcome.FAILED),
        (("setup", "failing", "failed"), Outcome.FAILED),
        (("setup", "active", "postcopy-active", "completed"),
         Outcome.MIGRATED),
    ],
)  # fmt: skip
def test_how_it_ends(statuses: tuple[str, ...], outcome: Outcome) -> None:
    kept = Kept(SOURCE)
    kept.status(SOURCE, *statuses)
    assert kept.capture.done(2 * S_NS)
    assert kept.capture.result().outcome is outcome


def test_a_qemu_that_ends_in_between() -> None:
    kept = Kept(*BOTH)
    kept.status(SOURCE, "setup", "active")
    kept.capture.ended(SOURCE, S_NS)
    assert kept.capture.result().outcome is Outcome.LOST
    # The destination may have something to say about it.
    assert not kept.capture.done(5 * S_NS)
    assert kept.capture.done(12 * S_NS)


def test_events_of_qmp_alone() -> None:
    kept = Kept(SOURCE)
    for status in ("setup", "active", "completed"):
        event = {"event": "MIGRATION", "data": {"status": status}}
        kept.capture.event(SOURCE, event, 0)
    assert kept.capture.done(2 * S_NS)
    lines = kept.events[SOURCE].getvalue().splitlines()
    assert [json.loads(x)["msg"]["data"]["status"] for x in lines] == [
        "setup", "active", "completed",
    ]


def test_two_witnesses_are_one_migration() -> None:
    kept = Kept(SOURCE)
    for status in ("setup", "active", "completed"):
        event = {"event": "MIGRATION", "data": {"status": status}}
        kept.capture.event(SOURCE, event, 0)
        kept.status(SOURCE, status)
    assert kept.capture.result().migration["source"] == (
        "setup", "active", "completed",
    )


def test_a_log_that_lags_behind_events() -> None:
    kept = Kept(SOURCE)
    for status in ("setup", "active", "completed"):
        event = {"event": "MIGRATION", "data": {"status": status}}
        kept.capture.event(SOURCE, event, 0)
    kept.status(SOURCE, "setup", "active", "completed")
    assert kept.capture.result().migration["source"] == (
        "setup", "active", "completed",
    )


def test_a_destination_of_a_migration_that_is_cancelled() -> None:
    kept = Kept(*BOTH)
    kept.status(SOURCE, "setup", "active", "cancelling", "cancelled")
    kept.status(DESTINATION, "setup", "active", "failed")
    assert kept.capture.result().outcome is Outcome.CANCELLED


def test_another_qemu_comes() -> None:
    """A destination whose migration has failed is replaced by libvirt."""
    kept = Kept(*BOTH)
    kept.capture.ended(DESTINATION, 0)
    assert kept.capture.streams[DESTINATION].over
    kept.capture.replaced(DESTINATION)
    assert not kept.capture.streams[DESTINATION].over


def test_a_status_in_two_pieces() -> None:
    kept = Kept(SOURCE)
    kept.capture.log(SOURCE, b"migrate_set_state new sta", 0)
    kept.capture.log(SOURCE, b"te setup\n", 0)
    assert kept.capture.phase is Phase.RUNNING
    assert kept.logs[SOURCE].getvalue().count(b"\n") == 1


def test_little_is_kept_of_what_came_before() -> None:
    kept = Kept(SOURCE)
    for number in range(3000):
        kept.capture.log(SOURCE, b"%06d %s\n" % (number, b"x" * 1000), 0)
    kept.status(SOURCE, "setup")
    log = kept.logs[SOURCE].getvalue()
    assert len(log) <= BACK_BYTES + 1000
    # It begins with a whole line.
    assert log.split()[0].isdigit()
    assert b"002999" in log


class Events:
    """The monitor of a QEMU with three events."""

    name = "fake"

    def __init__(self) -> None:
        self.states = {
            "vfio_a": "enabled", "vfio_b": "disabled",
            "vfio_c": "unavailable", "vm_state_notify": "disabled",
            "other": "disabled",
        }
        self.refuses = False

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        limit_s: float = 0,
    ) -> Any:
        """Answer as QEMU does."""
        assert arguments
        name = arguments["name"]
        if self.refuses:
            raise ConnectionLostError("fake", "gone")
        found = [
            x
            for x in self.states
            if x == name
            or (name.endswith("*") and x.startswith(name[:-1]))
        ]
        if command == "trace-event-get-state":
            if not found and "*" not in name:
                raise CommandError("fake", "unknown event")
            return [{"name": x, "state": self.states[x]} for x in found]
        for each in found:
            if self.states[each] != "unavailable":
                wanted = "enabled" if arguments["enable"] else "disabled"
                self.states[each] = wanted
        return {}

    closed = False


PATTERNS = ("vfio_*", "vm_state_notify", "nosuch")


async def test_events_are_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monitor = Events()
    before = dict(monitor.states)
    tracing = Tracing(monitor, "host", 1, 2)
    on = await tracing.start(PATTERNS)
    assert on == ("vfio_a", "vfio_b", "vm_state_notify")
    assert monitor.states["vfio_b"] == "enabled"
    assert monitor.states["other"] == "disabled"
    await tracing.restore()
    assert monitor.states == before
    assert not note_path("host", 1, 2).exists()


async def test_events_are_put_back_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start knows what was off at first."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monitor = Events()
    before = dict(monitor.states)
    await Tracing(monitor, "host", 1, 2).start(PATTERNS)
    again = Tracing(monitor, "host", 1, 2)
    await again.start(PATTERNS)
    await again.restore()
    assert monitor.states == before


def test_numbers_go_on(tmp_path: Path) -> None:
    assert next_bundle(tmp_path / "none").name == "migration-000001"
    for number in (1, 2, 9):
        (tmp_path / f"migration-{number:06}").mkdir()
    (tmp_path / ".migration-000010.partial").mkdir()
    (tmp_path / "other").mkdir()
    assert next_bundle(tmp_path).name == "migration-000010"
    prune(tmp_path, 2)
    assert {x.name for x in tmp_path.iterdir()} == {
        "migration-000002", "migration-000009",
        ".migration-000010.partial", "other",
    }


def test_what_is_seen() -> None:
    view = QemuView()
    text = (
        b"1@1.000000:migrate_set_state new state active\n"
        b"1@1.000000:vfio_migration_set_state  (a) new state PRE_COPY, "
        b"recover state RUNNING\n"
        b"1@1.000000:vfio_migration_set_device_state  (a) state PRE_COPY\n"
        b"1@1.000000:vm_state_notify running 0 reason 7 (finish-migrate)\n"
    )
    assert list(view.log(text, 0)) == [
        "the migration is active",
        "a is in PRE_COPY",
        "the guest is stopped (finish-migrate)",
    ]
    more = b"vfio_migration_set_device_state  (a) state STOP_COPY\n"
    assert list(view.log(more, 5_000_000)) == [
        "a is in STOP_COPY after PRE_COPY of 5 ms"
    ]


def recorded(folder: Path, *sides: Side, devices: str = "") -> Path:
    """Make a bundle as it is left by a recording of these sides.

    :param devices: Names of the devices that each QEMU was started with; if
        given, the logs begin when that was over.
    """
    for side in sides:
        (folder / side).mkdir(parents=True)
        log = DATA / f"qemu-10.0.13-two-devices.{side}.log"
        lines = log.read_bytes().splitlines(keepends=True)
        if devices:
            lines = [x for x in lines if b"vfio_migration_realize" not in x]
        (folder / side / "trace.log").write_bytes(b"".join(lines))
    result = Result(outcome=Outcome.MIGRATED)
    (folder / "result.json").write_bytes(result.to_json())
    program = ProgramInput(
        variant="attached", build="", version="", sha256="", libraries={}
    )
    inputs = Inputs(
        source=program,
        destination=program,
        scenario="",
        seed=0,
        place=AttachedProvenance(
            source=AttachedMachine(
                hostname="a", devices=tuple(devices.split())
            )
        ),
    )
    seal(folder, inputs)
    return folder


@pytest.mark.parametrize(
    ("sides", "said"), [(BOTH, "blackout: "), ((SOURCE,), "pass")]
)
def test_what_was_recorded_is_read(
    tmp_path: Path,
    sides: tuple[Side, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = recorded(tmp_path / "migration-000001", *sides)
    for arguments in (["check", str(bundle)], ["report", str(tmp_path)]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert "pass" in out
    assert main(["check", str(bundle)]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("devices", "code", "said"),
    [
        ("src0 src1", 0, "pass"),
        ("src0 src1 src2", 3, "3 devices expected, the log shows src0, src1"),
        ("src0", 3, "the number of devices is unknown"),
    ],
)
def test_devices_that_were_there_before(
    tmp_path: Path,
    devices: str,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """QEMU's log names them at its start, which no recording has."""
    bundle = recorded(tmp_path / "x", SOURCE, devices=devices)
    assert main(["check", str(bundle)]) == code
    assert said in capsys.readouterr().out
    assert main(["report", str(bundle)]) == code


def test_a_recording_that_is_not_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = recorded(tmp_path / "migration-000001", *BOTH)
    log = bundle / "source" / "trace.log"
    log.write_bytes(log.read_bytes().replace(b"RUNNING", b"RESUMING"))
    for command in ("check", "report"):
        assert main([command, str(bundle)]) == 2
        assert "damaged" in capsys.readouterr().err


def test_what_a_source_expects() -> None:
    view = QemuView()
    answer = {
        "status": "active",
        "expected-downtime": 305,
        "ram": {"remaining": 12 << 20},
    }
    (said,) = view.answer(answer)
    assert said == (
        "a downtime of 305 ms is expected, 12288 KiB of RAM are left to send"
    )
    # The same once more, and an answer before there is an expectation.
    assert not list(view.answer(answer))
    assert not list(view.answer({"status": "setup"}))


def test_answers_are_kept_in_order() -> None:
    kept = Kept(SOURCE)
    kept.status(SOURCE, "setup")
    kept.capture.answer(SOURCE, {"status": "active"}, 5)
    kept.capture.event(SOURCE, {"event": "STOP"}, 6)
    answer, event = kept.events[SOURCE].getvalue().splitlines()
    assert json.loads(answer) == {
        "time_ns": 5, "dir": "<-", "msg": {"return": {"status": "active"}},
    }  # fmt: skip
    assert json.loads(event)["msg"] == {"event": "STOP"}


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong while QEMUs are listened to comes in groups."""

    async def fill(recorder: Recorder) -> None:
        raise ExceptionGroup("", [
            ExceptionGroup("", [OSError(errno.ENOSPC, "No space")])
        ])

    monkeypatch.setattr(Recorder, "run", fill)
    with pytest.raises(NoSpaceError) as caught:
        record(AttachRequest(parse_target("/x"), out=tmp_path / "out"))
    assert str(tmp_path / "out") in caught.value.what


def test_what_is_told_of_a_group() -> None:
    ours, theirs = UsageError("what", "hint"), OSError(errno.EIO, "no")
    group = BaseExceptionGroup("", [KeyError(), theirs])
    assert explain(group) is theirs
    assert explain(ExceptionGroup("", [theirs, ours])) is ours
    assert explain(ExceptionGroup("", [KeyError()])) is None
