# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs of several QEMUs, how migrations end, and what QEMU says."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from vfio_p2p.cli import main

Capture = pytest.CaptureFixture[str]
CASES = Path(__file__).parent / "cases"
LINE = re.compile(r"(\d+)@(\d+)\.(\d{6}):")
START = (
    "2024-11-13 12:13:{:02}.000+0000: starting up libvirt version: 9.0.0, "
    "qemu version: 10.0.0\nLC_ALL=C \\\n/usr/bin/qemu-system-x86_64 \\\n"
)


def lines(case: str, name: str) -> list[str]:
    (folder,) = CASES.glob(f"{case}-*")
    return (folder / name).read_text().splitlines()


BOTH = lines("28", "both.log")
OURS = [x for x in BOTH if not x.startswith("90311@")]
THEIRS = [x for x in BOTH if x.startswith("90311@")]


def iso(text: str) -> str:
    """Return the lines with the prefix of QEMU 10.1 and newer."""

    def other(match: re.Match[str]) -> str:
        when = datetime.fromtimestamp(int(match[2]), UTC)
        return f"{when:%Y-%m-%dT%H:%M:%S}.{match[3]}Z "

    return LINE.sub(other, text)


def check(
    capsys: Capture, path: Path, text: str, *options: str
) -> tuple[int, dict[str, Any], str]:
    path.write_text(text)
    code = main(["check", "--json", str(path), *options])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {}, err


def joined(*parts: list[str]) -> str:
    return "".join(f"{x}\n" for part in parts for x in part)


SAME = [x.replace("0000:3b:00", "0000:b1:00") for x in BOTH]
# A line of the other side comes between a change of the run state and the
# callbacks that it makes.
AT = next(i for i, x in enumerate(BOTH) if "reason 7 (finish" in x)
LOAD = next(i for i, x in enumerate(BOTH) if i > AT and "vfio_load" in x)
LATE = [*BOTH[: AT + 1], BOTH[LOAD], *BOTH[AT + 1 : LOAD], *BOTH[LOAD + 1 :]]
MIXED = {
    "a line in between, no thread": iso(joined(LATE)),
    "interleaved": joined(BOTH),
    "one name for two devices": joined(SAME),
    "the source first": joined(OURS, THEIRS),
    "the destination first": joined(THEIRS, OURS),
    "no thread": iso(joined(BOTH)),
    "no thread, one after the other": iso(joined(OURS, THEIRS)),
    "not from the start": joined([x for x in BOTH if "realize" not in x]),
}


@pytest.mark.parametrize("name", MIXED)
def test_two_qemus_in_one_file(
    name: str, tmp_path: Path, capsys: Capture
) -> None:
    options = ["--devices", "2"] if name == "not from the start" else []
    code, found, _ = check(capsys, tmp_path / "a.log", MIXED[name], *options)
    assert code == 0
    assert found["verdict"] == "pass"
    assert found["blackout"]["duration_ns"] == 138_732_000
    assert [x["side"] for x in found["logs"]] == ["source", "destination"]
    assert [len(x["devices"]) for x in found["logs"]] == [2, 2]
    assert "2 QEMUs wrote this log" in found["log_notes"][0]


def test_what_cannot_be_told_apart_is_refused(
    tmp_path: Path, capsys: Capture
) -> None:
    code, _, err = check(capsys, tmp_path / "a.log", iso(joined(SAME)))
    assert code == 2
    assert "two QEMUs wrote this log" in err
    assert "-D FILE" in err


def test_two_main_threads_are_two_qemus(
    tmp_path: Path, capsys: Capture
) -> None:
    """Both plug devices of one name, and the source's end is missing."""
    end = next(i for i, x in enumerate(SAME) if "savevm_state_cl" in x)
    cut = [
        x
        for i, x in enumerate(SAME)
        if not x.startswith("41277@") or (i < end and "notifier" not in x)
    ]
    code, found, _ = check(capsys, tmp_path / "a.log", joined(cut))
    assert (code, found["findings"]) == (3, [])
    assert [x["epochs"] for x in found["logs"]] == [
        ["epoch 1 (start, running)", "epoch 2 (stop, finish-migrate)"],
        ["epoch 1 (start, running)", "epoch 2 (stop, shutdown)"],
    ]
    assert "2 QEMUs wrote this log" in found["log_notes"][0]


def test_a_broken_rule_is_found_in_a_log_of_two(
    tmp_path: Path, capsys: Capture
) -> None:
    wrong = [
        x.replace("state STOP_COPY", "state STOP")
        if "vmstate_change " in x and x.startswith("41390@")
        else x
        for x in BOTH
    ]
    code, found, _ = check(capsys, tmp_path / "a.log", joined(wrong))
    assert code != 0
    assert found["verdict"] != "pass"


