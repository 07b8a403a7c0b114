# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs behind prefixes, in other tracers' forms, compressed or foreign."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import json
import lzma
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from qemu_log import FakeQemu, devices, migrate
from test_timeline import REAL
from vfio_p2p.cli import main
from vfio_p2p.errors import TraceError
from vfio_p2p.side import Side
from vfio_p2p.trace import Kind, Record, Summary, TraceReader, packed, wrapped

Capture = pytest.CaptureFixture[str]
Wrap = Callable[[str], str]
LINE = re.compile(r"(\d+)@(\d+)\.(\d+):(.*)")


def read(data: bytes) -> tuple[list[Record], Summary]:
    reader = TraceReader(io.BytesIO(data), "a.log")
    return list(reader), reader.summary


def plain(side: Side = Side.SOURCE) -> list[str]:
    return REAL[side].read_text().splitlines()


def moment(line: str, form: str) -> str:
    """Return the time of a line in another form; %N stands for the µs."""
    found = LINE.fullmatch(line)
    assert found
    when = datetime.fromtimestamp(int(found[2]), UTC)
    return when.strftime(form.replace("%N", found[3]).replace("%s", found[2]))


def bare(line: str) -> str:
    found = LINE.fullmatch(line)
    assert found
    return found[4]


def compact(**values: object) -> str:
    return json.dumps(values, separators=(",", ":"))


# What is put around whole lines.
AROUND: dict[str, Wrap] = {
    "syslog": lambda x: f"Nov  3 12:13:20 hv1 qemu-system-x86_64[12]: {x}",
    "syslog without a process id": lambda x: f"Nov 13 12:13:20 h qemu: {x}",
    "syslog with a priority": lambda x: f"<30>Nov 13 12:13:20 h q[1]: {x}",
    "syslog in ISO": lambda x: f"2024-11-13T12:13:20.1+01:00 h q[1]: {x}",
    "RFC 5424": lambda x: f"<30>1 2024-11-13T12:13:20Z h qemu 12 - - {x}",
    "journal": lambda x: f"Nov 13 12:13:20.123456 hv1 qemu-kvm[12]: {x}",
    "short-iso": lambda x: f"2024-11-13T12:13:20+0000 h libvirtd[12]: {x}",
    "short-full": lambda x: f"Wed 2024-11-13 12:13:20 UTC h qemu[12]: {x}",
    "short-monotonic": lambda x: f"[  123.456789] h qemu[12]: {x}",
    "short-unix": lambda x: f"1731500000.123456 h qemu[12]: {x}",
    "journal in JSON": lambda x: compact(
        _PID="12", MESSAGE=x, __REALTIME_TIMESTAMP="1731500000123456"
    ),
    "virt-launcher": lambda x: compact(
        component="virt-launcher", level="info", msg=x, subcomponent="qemu"
    ),
    "docker's file": lambda x: compact(
        log=f"{x}\n", stream="stderr", time="2024-11-13T12:13:20.123456789Z"
    ),
    "nested": lambda x: compact(ts=1, body={"message": x}),
    "docker -t": lambda x: f"2024-11-13T12:13:20.123456789Z {x}",
    "CRI": lambda x: f"2024-11-13T12:13:20.123456789Z stderr F {x}",
    "kubectl --prefix": lambda x: f"[pod/virt-launcher-a/compute] {x}",
    "compose": lambda x: f"qemu-1  | {x}",
    "ts": lambda x: f"Nov 13 12:13:20 {x}",
    "ts %.s": lambda x: f"1731500000.123456 {x}",
    "ts -s": lambda x: f"00:00:01 {x}",
    "python": lambda x: f"2024-11-13 12:13:20,123 DEBUG| {x}",
    "jenkins": lambda x: f"[2024-11-13T12:13:20.123Z] {x}",
    "grep -n": lambda x: f"12:{x}",
    "grep -H": lambda x: f"/var/log/vm-1.log:{x}",
    "grep -nH": lambda x: f"logs/vm.log:12:{x}",
    "grep -C": lambda x: f"vm.log-12-{x}",
    "quotation": lambda x: f"> {x}",
    "twice quoted": lambda x: f">> > {x}",
    "prompt": lambda x: f"(qemu) {x}",
    "prompts": lambda x: f"(qemu) (qemu) {x}",
    "indented": lambda x: f"    {x}",
    "terminal": lambda x: f"\x1b[K(qemu) {x}",
    "quoted syslog": lambda x: f"> Nov 13 12:13:20 h qemu[1]: {x}",
    "grep of a journal": lambda x: f"j.txt:3:Nov 13 12:13:20 h q[1]: {x}",
    "pdsh": lambda x: f"hv1.example.org: {x}",
    "CR LF": lambda x: f"{x}\r",
}


