# SPDX-License-Identifier: GPL-2.0-or-later
"""The reader on files of the `simple` backend."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qemu_log import FakeQemu, devices, migrate, receive
from simple_trace import (
    MAGIC,
    SimpleFile,
    as_simple,
    event,
    header,
    mapping,
)
from test_trace import VALUES
from vfio_p2p.errors import TraceError
from vfio_p2p.oracle import Criteria, Judgement, judge
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Side, Timeline, build
from vfio_p2p.trace import (
    VERSIONS,
    Backend,
    Kind,
    Record,
    Summary,
    TraceReader,
)
from vfio_p2p.trace import reader as reader_module
from vfio_p2p.trace.formats import FORMATS, Format, arguments

DATA = Path(__file__).with_name("data")
STATES = ("vfio_migration_set_device_state", "a", "STOP")


def read(data: bytes) -> tuple[list[Record], Summary]:
    reader = TraceReader(io.BytesIO(data), "a.trace")
    return list(reader), reader.summary


def timeline(data: bytes, side: Side = Side.SOURCE) -> Timeline:
    return build(TraceReader(io.BytesIO(data), f"{side}.trace"), side)


def says(records: list[Record]) -> list[tuple[int, str, Kind, object]]:
    """Return the parts of records that both backends have in common."""
    return [(r.line, r.event, r.kind, dict(r.fields)) for r in records]


def migration(version: str = "10.0") -> bytes:
    log = migrate(FakeQemu(devices("a", "b"), version=version)).log()
    return as_simple(read(log)[0]).data


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f"{f.event}-{f.since}")
@settings(max_examples=25)
@given(data=st.data())
def test_round_trip(fmt: Format, data: st.DataObject) -> None:
    ranges: dict[str, st.SearchStrategy[int]] = {
        "d": st.integers(-(2**63), 2**63 - 1),
        "u": st.integers(0, 2**64 - 1),
        "x": st.integers(0, 2**64 - 1),
    }
    words = st.sampled_from(["x-1", "0000:00:01.0/a"])
    values: dict[str, int | str] = {
        name: data.draw(ranges[kind])
        if kind
        else data.draw(VALUES.get(name, words))
        for name, kind in arguments(fmt.template)
    }
    made = SimpleFile()
    made.add("foreign", "x", 2)
    made.add(fmt.event, *values.values(), time_ns=77)
    made.add("foreign", "x", 2)
    (record,), summary = read(made.data)
    assert dict(record.fields) == values
    assert list(record.fields) == list(values)
    assert (record.line, record.time_ns, record.event) == (2, 77, fmt.event)
    assert record.kind is (
        Kind.PREPARE if values.get("pre") else fmt.kind
    )
    assert record.text.startswith(fmt.event)
    assert summary.versions is not None
    since, until = map(VERSIONS.index, summary.versions)
    assert since <= VERSIONS.index(fmt.since)
    assert VERSIONS.index(fmt.versions[1]) <= until
    assert summary == Summary(
        "a.trace", len(made.data), 3, 1, False, summary.versions,
        Backend.SIMPLE,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_both_backends_give_the_same_records(version: str) -> None:
    log = migrate(FakeQemu(devices("a", "b"), version=version)).log()
    records, _ = read(log)
    found, summary = read(as_simple(records).data)
    assert says(found) == says(records)
    assert summary.versions is not None
    since, until = map(VERSIONS.index, summary.versions)
    assert since <= VERSIONS.index(version) <= until


@pytest.mark.parametrize("side", ["source", "destination"])
def test_real_files(side: str) -> None:
    # This is one run of QEMU 10.0.13 with both backends, in the testbed.
    # Only the names of events that do not occur were removed.
    name = f"qemu-10.0.13-two-backends.{side}"
    log, _ = read((DATA / f"{name}.log").read_bytes())
    found, summary = read((DATA / f"{name}.trace").read_bytes())
    assert found
    assert says(found) == says(log)
    assert [r.text for r in found] == [
        r.text.partition(":")[2] for r in log
    ]
    assert summary.backend is Backend.SIMPLE
    # Both clocks run equally fast, though they count from different times.
    apart = [
        a.time_ns - b.time_ns
        for a, b in zip(log, found, strict=True)
        if a.time_ns and b.time_ns
    ]
    assert max(apart) - min(apart) < 10**6 < min(apart)


def test_unknown_arguments_are_reported() -> None:
    made = SimpleFile()
    made.add(*STATES[:2])
    made.add("vfio_migration_set_device_state", "a", "not a state")
    made.add("vfio_migration_set_device_state", "a", 3)
    made.add("vfio_migration_set_device_state", "a", "STOP" * 600)
    made.add("vfio_save_block", "a")
    records, summary = read(made.data)
    assert [r.line for r in records] == [1, 2, 3, 4]
    assert {r.kind for r in records} == {Kind.UNKNOWN}
    assert all(len(r.text) < 200 and r.text.isprintable() for r in records)
    assert summary.lines == 5
    assert len(timeline(made.data).gaps) == 4


def test_each_file_numbers_its_events() -> None:
    data = header() + mapping(9, STATES[0]) + event(9, 1, "a", "STOP")
    data += mapping(9, "vfio_save_cleanup") + event(9, 2, "a")
    assert [r.event for r in read(data)[0]] == [STATES[0], "vfio_save_cleanup"]


def test_chunk_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    made = SimpleFile()
    made.add("foreign", "x" * 500)
    data = migration() + made.data[len(header()):]
    whole = read(data)
    assert not whole[1].cut
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr(reader_module, "_CHUNK_BYTES", size)
        assert read(data) == whole
        with pytest.raises(TraceError, match=f"at byte {len(data)} "):
            read(data + b"\2" * 40)


def test_every_cut_is_seen() -> None:
    made = as_simple(read(migrate(FakeQemu(devices("a"))).log())[0])
    made.add("foreign", "x" * 30)
    begin = len(header())
    records, whole = read(made.data)
    ends = [0]
    for size in range(begin, len(made.data) + 1):
        found, summary = read(made.data[:size])
        assert found == records[: len(found)]
        # A file that lacks its last record does not look cut.
        if not summary.cut:
            ends.append(summary.lines)
        assert summary.lines == ends[-1]
    assert sorted(set(ends)) == list(range(whole.lines + 1))
    for size in range(8, begin):
        with pytest.raises(TraceError, match=f"after {size} bytes"):
            read(made.data[:size])


def test_a_cut_mapping() -> None:
    data = header() + mapping(1, "ab")
    assert not read(data)[1].cut
    for size in range(len(header()) + 1, len(data)):
        assert read(data[:size])[1].cut


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (header(version=3), "version 3 .* not 4"),
        (header(version=5), "version 5 .* not 4"),
        (header(order=">"), "big-endian"),
        (header(magic=1), "binary file"),
        (b"\xff" * 100, "binary file"),
        (header() + event(5, 1), "at byte 24 "),
        (header() + mapping(1, "x") + b"\2" * 40, "at byte 45 "),
        (header() + b"\0" * 16 + b"\xff" * 20, "at byte 24 "),
        (
            header() + b"".join(mapping(n, "x") for n in range(70_000)),
            "one event name too many",
        ),
        # An event's length that is less than its own head, or too large.
        (
            header() + mapping(1, STATES[0])
            + event(1, 1)[:24] + b"\x17\0\0\0" + b"\0" * 8,
            "at byte 75 ",
        ),
        (
            header() + mapping(1, STATES[0])
            + event(1, 1)[:24] + b"\1\0\4\0" + b"\0" * 8,
            "at byte 75 ",
        ),
    ],
)
def test_damage_is_reported(data: bytes, what: str) -> None:
    with pytest.raises(TraceError, match=what) as info:
        read(data)
    assert info.value.what.startswith("a.trace")
    assert info.value.hint
    assert info.value.exit_code == 2


@given(
    at=st.integers(0, 10**6),
    junk=st.binary(min_size=1, max_size=30),
)
def test_random_damage_never_crashes(at: int, junk: bytes) -> None:
    data = migration()
    begin = at % len(data)
    data = data[:begin] + junk + data[begin + len(junk) :]
    try:
        records, summary = read(data)
    except TraceError:
        return
    assert all(0 < r.line <= summary.lines for r in records)


class _Endless(io.RawIOBase):
    """A file with a damaged length of 4 GiB, and fewer bytes."""

    def __init__(self, name: str, size: int) -> None:
        self._head = header() + mapping(1, name) + event(1, 1)[:24]
        self._head += b"\xff" * 8
        self._left = size

    def read(self, size: int = -1) -> bytes:
        head, self._head = self._head, b""
        count = min(size, self._left)
        self._left -= count
        return head or bytes(count)


def test_a_damaged_length_costs_no_memory() -> None:
    stream = _Endless("foreign", 64 << 20)
    tracemalloc.start()
    try:
        reader = TraceReader(stream, "a.trace")  # type: ignore[arg-type]
        assert list(reader) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reader.summary.cut
    assert peak < 8 << 20


def _judge(source: bytes, destination: bytes) -> Judgement:
    return judge(
        timeline(source, Side.SOURCE),
        timeline(destination, Side.DESTINATION),
        Criteria(),
    )


def _later(records: list[Record]) -> SimpleFile:
    """Return a destination's file, which loads before the source is done."""
    return as_simple(records, 16_630_799_358_547)