def test_libvirts_log_of_a_domain(tmp_path: Path, capsys: Capture) -> None:
    """The log has an earlier start, and the one that migrates away."""
    before = [x.replace("@17315", "@17314") for x in OURS[:7]]
    text = START.format(1) + joined(before)
    text += "2024-11-13 12:13:05.000+0000: shutting down, reason=destroyed\n"
    text += START.format(18) + joined(OURS)
    text += (
        "2024-11-13T12:14:23.580400Z qemu-system-x86_64: terminating on "
        "signal 15 from pid 1822 (libvirtd)\n"
        "2024-11-13 12:14:23.790+0000: shutting down, reason=migrated\n"
    )
    target = tmp_path / "b.log"
    target.write_text(START.format(19) + joined(THEIRS))
    code, found, _ = check(
        capsys, tmp_path / "a.log", text, "--destination", str(target)
    )
    assert (code, found["notes"]) == (0, [])
    assert found["blackout"]["duration_ns"] == 138_732_000
    assert found["ended"]["status"] == "completed"


def test_a_signal_before_the_end_is_a_doubt(
    tmp_path: Path, capsys: Capture
) -> None:
    at = next(i for i, x in enumerate(OURS) if "savevm_state_cleanup" in x)
    signal = ["qemu-kvm: terminating on signal 15 from pid 1 (x)"]
    text = joined(OURS[:at], signal, OURS[at:])
    code, found, _ = check(capsys, tmp_path / "a.log", text)
    assert code == 3
    assert "terminating" in str(found["notes"])


@pytest.mark.parametrize("shift_s", [-200, -1, 1, 169])
def test_clocks_that_disagree(
    shift_s: int, tmp_path: Path, capsys: Capture
) -> None:
    target = tmp_path / "b.log"
    target.write_text(
        LINE.sub(
            lambda x: f"{x[1]}@{int(x[2]) + shift_s}.{x[3]}:", joined(THEIRS)
        )
    )
    code, found, _ = check(
        capsys, tmp_path / "a.log", joined(OURS), "--destination", str(target)
    )
    assert code == 0
    assert found["blackout"]["duration_ns"] is None
    assert "clocks of the two logs disagree" in found["blackout"]["note"]