@pytest.mark.parametrize("name", AROUND)
def test_lines_behind_something(name: str) -> None:
    wanted, _ = read(REAL[Side.SOURCE].read_bytes())
    lines = [AROUND[name](x) for x in plain()]
    found, summary = read("".join(f"{x}\n" for x in lines).encode())
    # All of the record is as it is in the plain log, its text included.
    assert found == wanted
    assert bool(summary.wrapped) is (name != "CR LF")
    assert summary.versions == ("9.2", "10.0")


# Lines of which QEMU's own time and thread are gone.
INSTEAD: dict[str, Wrap] = {
    "stap": lambda x: f"12@{moment(x, '%s%N')}000 {bare(x)}",
    "journal": lambda x: moment(x, "%b %d %H:%M:%S.%N h qemu[12]: ")
    + bare(x),
    "journal in JSON": lambda x: compact(
        _PID="12", MESSAGE=bare(x), __REALTIME_TIMESTAMP=moment(x, "%s%N")
    ),
    "docker -t": lambda x: moment(x, "%Y-%m-%dT%H:%M:%S.%N000Z ") + bare(x),
    "ts %.s": lambda x: moment(x, "%s.%N ") + bare(x),
    "ts -s": lambda x: moment(x, "%H:%M:%S.%N ") + bare(x),
    "ftrace": lambda x: f" qemu-system-x86-12  [002] .....  {moment(x, '%s')}"
    f".{moment(x, '%N')}: tracing_mark_write: {bare(x)}",
    "trace-cmd": lambda x: f"qemu-kvm-12 [002] {moment(x, '%s.%N')}: print: "
    f"tracing_mark_write: {bare(x)}",
    "LTTng": lambda x: moment(x, "[%H:%M:%S.%N000] (+0.000012000) hv1 ")
    + "qemu:{}: {{ cpu_id = 3 }}, {{ name = \"{}\" }}".format(
        *(y.strip() for y in bare(x).split(" ", 1))
    ),
}


@pytest.mark.parametrize("name", INSTEAD)
def test_times_of_what_is_around(
    name: str, tmp_path: Path, capsys: Capture
) -> None:
    args = []
    for side in Side:
        lines = [
            INSTEAD[name](x)
            for x in plain(side)
            if LINE.fullmatch(x) and " " in bare(x).strip()
        ]
        path = tmp_path / f"{side}.log"
        path.write_text("".join(f"{x}\n" for x in lines))
        args.append(str(path))
    assert main(["check", args[0], "--destination", args[1]]) == 0
    out = capsys.readouterr().out
    assert "read behind " in out
    assert "blackout: 37.251 ms" in out


def test_lttng_with_arguments() -> None:
    (record,), summary = read(
        b"[2024-11-13 12:13:22.020061969] (+?.?????????) "
        b"qemu:vfio_migration_set_state: { cpu_id = 3 }, { vpid = 12 }, "
        b'{ name = "a", new_state = "RUNNING", recover_state = "ERROR" }\n'
    )
    assert record.device == "a"
    assert record.kind is Kind.ATTEMPT
    assert record.thread == 12
    assert record.time_ns == 1731500002020061969
    assert summary.wrapped == "the format of LTTng"


def test_midnight_between_two_times_of_day() -> None:
    records, _ = read(
        b"23:59:59.500000 vm_state_notify running 0 reason 7 (paused)\n"
        b"00:00:00.500000 vm_state_notify running 1 reason 9 (running)\n"
    )
    first, second = (x.time_ns for x in records)
    assert first is not None
    assert second is not None
    assert second - first == 10**9


def test_a_prompt_once_is_counted() -> None:
    lines = plain()
    lines[20] = f"(qemu) {lines[20]}"
    found, summary = read("\n".join([*lines, ""]).encode())
    wanted, _ = read(REAL[Side.SOURCE].read_bytes())
    assert found == wanted
    assert summary.wrapped == "a monitor's prompt (1 line)"


def test_a_line_that_ran_into_another_is_damaged() -> None:
    line = "148@1795400972.024324:vfio_migration_set_device_state  (a) "
    (record,), summary = read(f"{line}{line}state STOP\n".encode())
    assert record.kind is Kind.UNKNOWN
    assert summary.wrapped == ""