def _sides() -> tuple[list[Record], list[Record]]:
    return (
        read(migrate(FakeQemu(devices("a", "b"))).log())[0],
        read(receive(FakeQemu(devices("a", "b"))).log())[0],
    )


def test_verdict_and_blackout() -> None:
    source, destination = _sides()
    found = _judge(as_simple(source).data, _later(destination).data)
    assert found.verdict is Verdict.PASS
    assert found.blackout is not None
    assert found.blackout.exact
    assert "one host" in found.blackout.note


def test_blackout_of_real_files() -> None:
    lengths = []
    for kind in ("log", "trace"):
        source, destination = (
            (DATA / f"qemu-10.0.13-two-backends.{side}.{kind}").read_bytes()
            for side in Side
        )
        found = _judge(source, destination)
        assert found.verdict is Verdict.PASS
        assert found.blackout is not None
        lengths.append(found.blackout.duration_ns)
    # The log's times are whole microseconds.
    assert lengths == [61_237_000, 61_236_362]


def test_two_clocks_are_not_compared() -> None:
    records, destination = _sides()
    log = migrate(FakeQemu(devices("a", "b"))).log()
    # The destination is so late that the difference looks plausible.
    late = as_simple(destination, 1_700_000_000_100_000_000)
    found = _judge(log, late.data)
    assert found.verdict is Verdict.PASS
    assert found.blackout is not None
    assert found.blackout.duration_ns is None
    assert "clocks" in found.blackout.note
    assert _judge(as_simple(records).data, late.data).blackout


