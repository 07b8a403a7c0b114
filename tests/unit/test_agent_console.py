# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's reader of a guest's console, and its log."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from vfio_p2p.agent.console import (
    HEADER,
    KEPT_LINES,
    LINE_BYTES,
    Console,
    printable,
)
from vfio_p2p.errors import TraceError
from vfio_p2p.trace import ConsoleLog, read_console

SECOND_NS = 10**9


def log_of(console: Console, how: str = "closed") -> ConsoleLog:
    """Return the log of a console, as its reader understands it."""
    text = console.text(how).encode()
    return read_console(io.BytesIO(text), "source/console.log")


def beating(*numbers: int) -> Console:
    """Make a console that got a beat in each second."""
    console = Console()
    for second, number in enumerate(numbers, 1):
        console.take(f"beat {number}\n".encode(), second * SECOND_NS)
    return console


def test_the_log_says_what_came() -> None:
    found = log_of(beating(7, 8, 9))
    assert [(x.time_ns, x.text) for x in found.lines] == [
        (SECOND_NS, "beat 7"),
        (2 * SECOND_NS, "beat 8"),
        (3 * SECOND_NS, "beat 9"),
    ]
    assert (found.how, found.dropped) == ("closed", 0)
    beats = found.beats
    assert (beats.count, beats.first, beats.last) == (3, 7, 9)
    assert (beats.first_ns, beats.last_ns) == (SECOND_NS, 3 * SECOND_NS)
    assert (beats.missed, beats.repeated) == (0, 0)
    assert (beats.file, beats.line) == ("source/console.log", 5)


@pytest.mark.parametrize(
    ("numbers", "missed", "repeated"),
    [
        ((1, 2, 5), 2, 0),
        ((1, 2, 2), 0, 1),
        ((3, 2, 3), 0, 1),
        ((2**32 - 1, 0, 1), 0, 0),
    ],
)
def test_numbers_out_of_order(
    numbers: tuple[int, ...], missed: int, repeated: int
) -> None:
    beats = log_of(beating(*numbers)).beats
    assert (beats.missed, beats.repeated) == (missed, repeated)


def test_the_longest_gap() -> None:
    console = beating(1, 2)
    console.take(b"beat 3\n", 9 * SECOND_NS)
    console.take(b"beat 4\n", 10 * SECOND_NS)
    beats = log_of(console).beats
    assert beats.gap_start_ns == 2 * SECOND_NS
    assert beats.gap_end_ns == 9 * SECOND_NS


def test_a_line_has_the_time_of_its_end() -> None:
    console = Console()
    for time_ns, character in enumerate(b"beat 12\nbe", SECOND_NS):
        console.take(bytes([character]), time_ns)
    found = log_of(console)
    assert [(x.time_ns, x.text) for x in found.lines] == [
        (SECOND_NS + 7, "beat 12"),
        (SECOND_NS + 9, "be"),
    ]
    assert found.beats.count == 1
    assert found.cut


def test_a_beat_without_end_is_none() -> None:
    # The guest may migrate now, and go on elsewhere.
    console = beating(1)
    console.take(b"beat 2", 2 * SECOND_NS)
    found = log_of(console)
    assert (found.beats.count, found.cut) == (1, True)
    assert found.lines[-1].text == "beat 2"


def test_the_log_is_bounded_and_its_figures_are_not() -> None:
    count = 3 * KEPT_LINES
    found = log_of(beating(*range(1, count + 1)))
    assert len(found.lines) == 2 * KEPT_LINES
    assert found.dropped == KEPT_LINES
    assert found.lines[0].text == "beat 1"
    assert found.lines[-1].text == f"beat {count}"
    assert (found.beats.count, found.beats.missed) == (count, 0)


def test_a_line_without_end_is_bounded() -> None:
    console = Console()
    console.take(b"x" * (2 * LINE_BYTES + 1), 1)
    texts = [len(x.text) for x in log_of(console).lines]
    assert texts == [LINE_BYTES, LINE_BYTES, 1]


def test_anything_can_come() -> None:
    console = Console()
    console.take(bytes(range(256)) + b"\n\nvfio-p2p-console end\r\n", 1)
    texts = [x.text for x in log_of(console).lines]
    assert texts[1].endswith("\\xff")
    assert texts[2:] == ["", "vfio-p2p-console end"]
    assert printable(b"a\\b\x1b") == "a\\\\b\\x1b"


def test_a_text_may_come_in_pieces() -> None:
    console = Console(b"login: ")
    for time_ns, piece in enumerate((b"\nhost lo", b"gin", b": "), 1):
        assert console.seen_ns is None
        console.take(piece, time_ns)
    assert console.seen_ns == 3


def test_times_are_shifted() -> None:
    text = beating(1, 2).text("closed").encode()
    found = read_console(io.BytesIO(text), "x", -5)
    assert found.lines[0].time_ns == SECOND_NS - 5
    assert found.beats.last_ns == 2 * SECOND_NS - 5


