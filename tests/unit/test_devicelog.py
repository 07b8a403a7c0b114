# SPDX-License-Identifier: GPL-2.0-or-later
"""The reader of p2psim's logs: every event, and every kind of damage."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vfio_p2p.errors import TraceError
from vfio_p2p.trace import DeviceLog, devicelog, read_device_log
from vfio_p2p.trace.device import (
    ChecksumBad,
    ChecksumOk,
    Close,
    DeviceReset,
    Dma,
    DmaMemory,
    Dropped,
    Fault,
    Gone,
    Heartbeat,
    Live,
    Loaded,
    LoggingReport,
    LoggingStarted,
    LoggingStopped,
    Lost,
    Open,
    Peer,
    Quiet,
    Reinit,
    Request,
    RequestResult,
    ResetDeferred,
    Saved,
    Walked,
)
from vfio_p2p.uapi import DeviceState as S

NAME = "devices/src0.log"
HEADER = "p2psim-log version={} clock=CLOCK_REALTIME\n"


def read(*lines: str, version: int = 2) -> DeviceLog:
    text = HEADER.format(version) + "".join(f"{line}\n" for line in lines)
    return read_device_log(io.BytesIO(text.encode()), NAME)


def fails(why: str, *lines: str, version: int = 2) -> None:
    with pytest.raises(TraceError, match=why):
        read(*lines, version=version)


def fields(entry: object) -> tuple[object, ...]:
    """Return the values of an entry, without its position."""
    common = {"file", "line", "time_ns", "text"}
    names = getattr(type(entry), "__dataclass_fields__", ())
    return tuple(getattr(entry, x) for x in names if x not in common)


CALL = (
    "5 request from=RUNNING to=STOP",
    "6 arc from=RUNNING to=RUNNING_P2P ret=0 start_ns=5 end_ns=6",
    "7 arc from=RUNNING_P2P to=STOP ret=-5 start_ns=6 end_ns=7",
    "8 result to=STOP state=RUNNING_P2P ret=-5",
)


@pytest.mark.parametrize(
    ("text", "kind", "values", "since"),
    [
        ("gone", Gone, (), 1),
        ("open", Open, (), 1),
        ("close state=STOP", Close, (S.STOP,), 1),
        ("reset state=ERROR", DeviceReset, (S.ERROR,), 1),
        ("request from=RUNNING to=STOP", Request, (S.RUNNING, S.STOP), 1),
        ("request from=STOP to=INVALID", Request, (S.STOP, None), 1),
        ("saved bytes=9 complete=1 crc32=0000abcd", Saved,
         (9, True, 0xABCD), 1),
        ("loaded bytes=0 complete=0", Loaded, (0, False), 1),
        ("checksum ok crc32=ffffffff", ChecksumOk, (0xFFFFFFFF,), 1),
        ("checksum bad reason=short", ChecksumBad, ("short", None, None), 1),
        ("checksum bad reason=mismatch sent=00000001 found=00000002",
         ChecksumBad, ("mismatch", 1, 2), 1),
        ("dropped count=7", Dropped, (7,), 1),
        ("lost from=0 to=1 seq=4 from_state=PRE_COPY to_state=STOP_COPY",
         Lost, (0, 1, 4, S.PRE_COPY, S.STOP_COPY), 2),
        ("lost from=0 to=1 seq=4 from_state=RUNNING to_state=CLOSED",
         Lost, (0, 1, 4, S.RUNNING, None), 2),
        ("fault arc PRE_COPY PRE_COPY_P2P 1 fail EIO", Fault,
         ("arc PRE_COPY PRE_COPY_P2P 1 fail EIO",), 2),
        ("quiet waited_ns=10000 outstanding=2", Quiet, (10000, 2), 2),
        ("peer id=1 when=saved sent=5 received=6 lost=0 doubled=0 missed=0",
         Peer, (1, "saved", 5, 6, 0, 0, 0), 2),
        ("heartbeat when=close count=3 first=5 first_ns=10 last=8 last_ns=40 "
         "gap_start_ns=20 gap_end_ns=40 missed=1 repeated=0 untimely=2",
         Heartbeat, ("close", 3, 5, 10, 8, 40, 20, 40, 1, 0, 2), 3),
        ("reinit initial_bytes=4096 announced=1", Reinit, (4096, True), 4),
        ("deferred", ResetDeferred, (), 5),
        ("dma when=stop seq=9 failed=1 error=-14", Dma, ("stop", 9, 1, -14),
         6),
        ("dma memory last=9 pages=8 stale=2 empty=1 error=0", DmaMemory,
         (9, 8, 2, 1, 0), 6),
        ("logging started ranges=2 pages=8 page_size=4096", LoggingStarted,
         (2, 8, 4096), 6),
        ("logging report pages=8 seq=99", LoggingReport, (8, 99), 6),
        ("logging stopped reported=8 left=3", LoggingStopped, (8, 3), 6),
    ],
)  # fmt: skip
def test_every_event(
    text: str, kind: type, values: tuple[object, ...], since: int
) -> None:
    line = f"1767225604164402556 {text}"
    (entry,) = read(line, version=6).entries
    assert type(entry) is kind
    assert fields(entry) == values
    assert (entry.file, entry.line) == (NAME, 2)
    assert entry.time_ns == 1767225604164402556
    assert entry.text.endswith(text)
    assert len(read(line, version=since).entries) == 1
    if since > 1:
        fails(f"{NAME}:2: ", line, version=since - 1)


def test_settings() -> None:
    log = read(
        "1 live size_bytes=4096 flags= peer_group=g peer_id=3 peers=",
        "2 live size_bytes=4096 flags=stop_copy,p2p",
    )
    with_peers, without = log.of(Live)
    assert with_peers.settings["flags"] == ""
    assert with_peers.peer_id == 3
    assert without.peer_id is None


def test_calls() -> None:
    (call,) = read(*CALL, "9 open").calls
    assert call.request.target is S.STOP
    assert [step.target for step in call.steps] == [S.RUNNING_P2P, S.STOP]
    assert fields(call.steps[1]) == (S.RUNNING_P2P, S.STOP, -5, 6, 7)
    assert isinstance(call.steps[0], Walked)
    assert isinstance(call.result, RequestResult)
    assert fields(call.result) == (S.STOP, S.RUNNING_P2P, -5)
    assert [entry.line for entry in call.entries] == [2, 5]


def test_a_call_without_its_end() -> None:
    (call,) = read(*CALL[:2]).calls
    assert call.result is None
    assert call.entries == (call.request,)


def test_one_user_of_several() -> None:
    log = read(
        "1 live flags=",
        "2 open",
        *CALL,
        "9 close state=STOP",
        "11 open",
        "12 request from=RUNNING to=STOP",
        "13 result to=STOP state=STOP ret=0",
        "14 dropped count=2",
    )
    for time_ns, lines, calls in (
        (1, [2], 0),
        (2, [2, 3, 4, 5, 6, 7, 8], 1),
        (10, [2, 3, 4, 5, 6, 7, 8], 1),
        (11, [2, 9, 10, 11], 1),
        (99, [2, 9, 10, 11], 1),
    ):
        part = log.opened_at(time_ns)
        assert [entry.line for entry in part.entries] == [*lines, 12]
        assert len(part.calls) == calls
        assert not part.whole


def test_a_full_log_is_not_whole() -> None:
    assert read("1 open").whole
    assert not read("1 open", "2 dropped count=1").whole


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["1 opened"], "no event 'opened'"),
        (["1 reset"], "these are not the keys of 'reset'"),
        (["1 reset state=RUNNING state=STOP"], "different keys"),
        (["1 reset state=RUNNING why=x"], "these are not the keys of 'reset'"),
        (["1 reset state=STOP more"], "not a list of different keys"),
        (["1 reset state=SLEEPING"], "state=SLEEPING is not a valid value"),
        (["1 close state=INVALID"], "is not a valid value"),
        (["1 loaded bytes=+1 complete=1"], r"bytes=\+1 is not a valid value"),
        (["1 loaded bytes=1 complete=2"], "complete=2 is not a valid value"),
        (["1 checksum ok crc32=ABCDEF00"], "is not a valid value"),
        (["1 checksum bad reason=tired"], "reason=tired is not a valid value"),
        (["1 checksum"], "no event 'checksum'"),
        (["x open"], "the line is not an event"),
        (["open"], "the line is not an event"),
        ([""], "the line is not an event"),
        (["1 open\x1b[31m"], "a device writes no such characters"),
        (["1 caf\u00e9"], "a device writes no such characters"),
        (["1 " + "x" * 2000], "no end"),
        (["1 heartbeat when=close count=1"], "no event 'heartbeat'"),
        ([CALL[1]], "does not follow"),
        ([CALL[3]], "does not follow"),
        ([CALL[0], CALL[0]], "does not follow"),
        ([CALL[0], "8 result to=RUNNING state=STOP ret=0"], "not follow"),
    ],
)
def test_damage(lines: list[str], why: str) -> None:
    fails(f"{NAME}:{len(lines) + 1}: .*{why}", *lines)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", ":1: this is not the log of a p2psim device"),
        (b"1 open\n", ":1: this is not the log"),
        (HEADER.format(7).encode(), ":1: version 7 .* newer .* up to 6"),
        (HEADER.format(1).replace("REALTIME", "BOOTTIME").encode(), "clock"),
        (HEADER.format(1)[:-1].encode(), ":1: the line has no end"),
        (HEADER.format(1).encode() + b"1 open", ":2: the line has no end"),
        (b"\0" * 5000, ":1: the line has no end"),
    ],
)
def test_files_that_are_no_device_log(data: bytes, why: str) -> None:
    with pytest.raises(TraceError, match=f"{NAME}.*{why}") as caught:
        read_device_log(io.BytesIO(data), NAME)
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_a_newer_log_may_look_as_it_likes() -> None:
    data = b"p2psim-log version=9 clock=CLOCK_REALTIME more=1\n?\n"
    with pytest.raises(TraceError, match="newer than this program"):
        read_device_log(io.BytesIO(data), NAME)


def test_an_endless_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devicelog, "_MOST_ENTRIES", 5)
    fails(f"{NAME}:6: a device.s log has fewer lines", *["1 open"] * 5)


@given(st.data())
def test_a_damaged_byte_is_an_error_or_a_value(data: st.DataObject) -> None:
    # No other exception may occur, whatever the log contains.
    whole = (HEADER.format(2) + "\n".join(CALL) + "\n").encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255))
    text = whole[:at] + bytes([byte]) + whole[at + 1 :]
    why = ""
    try:
        log = read_device_log(io.BytesIO(text), NAME)
    except TraceError as err:
        why = err.what
    assert re.match(rf"{NAME}:\d+: ", why) if why else (
        len(log.entries) == len(CALL)
    )