def test_the_name_of_an_event_is_no_prefix() -> None:
    (record,), summary = read(
        b"vfio_save_setup: 148@1795400972.024324:vfio_migration_realize  (a)\n"
    )
    assert record.kind is Kind.UNKNOWN
    assert summary.wrapped == ""


def test_marks_at_the_start() -> None:
    data = REAL[Side.SOURCE].read_bytes()
    wanted, _ = read(data)
    found, summary = read(b"\xef\xbb\xbf" + data)
    assert found == wanted
    assert summary.wrapped == "a byte order mark (1 line)"
    found, summary = read(data.decode().encode("utf-16"))
    assert found == wanted
    assert summary.wrapped == "the encoding UTF-16"


def hostile(count: int) -> bytes:
    """Lines that look like many prefixes, and have no event behind them."""
    return (b"1:" * 200 + b"> " * 300 + b"vfio_migration_x\n") * count


def test_the_search_for_prefixes_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0
    search = wrapped._search

    def counted(text: str) -> Any:
        nonlocal calls
        calls += 1
        return search(text)

    monkeypatch.setattr(wrapped, "_search", counted)
    assert read(hostile(20_000))[0] == []
    assert calls == 2000


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


if importlib.util.find_spec("zstandard"):
    PACKED["zstd"] = (
        importlib.import_module("zstandard").ZstdCompressor().compress
    )


@pytest.mark.parametrize("name", PACKED)
def test_compressed(name: str) -> None:
    data = REAL[Side.SOURCE].read_bytes()
    wanted, _ = read(data)
    half = len(data) // 2
    for made in (
        PACKED[name](data),
        PACKED[name](data[:half]) + PACKED[name](data[half:]),
    ):
        found, summary = read(made)
        assert found == wanted
        assert not summary.cut
        assert summary.wrapped == f"{name} compression"
    _, summary = read(PACKED[name](data)[:-20])
    assert summary.cut


@pytest.mark.parametrize("name", PACKED)
def test_a_bomb_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "MOST_BYTES", 3 << 20)
    with pytest.raises(TraceError, match="has more than"):
        read(PACKED[name](b"x\n" * (2 << 20)))


@pytest.mark.parametrize("name", PACKED)
def test_damaged_data_are_refused(name: str) -> None:
    data = bytearray(PACKED[name](REAL[Side.SOURCE].read_bytes() * 9))
    for at in range(40, len(data) - 40, 7):
        data[at] ^= 0x55
    with pytest.raises(TraceError, match="data are damaged"):
        read(bytes(data))


def test_formats_that_are_not_read() -> None:
    with pytest.raises(TraceError, match="compressed by lz4"):
        read(b"\x04\x22\x4d\x18" + b"x" * 99)
    # Without the package it is refused, too.
    zstd = b"\x28\xb5\x2f\xfd" + b"\xff" * 99
    with pytest.raises(TraceError, match=r"zstd"):
        read(zstd)


FOREIGN = {
    "simpletrace.py": "vfio_migration_realize 0.000 pid=134 name=b'src0'\n"
    "vm_state_notify 46855.016 pid=134 running=0x1 reason=0x9\n",
    "QMP": '{"QMP": {"version": {}}}\n{"return": {}}\n'
    '{"timestamp": {"seconds": 1}, "event": "VFIO_MIGRATION", "data": {}}\n',
    "perf": "qemu-kvm 12 [003] 1234.567890: qemu:vfio_save_setup: (55) a=1\n",
    "libvirt's daemon": "2024-11-13 12:13:20.123+0000: 12: debug : x:1 : y\n",
    "strace": "12 ioctl(9, VFIO_DEVICE_FEATURE, 0x7ffd) = 0\n",
    "page of the web": "<!DOCTYPE html>\n<html>vfio_migration_realize\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_refused_by_name(
    name: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "a.log"
    path.write_text(FOREIGN[name])
    assert main(["check", str(path)]) == 2
    err = capsys.readouterr().err
    assert name in err
    assert len(err.splitlines()) >= 2


def test_other_logs_without_vfio_are_not_refused() -> None:
    for data in (b"", b"hello\n", b"memory_region_ops_read cpu 0\n" * 9):
        assert read(data)[0] == []


def test_older_logs_are_named(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "a.log"
    # QEMU 8.0 has names for the states, but the older event.
    log = migrate(FakeQemu(devices("a"), "8.1", series=False)).log()
    path.write_bytes(log.replace(b"_realize", b"_probe"))
    assert main(["check", str(path)]) == 3
    out = capsys.readouterr().out
    assert "QEMU older than 8.1" in out
    assert "before 8.1" in out
    assert "8.1 to" not in out