GOOD = beating(1, 2).text("closed")
END = GOOD.splitlines(keepends=True)[-1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no last line"),
        (GOOD.replace(END, ""), "x:4: the log has no last line"),
        (GOOD[:-1], "the line has no end"),
        (GOOD + "1 more\n", "a line follows"),
        (GOOD.replace("version=1", "version=2"), "is newer"),
        (GOOD.replace("CLOCK_REALTIME", "CLOCK_BOOTTIME"), "another clock"),
        (GOOD.replace(HEADER, "p2psim-log"), "not the log of a console"),
        (GOOD.replace("\n1", "\nx1", 1), "the line has no time"),
        (GOOD.replace("how=closed", "how=odd"), "the line has no time"),
        (GOOD.replace(" missed=0", ""), "the line has no time"),
        (GOOD.replace("beat 1", "beat \t"), "strange characters"),
    ],
)
def test_damage_is_an_error(text: str, said: str) -> None:
    with pytest.raises(TraceError, match=said):
        read_console(io.BytesIO(text.encode()), "x")


class Reader:
    """The agent's command, as a process.

    :param process: The process.
    :param path: Its socket.
    :param log: Its log.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], path: Path, log: Path
    ) -> None:
        self.process = process
        self.path = path
        self.log = log

    def answer(self) -> Any:
        """Wait for the next answer."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def send(self, document: object) -> None:
        """Send a line."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(document).encode() + b"\n")
        self.process.stdin.flush()

    def read(self) -> ConsoleLog:
        """Read the log."""
        with self.log.open("rb") as file:
            return read_console(file, "console.log")


@contextmanager
def reading(folder: Path, wait_for: str = "") -> Iterator[Reader]:
    """Run the agent's command until the end of the block."""
    path, log = folder / "c", folder / "c.log"
    with subprocess.Popen(
        [sys.executable, "-m", "vfio_p2p.agent", "console"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        reader = Reader(process, path, log)
        reader.send(
            {"path": str(path), "log": str(log), "wait_for": wait_for}
        )
        try:
            assert reader.answer() == {"listening": True}
            yield reader
        finally:
            process.kill()


# Connects to a socket, writes a line, and goes on until its stdin ends.
GUEST = """
import os, socket, sys
guest = socket.socket(socket.AF_UNIX)
guest.connect(sys.argv[1])
guest.sendall(b"beat 1\\n")
if sys.argv[2] == "lost":
    guest.close()
sys.stdin.read()
"""


@contextmanager
def guest(reader: Reader, what: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that writes to the console."""
    with subprocess.Popen(
        [sys.executable, "-c", GUEST, str(reader.path), what],
        stdin=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_guest_is_read_until_it_ends(tmp_path: Path) -> None:
    before_ns = time.time_ns()
    with reading(tmp_path, "beat") as reader:
        with guest(reader, "stays"):
            seen = reader.answer()
            assert before_ns <= seen["seen"] <= time.time_ns()
        assert reader.answer() == {"closed": "closed"}
        reader.send({"stop": True})
        assert reader.answer() == {
            "how": "closed", "count": 1, "last": "beat 1"
        }
        assert reader.process.wait() == 0
        found = reader.read()
        assert found.how == "closed"
        assert found.lines[0].text == "beat 1"


def test_a_connection_that_is_lost(tmp_path: Path) -> None:
    with reading(tmp_path) as reader, guest(reader, "lost"):
        assert reader.answer() == {"closed": "lost"}
        reader.send({"stop": True})
        assert reader.answer()["how"] == "lost"
        assert reader.read().how == "lost"


def test_a_reader_that_is_told_to_stop_takes_what_is_there(
    tmp_path: Path,
) -> None:
    with reading(tmp_path) as reader, socket.socket(socket.AF_UNIX) as one:
        one.connect(str(reader.path))
        one.sendall(b"beat 1\nbeat 2\n")
        reader.send({"stop": True})
        assert reader.answer() == {
            "how": "open", "count": 2, "last": "beat 2"
        }


def test_a_reader_without_a_guest(tmp_path: Path) -> None:
    with reading(tmp_path) as reader:
        assert reader.process.stdin
        reader.process.stdin.close()
        assert reader.process.wait() == 0
        assert reader.read().how == "none"


def test_a_reader_that_was_killed_leaves_no_log(tmp_path: Path) -> None:
    with reading(tmp_path) as reader:
        reader.process.kill()
        reader.process.wait()
        with pytest.raises(TraceError, match="no last line"):
            reader.read()


@pytest.mark.parametrize("text", ["{}", "no", '{"path": 1}'])
def test_a_wrong_request(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vfio_p2p.agent", "console"],
        input=text + "\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "the request is wrong" in json.loads(done.stdout)["error"]