def test_dropped_events_make_it_inconclusive() -> None:
    source, destination = map(as_simple, _sides())
    source.drop(12)
    records, _ = read(source.data)
    assert records[-1].kind is Kind.DROPPED
    assert "12" in records[-1].text
    found = _judge(source.data, destination.data)
    assert found.verdict is Verdict.INCONCLUSIVE
    (note,) = found.notes
    assert "buffer was full" in note.message
    assert note.lines() == [f"source.trace:{len(records)}: dropped 12 events"]


@settings(max_examples=200)
@given(data=st.data())
def test_dropped_events_accuse_nobody(data: st.DataObject) -> None:
    source, destination = _sides()
    gone = data.draw(st.sets(st.sampled_from(range(len(source))), min_size=1))
    made = as_simple(r for i, r in enumerate(source) if i not in gone)
    made.drop(len(gone))
    found = _judge(made.data, _later(destination).data)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert not found.findings


def test_events_can_be_excluded() -> None:
    name = "vfio_load_state_device_buffer_start"
    made = SimpleFile()
    for _ in range(3):
        made.add(name, "a")
        made.add(*STATES)
    log = b"".join(r.text.encode() + b"\n" for r in read(made.data)[0])
    for data in made.data, log:
        reader = TraceReader(io.BytesIO(data), "a.trace")
        assert [r.line for r in reader.without({name})] == [2, 4, 6]
        assert reader.summary.lines == 6
        # An excluded event still tells the version.
        assert reader.summary.versions == ("10.0", "11.1")
    assert timeline(made.data).others == ()


def test_magic_is_what_qemu_writes() -> None:
    real = (DATA / "qemu-10.0.13-two-backends.source.trace").read_bytes()
    assert real.startswith(header(MAGIC))
