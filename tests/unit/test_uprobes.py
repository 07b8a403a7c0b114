# SPDX-License-Identifier: GPL-2.0-or-later
"""A bpftrace program for a QEMU: what is read from its file, and what not."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from vfio_p2p.attach.elf import Elf
from vfio_p2p.attach.uprobes import bpftrace_program, enumeration
from vfio_p2p.cli import main
from vfio_p2p.errors import SourceError
from vfio_p2p.trace import TraceReader

PATH = "/usr/bin/qemu-system-x86_64"
# mov 0x48(%rbx),%rsi; ret
LOADS = b"\x90\x48\x8b\x73\x48\xc3"
FUNCTIONS = {
    "vm_state_notify": b"\xc3",
    "migrate_set_state": b"\xc3",
    "migration_call_notifiers": b"\xc3",
    "qemu_loadvm_state": b"\xc3",
    "qemu_loadvm_state_cleanup": b"\xc3",
    "qemu_savevm_state_cleanup": b"\xc3",
    "qemu_savevm_state_complete_precopy": b"\xc3",
    "vfio_migration_set_state": LOADS,
    "vfio_multifd_save_complete_precopy_thread": b"\xc3",
    "hw_compat_9_2": b"\0",
}
TABLES = {
    "RunState_lookup": ("debug", "running", "finish-migrate"),
    "MigrationStatus_lookup": ("none", "setup", "completed"),
}


@dataclass
class FakeElf:
    """A program that is little more than its symbols."""

    functions: Mapping[str, bytes] = field(
        default_factory=lambda: dict(FUNCTIONS)
    )
    tables: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: dict(TABLES)
    )
    relocated: bool = True
    base: int = 0x400000

    def to_bytes(self) -> bytes:
        """Return the file; its one segment is all of it."""
        data = bytearray(64 + 56)
        symbols: dict[str, tuple[int, int]] = {}
        relocations: list[tuple[int, int]] = []

        def put(part: bytes) -> int:
            data.extend(bytes(-len(data) % 8))
            data.extend(part)
            return len(data) - len(part) + self.base

        for name, code in self.functions.items():
            symbols[name] = put(code), len(code)
        for name, values in self.tables.items():
            texts = [put(value.encode() + b"\0") for value in values]
            array = put(bytes(8 * len(texts)))
            table = put(struct.pack("<QQi4x", 0, 0, len(texts)))
            symbols[name] = table, 24
            relocations.append((table, array))
            relocations += [
                (array + 8 * number, text)
                for number, text in enumerate(texts)
            ]
        if not self.relocated:
            for where, to in relocations:
                struct.pack_into("<Q", data, where - self.base, to)
            relocations = []
        rela = b"".join(struct.pack("<QQq", a, 8, to) for a, to in relocations)
        names, table_ = b"\0", bytes(24)
        for name, (address, size) in symbols.items():
            table_ += struct.pack(
                "<IBBHQQ", len(names), 0x12, 0, 1, address, size
            )
            names += name.encode() + b"\0"
        sections = bytes(64)
        for kind, part, link in ((11, table_, 2), (3, names, 0), (4, rela, 1)):
            offset = put(part) - self.base
            sections += struct.pack(
                "<IIQQQQIIQQ", 0, kind, 0, 0, offset, len(part), link, 0, 8, 24
            )
        headers = put(sections) - self.base
        struct.pack_into(
            "<16sHHIQQQIHHHHHH", data, 0, b"\x7fELF\x02\x01\x01", 3, 62, 1, 0,
            64, headers, 0, 64, 56, 1, 64, 4, 0,
        )  # fmt: skip
        struct.pack_into(
            "<IIQQQQQQ", data, 64, 1, 5, 0, self.base, 0, len(data),
            len(data), 8,
        )  # fmt: skip
        return bytes(data)

    def open(self, folder: Path) -> Elf:
        """Write the file, and read it."""
        path = folder / "qemu"
        path.write_bytes(self.to_bytes())
        return Elf(path)


@pytest.mark.parametrize("relocated", [True, False])
def test_numbers_are_those_of_the_file(
    tmp_path: Path, relocated: bool
) -> None:
    elf = FakeElf(relocated=relocated).open(tmp_path)
    assert enumeration(elf, "RunState_lookup") == {
        0: "debug",
        1: "running",
        2: "finish-migrate",
    }
    program = bpftrace_program(elf, PATH)
    assert '@run[2] = "finish-migrate";' in program
    assert '@status[2] = "completed";' in program
    assert '@state[3] = "STOP_COPY";' in program
    # bpftrace takes the size of a map from the first text.
    lines = program.splitlines()
    first = next(x for x in lines if "@run[" in x)
    assert first.strip() == '@run[2] = "finish-migrate";'


def test_every_probe_exists(tmp_path: Path) -> None:
    program = bpftrace_program(FakeElf().open(tmp_path), PATH)
    probes = re.findall(r"^u(?:ret)?probe:(.+?):(\w+)", program, re.M)
    assert {path for path, _ in probes} == {PATH}
    assert {name for _, name in probes} == FUNCTIONS.keys() - {"hw_compat_9_2"}
    assert "%{" not in program
    assert program.count("uretprobe:") == 1
    used = set(re.findall(r"@(\w+)", program))
    assert used == set(re.findall(r"clear\(@(\w+)\)", program))


def test_one_process_or_any(tmp_path: Path) -> None:
    elf = FakeElf().open(tmp_path)
    assert "/pid == 4711/" in bpftrace_program(elf, PATH, pid=4711)
    assert "/$1 == 0 || pid == $1/" in bpftrace_program(elf, PATH)


def test_the_place_of_a_name_is_checked(tmp_path: Path) -> None:
    for code in (b"\x48\x8b\x73\x40\xc3", b"\x90\xff\x73\x50", b"\x48\x48"):
        functions = {**FUNCTIONS, "vfio_migration_set_state": code}
        elf = FakeElf(functions).open(tmp_path)
        with pytest.raises(SourceError, match="reads nothing at the place"):
            bpftrace_program(elf, PATH)
        program = bpftrace_program(elf, PATH, name_offset=80)
        assert "str(*(uint64 *)(arg0 + 80))" in program
    pushed = {**FUNCTIONS, "vfio_migration_set_state": b"\x90\xff\x73\x48"}
    assert "arg0 + 72" in bpftrace_program(
        FakeElf(pushed).open(tmp_path), PATH
    )


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (("hw_compat_9_2",), "is older than QEMU 10.0"),
        (
            ("hw_compat_9_2", "vfio_migration_set_state"),
            "and does not export vfio_migration_set_state",
        ),
        (("vm_state_notify",), "does not export vm_state_notify"),
        (tuple(FUNCTIONS), "does not export migrate_set_state and 8 more"),
    ],
)
def test_functions_that_are_missing(
    tmp_path: Path,
    gone: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "qemu"
    left = {x: code for x, code in FUNCTIONS.items() if x not in gone}
    path.write_bytes(FakeElf(left).to_bytes())
    assert main(["trace-script", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_tables_that_are_none(tmp_path: Path) -> None:
    elf = FakeElf(tables={**TABLES, "RunState_lookup": ()}).open(tmp_path)
    with pytest.raises(SourceError, match="is no table"):
        bpftrace_program(elf, PATH)


@pytest.mark.parametrize("size", [0, 3, 63, 64, 700, -100])
def test_damaged_files(tmp_path: Path, size: int) -> None:
    path = tmp_path / "qemu"
    path.write_bytes(FakeElf().to_bytes()[:size])
    with pytest.raises(SourceError):
        bpftrace_program(Elf(path), PATH)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "qemu", tmp_path / "qemu.bt"
    path.write_bytes(FakeElf().to_bytes())
    words = ["trace-script", str(path)]
    assert main([*words, "--path", PATH]) == 0
    printed = capsys.readouterr().out
    assert main([*words, "--path", PATH, "-o", str(out)]) == 0
    assert out.read_text() == printed
    assert main([*words, "-o", str(out / "qemu.bt")]) == 2
    assert main([*words, "-o", str(tmp_path)]) == 2
    assert out.read_text() == printed
    for more in (["--path", "a b"], ["--path", "qemu"]):
        assert main([*words, *more]) == 2
    capsys.readouterr()
    assert main(["trace-script", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
    for bad in (["--pid", "0"], [*words[1:], "--name-offset", "3"], []):
        with pytest.raises(SystemExit):
            main(["trace-script", *bad])


def test_a_process(capsys: pytest.CaptureFixture[str]) -> None:
    """This one is no QEMU."""
    assert main(["trace-script", "--pid", str(os.getpid())]) == 2
    assert "does not export" in capsys.readouterr().err


def test_its_lines_are_read(tmp_path: Path) -> None:
    """Each text that it prints is one of QEMU's events."""
    program = bpftrace_program(FakeElf().open(tmp_path), PATH)
    texts = "".join(
        re.findall(r'printf\("((?:[^"\\]|\\.)*)"', program)
    ).split("\\n")
    assert texts.pop() == ""
    values = {
        "%s uprobe qemu[%d]: ": "1700000000.123456 uprobe qemu[42]: ",
        "(%s)": "(vf0)",
        "running %d reason %d (vf0)": "running 0 reason 7 (finish-migrate)",
        "reason %s": "reason finish-migrate",
        "state %s": "state STOP",
        "%d": "1",
    }
    lines = []
    for text in texts:
        line = text
        for old, new in values.items():
            line = line.replace(old, new)
        if "migrate_set_state" in line:
            line = line.replace("STOP", "active")
        lines += [x for x in re.split(r"(?=1700000000)", line) if x]
    log = tmp_path / "log"
    log.write_text("".join(f"{line}\n" for line in lines))
    with log.open("rb") as stream:
        records = list(TraceReader(stream, "log"))
    assert {record.event for record in records} >= {
        "vm_state_notify",
        "migrate_set_state",
        "vfio_migration_set_state",
        "vfio_migration_set_device_state",
        "vfio_save_cleanup",
        "vfio_load_cleanup",
    }
    assert {record.thread for record in records} == {42}
    assert {record.time_ns for record in records} == {
        1_700_000_000_123_456_000
    }