def test_how_it_ended(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "a.log"
    begun = next(i for i, x in enumerate(OURS) if "save_iterate" in x)
    _, found, _ = check(capsys, path, joined(OURS[:begun]))
    assert found["ended"]["status"] == "not ended"
    assert "the VM was never stopped" in found["ended"]["told"]
    assert "came as far as PRE_COPY" in found["ended"]["told"]
    stopped = next(i for i, x in enumerate(OURS) if "state device" in x)
    _, found, _ = check(capsys, path, joined(OURS[:stopped]))
    assert "the VM had been stopped" in found["ended"]["told"]
    # The same without the events of the migration itself.
    quiet = [x for x in OURS if "migrate_set_state" not in x]
    _, found, _ = check(capsys, path, joined(quiet))
    assert found["ended"]["status"] == "completed"
    _, found, _ = check(capsys, path, joined(OURS[:6]))
    assert found["ended"]["told"] == "no migration began in this log"


def test_starving_initial_bytes_are_named(
    tmp_path: Path, capsys: Capture
) -> None:
    text = joined(lines("06", "source.log"))
    _, found, _ = check(capsys, tmp_path / "a.log", text)
    assert found["ended"]["status"] == "cancelled"
    assert "never fell: 300.0 MiB" in found["ended"]["told"]


def test_amounts_by_device(tmp_path: Path, capsys: Capture) -> None:
    _, found, _ = check(capsys, tmp_path / "a.log", joined(BOTH))
    assert found["amounts"][0] == {
        "side": "source",
        "device": "0000:b1:00.2",
        "written_bytes": 6 << 20,
        "loaded_bytes": None,
        "pending_bytes": 1 << 20,
        "written_after_bytes": 3 << 20,
    }
    assert "reported 1.0 MiB to be left; 3.0 MiB" in found["explained"]
    # Who was not asked has not reported nothing.
    unasked = joined([x for x in BOTH if "state_pending" not in x])
    _, found, _ = check(capsys, tmp_path / "a.log", unasked)
    assert found["amounts"][0]["pending_bytes"] is None
    assert found["amounts"][0]["written_after_bytes"] is None
    assert "to be left" not in found["explained"]
    # A log without any line about loads tells nothing about them.
    quiet = joined([x for x in BOTH if "vfio_load_state" not in x])
    code, found, _ = check(capsys, tmp_path / "a.log", quiet)
    assert code == 0
    # Data that came by multifd are no missing data.
    multifd = joined(BOTH).replace(
        "vfio_load_state_device_data  (0000:3b:00.2) size 1048576 ret 0",
        "vfio_load_state_device_buffer_incoming  (0000:3b:00.2) idx 0",
    )
    assert check(capsys, tmp_path / "a.log", multifd)[0] == 0
    nothing = re.sub(
        r"(device_data  \(0000:3b:00.2\)) size \d+", r"\1 size 0", joined(BOTH)
    )
    code, found, _ = check(capsys, tmp_path / "a.log", nothing)
    assert code == 3
    assert "is not seen to load anything" in str(found["notes"])


SAID = (
    "qemu-kvm: -device vfio-pci,host=03:00.0: vfio 0000:03:00.0: error "
    "getting device from group 12: Invalid argument",
    "2024-11-13T12:14:22Z qemu-system-x86_64: Unable to read from socket",
    "Error: disallowing migration blocker (migration/snapshot in progress)",
    "**\nERROR:../hw/vfio/migration.c:99:f: assertion failed: (x)",
)


@pytest.mark.parametrize("said", SAID)
def test_qemus_words_are_quoted(
    said: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "a.log"
    path.write_text(joined(OURS[:9], [said]))
    assert main(["check", str(path)]) == 3
    assert said.splitlines()[-1] in capsys.readouterr().out
    # What a QEMU says that migrates well is no doubt.
    if "Unable" in said or "group" in said:
        path.write_text(joined([said], OURS))
        assert main(["check", str(path)]) == 0
        assert said not in capsys.readouterr().out


def test_explained_in_a_paragraph(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "a.log"
    path.write_text(joined(BOTH))
    assert main(["check", "--explain", str(path)]) == 0
    *_, told = capsys.readouterr().out.split("\n\n")
    text = " ".join(told.split())
    assert "a migration of 2 devices, 0000:b1:00.2 and 0000:b1:00.3" in text
    assert "was completed, after 0.361 s in precopy" in text
    assert "No device ran for 138.732 ms" in text
    assert "device-data-saved took 80.072 ms" in text
    assert "40.024 ms for save of 0000:b1:00.2" in text
    assert "6.0 MiB of 0000:b1:00.2 (8.0 MiB loaded)" in text
    assert text.endswith("The verdict is pass.")
    assert max(map(len, told.splitlines())) <= 79


NAMES = (
    ("source.log", "destination.log"),
    ("vm-src.txt", "vm-dst.txt"),
    ("b.log", "a.log"),
    ("source/qemu.log", "target/qemu.log"),
    ("source/trace.log", "destination/trace.log"),
)


@pytest.mark.parametrize("names", NAMES)
def test_every_command_reads_a_folder_with_two_logs(
    names: tuple[str, str], tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "run"
    for name, part in zip(names, (OURS, THEIRS), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(joined(part))
    other = tmp_path / "both.log"
    other.write_text(joined(BOTH))
    database = str(tmp_path / "h.db")
    assert main(["check", str(folder)]) == 0
    assert main(["report", str(folder)]) == 0
    assert main(["report", str(other)]) == 0
    assert main(["compare", str(folder), str(other)]) == 3
    record = ["history", "record", "--db", database]
    assert main([*record, str(folder), str(other)]) == 0
    assert "2 recorded" in capsys.readouterr().out
    assert main([*record, str(folder)]) == 0
    assert "1 there already" in capsys.readouterr().out


def test_a_folder_with_many_logs_is_refused(
    tmp_path: Path, capsys: Capture
) -> None:
    for name in "abc":
        (tmp_path / f"{name}.log").write_text(joined(OURS))
    assert main(["check", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "has 3 logs" in err
    assert "--destination" in err


def test_times_that_go_backwards(tmp_path: Path, capsys: Capture) -> None:
    """A line whose time is wrong makes one figure unknown, and no crash."""
    # The line that announces the last data but one of the blackout takes the
    # place of the line before.
    *_, number, _, _ = (
        i for i, x in enumerate(BOTH) if "vfio_load_state_device_data" in x
    )
    first, loaded, second = BOTH[number - 1 : number + 2]
    assert "vfio_load_state  " in first
    assert "vfio_load_state  " in second
    wrong = [*BOTH[: number - 1], second, loaded, *BOTH[number + 2 :]]
    code, found, _ = check(capsys, tmp_path / "a.log", joined(wrong))
    assert code == 0
    assert "No device ran for" in found["explained"]
