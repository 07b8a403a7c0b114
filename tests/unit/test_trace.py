# SPDX-License-Identifier: GPL-2.0-or-later
"""The log reader: every format is written and read; hostile input."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qemu_log import PREFIXES, devices, migrate, prefix, prefixes_of
from qemu_log import FakeQemu as Qemu
from vfio_p2p.errors import TraceError
from vfio_p2p.trace import (
    VERSIONS,
    Kind,
    Record,
    Summary,
    TraceReader,
    printable,
)
from vfio_p2p.trace import reader as reader_module
from vfio_p2p.trace.formats import (
    FORMATS,
    MESSAGES,
    Format,
    numbers,
)
from vfio_p2p.uapi import DeviceState

CONTROLS = bytes(set(range(32)) - set(b"\t")) + b"\x7f"
NAME = st.text(
    st.characters(codec="utf-8", exclude_characters="()\n\r", categories=(
        "L", "N", "P", "S")),
    min_size=1, max_size=40,
)
VALUES = {
    "device": NAME,
    "state": st.sampled_from([s.name for s in DeviceState]),
    "recover": st.sampled_from([s.name for s in DeviceState]),
    "reason": st.sampled_from(["running", "finish-migrate", "shutdown"]),
    "status": st.sampled_from(["active", "pre-switchover", "completed"]),
}
NUMBER = st.integers(0, 2**64 - 1)


def read(data: bytes) -> tuple[list[Record], Summary]:
    reader = TraceReader(io.BytesIO(data), "a.log")
    return list(reader), reader.summary


def fields(data: st.DataObject, fmt: Format) -> dict[str, object]:
    names = [
        part.split("}")[0].split(":")[0]
        for part in fmt.template.split("{")[1:]
    ]
    numeric = numbers(fmt.template)
    return {
        name: data.draw(
            NUMBER if name in numeric
            else VALUES.get(name, st.sampled_from(["x-1", "0000:00:01.0/a"]))
        )
        for name in names
    }


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f"{f.event}-{f.since}")
@settings(max_examples=25)
@given(data=st.data())
def test_round_trip(fmt: Format, data: st.DataObject) -> None:
    values = fields(data, fmt)
    kind = data.draw(st.sampled_from(PREFIXES))
    time_ns = data.draw(st.integers(0, 4 * 10**9 * 10**6)) * 1000
    thread = data.draw(st.integers(1, 2**22))
    line = prefix(kind, time_ns, thread) + fmt.text(values)
    (record,), summary = read(f"\nforeign\n{line}\n".encode())
    assert record.event == fmt.event
    assert dict(record.fields) == values
    assert record.line == 3
    assert record.text == line
    assert record.time_ns == (None if kind == "none" else time_ns)
    assert record.thread == (
        thread if kind in ("thread", "context") else None
    )
    assert record.kind is (
        Kind.PREPARE if values.get("pre") else fmt.kind
    )
    assert summary == Summary(
        "a.log", len(line.encode()) + 10, 3, 1, False, summary.versions
    )


def test_event_and_text_are_two_blanks_apart() -> None:
    # The backend prints "event ", and the format begins with a blank.
    (record,), _ = read(
        b"148@1795400972.024324:vfio_vmstate_change_prepare  (src0) "
        b"running 1 reason running device state RUNNING_P2P\n"
    )
    assert record.kind is Kind.PREPARE
    assert record.time_ns == 1795400972024324000
    assert record.thread == 148
    assert dict(record.fields) == {
        "device": "src0",
        "running": 1,
        "reason": "running",
        "state": "RUNNING_P2P",
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_the_version_is_recognized(version: str) -> None:
    for kind in prefixes_of(version):
        qemu = migrate(Qemu(devices("a"), version=version, prefix=kind))
        _, summary = read(qemu.log())
        assert summary.versions is not None
        since, until = map(VERSIONS.index, summary.versions)
        assert since <= VERSIONS.index(version) <= until


def test_no_single_version_fits() -> None:
    old = migrate(Qemu(devices("a"), version="9.0")).log()
    new = migrate(Qemu(devices("a"), version="9.1")).log()
    assert read(old + new)[1].versions is None


def test_set_state_means_two_things() -> None:
    records, _ = read(
        b"vfio_migration_set_state  (a) state STOP\n"
        b"vfio_migration_set_state  (a) new state STOP, recover state ERROR\n"
        b"vfio_migration_set_device_state  (a) state STOP\n"
    )
    assert [r.kind for r in records] == [
        Kind.SUCCEEDED,
        Kind.ATTEMPT,
        Kind.CHANGED,
    ]


def test_foreign_lines_and_messages() -> None:
    records, summary = read(
        b"qemu-system-x86_64: warning: something\n"
        b"vfio_region_write  (a:region0+0x10, 0x0, 4)\n"
        b"2026-11-23T02:39:06.346411Z qemu: load of migration failed: "
        b"Input/output error\n"
        b"qemu: a: Failed setting device state to STOP, err: x\r\n"
    )
    assert [(r.line, r.kind) for r in records] == [
        (1, Kind.REMARK),
        (3, Kind.MESSAGE),
        (4, Kind.MESSAGE),
    ]
    assert summary.lines == 4


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_is_found(message: str) -> None:
    (record,), _ = read(f"qemu: a: {message} x\n".encode())
    assert record.kind is Kind.MESSAGE


@pytest.mark.parametrize(
    "line",
    [
        b"vfio_vmstate_change  (a) running 1 reason runn",
        b"vfio_migration_set_state  (a) newest state STOP",
        b"qemu: vfio_vmstate_change  (a) running 1 reason running device "
        b"state STOP",
        b"vfio_vmstate_change  (a) running 1 reason running device state "
        b"RUNNING" + b" " * 5000 + b"?",
    ],
)
def test_damaged_lines_are_reported(line: bytes) -> None:
    (record,), _ = read(line + b"\n")
    assert record.kind is Kind.UNKNOWN


def test_a_damaged_line_that_no_rule_needs_is_ignored() -> None:
    assert read(b"vfio_save_block  (a) data_size many\n")[0] == []


def test_cut() -> None:
    data = b"vfio_save_cleanup  (a)\nvfio_save_cleanup  (b)"
    records, summary = read(data)
    assert [r.device for r in records] == ["a"]
    assert summary.cut
    assert not read(data + b"\n")[1].cut


@pytest.mark.parametrize(
    "data",
    [
        b"\x7fELF\x02\x01\x01\0\0\0",
        b"text\n" * 500_000 + b"\0",
        bytes(range(1, 32)) * 4,
    ],
)
def test_binary_is_refused(data: bytes) -> None:
    with pytest.raises(TraceError, match=r"a\.log is a binary file") as info:
        read(data)
    assert info.value.exit_code == 2
    assert "'simple'" in info.value.hint


def test_an_impossible_time_is_no_time() -> None:
    (record,), _ = read(b"2026-13-41T00:00:00Z vfio_save_cleanup  (a)\n")
    assert record.time_ns is None


def test_chunk_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    data = migrate(Qemu(devices("a", "b"))).log() + b"cut"
    whole = read(data)
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr(reader_module, "_CHUNK_BYTES", size)
        assert read(data) == whole


class _Endless(io.RawIOBase):
    """One line of a given size, whose bytes are made when they are read."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        count = min(size, self._left)
        self._left -= count
        return b"vfio_save_cleanup  (" [:count].ljust(count, b"a")


