# SPDX-License-Identifier: GPL-2.0-or-later
"""`vfio-p2p check`: exit codes, and nothing hostile on the terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from qemu_log import FakeQemu, devices, migrate
from simple_trace import as_simple
from test_timeline import REAL
from vfio_p2p.cli import main
from vfio_p2p.timeline import Side
from vfio_p2p.trace import TraceReader

Capture = pytest.CaptureFixture[str]
SOURCE, DESTINATION = str(REAL[Side.SOURCE]), str(REAL[Side.DESTINATION])


def test_pass(capsys: Capture) -> None:
    assert main(["check", SOURCE, "--destination", DESTINATION]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "pass"
    assert "2 devices, 2 changes of the run state, QEMU 9.2 to 10.0" in out
    assert "blackout: 37.251 ms" in out
    assert "not observable without the devices' own logs: agreement" in out
    assert err == ""


def test_fail_shows_file_and_line(tmp_path: Path, capsys: Capture) -> None:
    qemu = FakeQemu(devices("a", "b"))
    right = qemu.calls(True)
    qemu.vm(True, "running", right[2:] + right[:2])
    log = tmp_path / "s.log"
    log.write_bytes(qemu.log())
    assert main(["check", str(log)]) == 1
    out = capsys.readouterr().out
    assert "broken: barrier, epoch 1 (start, running): the main call" in out
    assert f"  {log}:5: " in out
    assert main(["check", "--json", str(log)]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["findings"][0]["rule"] == "barrier"
    assert document["logs"][0]["devices"] == ["a", "b"]


def test_simple_backend(tmp_path: Path, capsys: Capture) -> None:
    files = []
    for side in Side:
        log = io.BytesIO(REAL[side].read_bytes())
        files.append(tmp_path / f"{side}.trace")
        # The destination loads before the source is done.
        begin_ns = 10**12 + 10**7 * (side is Side.DESTINATION)
        made = as_simple(TraceReader(log, ""), begin_ns)
        files[-1].write_bytes(made.data)
    source, destination = map(str, files)
    assert main(["check", source, "--destination", destination]) == 0
    out = capsys.readouterr().out
    assert " records, 2 devices, 2 changes of the run state, QEMU " in out
    assert "right only if both QEMUs ran on one host" in out
    assert main(["check", "--json", source, "--destination", DESTINATION]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [log["backend"] for log in document["logs"]] == ["simple", "log"]
    assert document["logs"][0]["clock"] == "monotonic"
    assert document["blackout"]["duration_ns"] is None
    files[0].write_bytes(files[0].read_bytes() + b"\1")
    assert main(["check", source]) == 3
    assert "its last record has no end" in capsys.readouterr().out
    files[0].write_bytes(files[0].read_bytes() + b"\2" * 40)
    assert main(["check", source]) == 2
    assert "is damaged: at byte" in capsys.readouterr().err


def test_unpatched(tmp_path: Path) -> None:
    log = tmp_path / "s.log"
    log.write_bytes(migrate(FakeQemu(devices("a", "b"), series=False)).log())
    assert main(["check", str(log)]) == 3
    assert main(["check", str(log), "--expect-p2p"]) == 1


def test_number_of_devices(tmp_path: Path) -> None:
    assert main(["check", SOURCE, "--devices", "2"]) == 0
    assert main(["check", SOURCE, "--devices", "3"]) == 3
    for bad in ("0", "two", "-1", "9999"):
        with pytest.raises(SystemExit) as info:
            main(["check", SOURCE, "--devices", bad])
        assert info.value.code == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", 3),
        (b"not a log\n", 3),
        (Path(SOURCE).read_bytes()[:-1], 3),
        (b"\x7fELF\0\0\0", 2),
    ],
    ids=["empty", "foreign", "cut", "binary"],
)
def test_never_a_pass(
    tmp_path: Path, capsys: Capture, data: bytes, code: int
) -> None:
    log = tmp_path / "s.log"
    log.write_bytes(data)
    assert main(["check", str(log)]) == code
    assert (code == 2) == bool(capsys.readouterr().err)


def test_no_such_file(tmp_path: Path, capsys: Capture) -> None:
    assert main(["check", str(tmp_path / "none.log")]) == 2
    err = capsys.readouterr().err
    assert "none.log: No such file or directory" in err


def test_names_cannot_act_on_the_terminal(
    tmp_path: Path, capsys: Capture
) -> None:
    qemu = migrate(FakeQemu(devices("a\x1b[2J", "b\u202e")))
    log = tmp_path / "s\x1b[1m.log"
    log.write_bytes(qemu.log(qemu.lines[:-9]))
    for options in ([], ["--json"]):
        assert main(["check", str(log), *options]) == 3
        out = capsys.readouterr().out
        assert r"\x1b[2J" in out.replace("\\\\", "\\")
        assert out.replace("\n", "").isprintable()
