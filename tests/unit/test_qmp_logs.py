# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of QMP events: whole, damaged, and none at all."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qmp_events import DATA, device_event, event, file, log, timeline_of
from vfio_p2p.cli import main
from vfio_p2p.downtime.logs import is_host_run
from vfio_p2p.errors import TraceError
from vfio_p2p.oracle import Criteria, judge
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Side
from vfio_p2p.trace import Kind, is_events

SERIES = Criteria(devices=2, p2p=True)
Capture = pytest.CaptureFixture[str]


def test_without_the_device_s_events(
    capsys: Capture, tmp_path: Path
) -> None:
    at = 10**18
    told = [event("STOP", at), event("MIGRATION", at, status="completed")]
    (path := tmp_path / "log").write_bytes(log(told))
    assert main(["check", str(path), "--devices", "2"]) == 3
    said = capsys.readouterr().out
    assert "is the QMP event VFIO_MIGRATION" in said
    assert "migration-events=on" in said
    assert "--trace 'vfio_*'" in said


def test_check(capsys: Capture) -> None:
    argv = [
        "check",
        str(file("10.0.13", "two-devices")),
        "--destination",
        str(file("10.0.13", "two-devices", Side.DESTINATION)),
        "--devices", "2", "--expect-p2p",
    ]  # fmt: skip
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert "not observable from QMP events: what a device was asked" in said
    assert "the rules reached, once" in said
    assert main([*argv, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert "recover" in values["untraced"]
    assert values["logs"][0]["backend"] == "qmp"


@pytest.mark.parametrize("log", [None, "qemu: warning: no traces here\n"])
def test_a_folder_whose_traces_tell_nothing(
    tmp_path: Path, capsys: Capture, log: str | None
) -> None:
    for side in Side:
        (tmp_path / side).mkdir()
        shutil.copy(
            file("10.0.13", "two-devices", side), tmp_path / side / "qmp.jsonl"
        )
        if log is not None:
            (tmp_path / side / "trace.log").write_text(log)
    argv = ["check", str(tmp_path), "--devices", "2"]
    assert main(argv) == 0
    assert "not observable from QMP events" in capsys.readouterr().out
    # A trace tells more.
    for side in Side:
        name = f"qemu-10.0.13-two-devices.{side}.log"
        shutil.copy(DATA.parent / name, tmp_path / side / "trace.log")
    assert main(argv) == 0
    assert "from QMP events" not in capsys.readouterr().out
    (tmp_path / Side.DESTINATION / "trace.log").unlink()
    (tmp_path / Side.DESTINATION / "qmp.jsonl").unlink()
    assert main(argv) == 2
    assert "destination/trace.log" in capsys.readouterr().err


def test_an_event_anywhere_in_a_long_transcript(tmp_path: Path) -> None:
    """Transcripts are read in pieces, and a word may lie on a border."""
    folder = tmp_path / Side.SOURCE
    folder.mkdir()
    for at in ((1 << 20) - 7, (1 << 20) + 7, 2 << 20):
        data = b" " * at + b"VFIO_MIGRATION" + b" " * 99
        (folder / "qmp.jsonl").write_bytes(data)
        assert is_host_run(tmp_path)
    (folder / "qmp.jsonl").write_bytes(data.replace(b"VFIO", b"VIRT"))
    assert not is_host_run(tmp_path)


def test_a_log_without_a_number_of_devices(capsys: Capture) -> None:
    path = file("11.1.3", "two-devices")
    assert main(["check", str(path)]) == 3
    assert "the number of devices is unknown: give --devices\n" in (
        capsys.readouterr().out
    )


def test_lines_that_are_no_events() -> None:
    lines = file("11.1.3", "two-devices").read_bytes().splitlines(True)
    noise = [
        b'{"return": {}}\n', b"\n", b'{"event": "NIC_RX_FILTER_CHANGED", '
        b'"timestamp": {"seconds": 1, "microseconds": 2}}\n', b"# note\n",
        b'{"event": "STOP"}\n', b'{"return": {"timestamp": "today"}}\n',
    ]  # fmt: skip
    mixed = [x for line in lines for x in (line, *noise)]
    side = timeline_of(b"\xef\xbb\xbf" + b"".join(mixed))
    plain = timeline_of(b"".join(lines))
    assert side.gaps == ()
    assert [str(x) for x in side.epochs] == [str(x) for x in plain.epochs]
    assert [x.reached for x in side.arcs] == [x.reached for x in plain.arcs]
    assert side.summary.lines == len(mixed)


def test_damaged_events_are_doubts() -> None:
    lines = file("11.1.3", "two-devices").read_bytes().splitlines(True)
    at = next(i for i, x in enumerate(lines) if b"VFIO_MIGRATION" in x)
    for bad in (
        lines[at][:60] + b"\n",
        lines[at].replace(b'"pre-copy"', b'"pre-flight"'),
        lines[at].replace(b'"pre-copy"', b"7"),
        lines[at].replace(b"{", b"{" + b" " * (70 << 10), 1),
    ):
        judgement = judge(
            timeline_of(b"".join([*lines[:at], bad, *lines[at + 1 :]])),
            None,
            SERIES,
        )
        assert judgement.verdict is not Verdict.PASS
        assert "an event is damaged" in judgement.notes[0].message


def test_a_cut_log() -> None:
    data = file("11.1.3", "two-devices").read_bytes()
    judgement = judge(timeline_of(data[:-1]), None, SERIES)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "the log is cut: its last line has no end" in {
        note.message for note in judgement.notes
    }


def test_events_without_ids_or_times() -> None:
    at = 10**18
    told = device_event("", "PRE_COPY", at)
    told["timestamp"] = {"seconds": -1, "microseconds": -1}
    side = timeline_of(log([told]))
    assert side.devices == ("/machine/peripheral/",)
    assert side.arcs[0].records[0].time_ns is None
    assert side.arcs[0].records[0].kind is Kind.CHANGED


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"", False),
        (b"[]\n", False),
        (b'{"return": {}}\n', False),
        (b"150@1795401446.943017:vfio_migration_realize  (a)\n", False),
        (b'{"component":"virt-launcher","timestamp":"2","msg":"x"}\n', False),
        (b'{"timestamp": {"seconds": 1, "microseconds": 1}}\n', False),
        (b'{"event": "STOP"}\n', False),
        (b"[" * 100_000, False),
        (b'{"a":' * 100_000, False),
        (b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 1, "major": '
         b'11}, "package": ""}, "capabilities": []}}\n', True),
    ],
)  # fmt: skip
def test_what_is_a_log_of_events(head: bytes, found: bool) -> None:
    assert is_events(head) is found
    if not found and head.startswith(b"{"):
        later = head + log([event("STOP", 10**18)])
        assert is_events(later) is (len(head) < 1000)


@given(st.randoms(use_true_random=False), st.integers(1, 30))
def test_hostile_logs(rng: random.Random, changes: int) -> None:
    """Nothing but a clear error, and never a pass that was none."""
    data = bytearray(file("11.1.3", "cancelled-after-stop").read_bytes())
    for _ in range(changes):
        at = rng.randrange(len(data))
        match rng.randrange(3):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(200)]
            case _:
                data[at:at] = data[: rng.randrange(200)]
    try:
        judgement = judge(timeline_of(bytes(data)), None, SERIES)
    except TraceError:
        return
    assert judgement.verdict is not Verdict.PASS
