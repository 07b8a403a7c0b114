# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of up to 1 MiB that took too long, or ended in a traceback."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import vfio_p2p
from histories import MS, entries
from qemu_log import FakeQemu, devices, migrate, receive
from vfio_p2p.attach.elf import Elf
from vfio_p2p.errors import HistoryError, SourceError, UsageError
from vfio_p2p.history.database import open_history
from vfio_p2p.qemu.binary import find_binary

ROOT = Path(vfio_p2p.__file__).parent
FUZZ = Path(__file__).resolve().parents[1] / "fuzz" / "fuzz.py"
_BYTES = (1 << 20) - 1000

SOURCE = migrate(FakeQemu(devices("src0", "src1"))).log()
DESTINATION = receive(FakeQemu(devices("dst0", "dst1"))).log()


def repeated(make: Callable[[int], bytes], head: bytes = b"") -> bytes:
    """Return a file that is as large as one can be.

    :param make: Makes a part from its number.
    :param head: What comes first.
    """
    parts, size = [head], len(head)
    while size < _BYTES:
        parts.append(make(len(parts)))
        size += len(parts[-1])
    return b"".join(parts)


def line(number: int, text: str, thread: int = 1) -> bytes:
    """Return a line of QEMU's log."""
    return f"{thread}@17{number:08d}.000000:{text}\n".encode()


def missing() -> bytes:
    """Of each run-state change, most callbacks are missing."""
    state = "RUNNING_P2P"
    return repeated(
        lambda n: line(
            n,
            f"vfio_migration_set_state (d1) new state {state}, recover state "
            "ERROR",
        )
        + line(n, f"vfio_migration_set_device_state (d1) state {state}")
        + line(
            n,
            "vfio_vmstate_change_prepare (d1) running 0 reason "
            f"{('shutdown', 'paused')[n % 2]} device state {state}",
        ),
        line(0, "vfio_migration_realize (d0)")
        + line(0, "vfio_migration_realize (d1)"),
    )


def stops() -> bytes:
    """Devices appear while the VM is stopped and started."""
    return repeated(
        lambda n: line(n, f"vfio_migration_realize (d{n})")
        + line(n, f"vm_state_notify running {n % 2} reason 1 (paused)")
    )


def qemus() -> bytes:
    """Each line is another QEMU's."""
    return repeated(
        lambda n: line(n, f"vfio_migration_realize (d{n})", thread=n)
    )


def mixed() -> bytes:
    """Two QEMUs, whose lines do not name a thread."""
    text = b"".join(
        x.partition(b":")[2]
        for x in (SOURCE + DESTINATION).splitlines(keepends=True)
    )
    return repeated(
        lambda n: b"vm_state_notify running 0 reason 9 (x)\n", text
    )


def events() -> bytes:
    """QMP events of one device, which goes to and fro."""
    names = ("STOP", "VFIO_MIGRATION", "RESUME", "VFIO_MIGRATION")

    def event(number: int) -> bytes:
        state = ("stop", "running")[number // 2 % 2]
        document = {
            "event": names[number % 4],
            "timestamp": {"seconds": 17 * 10**8 + number, "microseconds": 0},
            "data": {
                "device-id": "a",
                "qom-path": "/a",
                "device-state": state,
            },
        }
        return json.dumps(document).encode() + b"\n"

    return repeated(event)


@pytest.mark.parametrize("make", [missing, stops, qemus, mixed, events])
def test_logs_take_no_longer_than_their_size(
    make: Callable[[], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "input"
    path.write_bytes(make())
    done = subprocess.run(
        [sys.executable, FUZZ, "replay", "log", path],
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # The kernel has ended it if it took more than 5 s of CPU time.
    assert done.returncode == 0, (done.returncode, done.stderr)


def elf(body: bytes, **fields: int) -> bytes:
    """Return a program of a header and something behind it."""
    values = {
        "segments": 0, "sections": 0, "segment_bytes": 56, "segment_count": 0,
        "section_bytes": 64, "section_count": 0, **fields,
    }  # fmt: skip
    return (
        b"\x7fELF\x02\x01" + bytes(10)
        + struct.pack(
            "<HHIQQQIHHHHHH", 3, 62, 1, 0,
            values["segments"], values["sections"], 0, 64,
            values["segment_bytes"], values["segment_count"],
            values["section_bytes"], values["section_count"], 0,
        )
        + body
    )  # fmt: skip


def table(offset: int, size: int) -> bytes:
    """Return the section of a symbol table."""
    return struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, offset, size, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        # The same section many times, or the same table in many sections.
        elf(table(128, 999_984) + bytes(1_000_000), sections=64,
            section_bytes=0, section_count=65535),
        elf(table(64 + 64 * 999, 900_000) * 999 + bytes(900_000), sections=64,
            section_count=999),
        # These are nowhere in a file.
        elf(b"", segments=2**64 - 1, segment_count=1),
        elf(b"", sections=2**63, section_count=1),
    ],
    ids=["sections", "tables", "far segments", "far sections"],
)  # fmt: skip
def test_programs_for_trace_script(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "qemu"
    path.write_bytes(data)
    with pytest.raises(SourceError, match="is damaged"):
        Elf(path)


@pytest.mark.parametrize(
    "loader",
    [b"x", b"/a\0b", b"/" + b"a" * 300],
    ids=["relative", "zero", "long"],
)
def test_loaders_that_are_no_path(loader: bytes, tmp_path: Path) -> None:
    path = tmp_path / "qemu"
    segment = struct.pack("<IIQQQQQQ", 3, 0, 120, 0, 0, len(loader), 0, 0)
    path.write_bytes(elf(segment + loader, segments=64, segment_count=1))
    with pytest.raises(UsageError, match="is a damaged program"):
        find_binary(path)


def test_segments_that_are_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "qemu"
    path.write_bytes(elf(b"", segments=2**64 - 1, segment_count=9))
    with pytest.raises(UsageError, match="is a damaged program"):
        find_binary(path)


@pytest.mark.parametrize("time_s", [-1, 2**63 - 1])
def test_results_of_no_time(time_s: int, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    with open_history(path, write=True) as history:
        history.add(entries([300 * MS]))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE result SET recorded_s = ?", (time_s,))
    with (
        open_history(path) as history,
        pytest.raises(HistoryError, match="no time that there is"),
    ):
        list(history.entries())


def test_a_schema_that_is_no_text(tmp_path: Path) -> None:
    """SQLite quotes it in its error, which Python cannot decode then."""
    path = tmp_path / "history.sqlite3"
    with open_history(path, write=True) as history:
        history.add(entries([300 * MS]))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    data = path.read_bytes()
    at = data.index(b"CREATE TABLE metric") + 7
    path.write_bytes(data[:at] + b"\x89\x8c" + data[at + 2 :])
    with pytest.raises(HistoryError), open_history(path):
        pass