def test_an_endless_line_costs_no_memory() -> None:
    tracemalloc.start()
    try:
        reader = TraceReader(_Endless(64 << 20), "a.log")  # type: ignore[arg-type]
        assert list(reader) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reader.summary.size_bytes == 64 << 20
    assert peak < 8 << 20


def _lines() -> Iterator[bytes]:
    yield from migrate(Qemu(devices("a", "b"))).log().splitlines(True)
    yield from (b"\xff\xfe", b"\n", b"vfio_vmstate_change  (", b"\x1b[2J")


@given(st.lists(st.sampled_from(list(_lines())) | st.binary(max_size=30)))
def test_random_bytes_never_crash(parts: list[bytes]) -> None:
    data = b"".join(parts)
    try:
        records, summary = read(data)
    except TraceError:
        return
    assert summary.lines == data.count(b"\n")
    assert all(r.line <= summary.lines for r in records)
    assert all(printable(r.text).isprintable() for r in records)


NOISE = (
    b"vfio_region_write  (a:region0+0x10, 0x0, 4)\nmigrating device v g\n",
    *(f"qemu: a: {message} x\n".encode() for message in MESSAGES),
)


@given(
    st.lists(
        st.sampled_from([*_lines(), *NOISE]) | st.binary(max_size=30)
    )
)
def test_lines_are_read_one_by_one(parts: list[bytes]) -> None:
    # A search over many lines at once finds the same as each line alone.
    lines = [
        line for part in parts for line in part.split(b"\n")
        if not set(line) & set(CONTROLS)
    ]
    # A file that begins otherwise may be taken for one that is compressed.
    first = b"plain\n"
    found, _ = read(first + b"".join(line + b"\n" for line in lines))
    single = [read(first + line + b"\n")[0] for line in lines]
    assert [(r.line, r.text) for r in found] == [
        (number, record.text)
        for number, records in enumerate(single, 2)
        for record in records
    ]


def test_printable() -> None:
    assert printable("straße (a)") == "straße (a)"
    assert printable("\x1b[2J\u202ea\n") == r"\x1b[2J\u202ea\n"
