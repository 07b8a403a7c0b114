# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent follows logs, and the processes that write them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sleepers import sleeper
from vfio_p2p.agent.follow import FollowedFile
from vfio_p2p.agent.qemus import (
    started,
)
from vfio_p2p.agent.roots import Roots


class Follower:
    """An agent that follows files."""

    def __init__(
        self,
        *files: Path,
        back_bytes: int = 0,
        since: str = "",
        pid: int | None = None,
    ) -> None:
        pid = pid or os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vfio_p2p.agent", "follow"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdin
        request = {
            "pid": pid,
            "started": started(Roots(), pid),
            "files": {
                x.name: {
                    "path": str(x), "back_bytes": back_bytes, "since": since
                }
                for x in files
            }
        }
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def mark(self, number: int) -> None:
        """Ask to be told when the files are read."""
        assert self.process.stdin
        self.process.stdin.write(b'{"mark": %d}\n' % number)
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Return the next document."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def read(self, number: int) -> bytes:
        """Return the next bytes of the files."""
        found = b""
        while len(found) < number:
            answer = self.answer()
            assert "data" in answer, answer
            found += base64.b64decode(answer["data"])
        return found

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        assert self.process.stdout
        self.process.stdout.close()


def test_a_log_is_followed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")
    with Follower(log) as follower, log.open("a") as file:
        assert follower.answer() == {"following": ["log"]}
        for text in ("one\n", "two\n"):
            file.write(text)
            file.flush()
            assert follower.read(4) == text.encode()


def test_a_mark(tmp_path: Path) -> None:
    """It is answered when everything was sent that was there before."""
    log = tmp_path / "log"
    log.write_bytes(bytes(1_000_000))
    with Follower(log, back_bytes=1_000_000) as follower:
        follower.mark(7)
        assert follower.answer() == {"following": ["log"]}
        assert follower.read(1_000_000) == bytes(1_000_000)
        assert follower.answer() == {"mark": 7}
        follower.mark(8)
        assert follower.answer() == {"mark": 8}


def test_a_mark_in_a_log_that_grows(tmp_path: Path) -> None:
    """It is answered although there is always more to read."""
    log = tmp_path / "log"
    log.touch()
    with Follower(log) as follower, log.open("ab") as file:

        def grow() -> None:
            file.write(bytes(1 << 18))
            file.flush()

        assert follower.answer() == {"following": ["log"]}
        grow()
        follower.mark(1)
        for _ in range(200):
            grow()
            if follower.answer() == {"mark": 1}:
                break
        else:
            pytest.fail("the mark was never answered")


def test_the_end_of_what_was_there(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("0123456789")
    with Follower(log, back_bytes=4) as follower:
        follower.answer()
        assert follower.read(4) == b"6789"


def test_a_log_is_rotated(tmp_path: Path) -> None:
    """As virtlogd does: the old file is renamed, and nothing is lost."""
    log = tmp_path / "log"
    log.touch()
    with Follower(log) as follower:
        follower.answer()
        for number in range(3):
            with log.open("a") as file:
                file.write("old\n")
            log.rename(tmp_path / f"log.{number}")
            log.write_text("new\n")
            assert follower.read(4) == b"old\n"
            assert follower.answer() == {
                "key": "log", "cut": "the log was rotated", "lost": False
            }
            assert follower.read(4) == b"new\n"


def test_a_log_is_rotated_in_between(tmp_path: Path) -> None:
    """It is followed through the files that are no longer the newest."""
    log = tmp_path / "log"
    log.write_text("one\n")
    followed = FollowedFile("log", str(log), back_bytes=100)
    followed.open()
    for number, text in enumerate(("two\n", "three\n", "four\n"), 1):
        rotate(log)
        log.write_text(text)
        os.utime(log, ns=(0, time.time_ns() + number * 1_000_000_000))
    read, cuts = read_all(followed)
    assert read == b"one\ntwo\nthree\nfour\n"
    assert cuts == [False, False, False]
    followed.close()


def test_a_part_of_a_log_is_lost(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\n")
    followed = FollowedFile("log", str(log), back_bytes=100)
    followed.open()
    rotate(log)
    rotate(log)
    (tmp_path / "log.1").unlink()
    (tmp_path / "log.0").write_text("two\n")
    log.write_text("three\n")
    read, cuts = read_all(followed)
    assert read.startswith(b"one\n")
    assert read.endswith(b"three\n")
    assert any(cuts)
    followed.close()


def rotate(log: Path) -> None:
    """Rename a log, and those that were renamed before."""
    for number in range(8, -1, -1):
        old = log.with_name(f"{log.name}.{number}")
        if old.exists():
            old.rename(log.with_name(f"{log.name}.{number + 1}"))
    if log.exists():
        log.rename(log.with_name(f"{log.name}.0"))


def read_all(followed: FollowedFile) -> tuple[bytes, list[bool]]:
    """Return what a file has, and whether something was lost at each cut."""
    data, cuts = b"", []
    for _ in range(50):
        for answer in followed.read():
            if "data" in answer:
                data += base64.b64decode(answer["data"])
            else:
                cuts.append(answer["lost"])
    return data, cuts


START = "starting up"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("old\nnow: starting up\nnew\n", "now: starting up\nnew\n"),
        ("1: starting up\n2: starting up\n", "2: starting up\n"),
        ("nothing of it\n", "nothing of it\n"),
    ],
)
def test_a_log_since_a_line(tmp_path: Path, text: str, found: str) -> None:
    log = tmp_path / "log"
    log.write_text(text)
    with Follower(log, back_bytes=1000, since=START) as follower:
        follower.answer()
        assert follower.read(len(found)) == found.encode()


def test_a_log_since_a_line_that_was_rotated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\nnow: starting up\nnew\n")
    rotate(log)
    log.write_text("newer\n")
    followed = FollowedFile("log", str(log), 1000, START)
    followed.open()
    assert read_all(followed)[0] == b"now: starting up\nnew\nnewer\n"
    followed.close()


def test_a_log_is_truncated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("12345678\n")
    with Follower(log) as follower:
        follower.answer()
        log.write_text("")
        assert follower.answer()["cut"] == "the log was truncated"
        with log.open("a") as file:
            file.write("new\n")
        assert follower.read(4) == b"new\n"


def test_the_end_of_a_process(tmp_path: Path) -> None:
    """It counts when all of the log was read, and before it is reaped."""
    log = tmp_path / "log"
    log.touch()
    with (
        log.open("wb") as file,
        sleeper(tmp_path, file) as process,
        Follower(log, pid=process.pid) as follower,
    ):
        assert follower.answer() == {"following": ["log"]}
        file.write(b"last words\n")
        file.flush()
        process.kill()
        assert follower.read(11) == b"last words\n"
        assert follower.answer() == {"gone": True}


def test_no_log(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "none")
    answer = follower.answer()
    assert "No such file" in answer["error"]
    assert follower.process.wait(60) == 5
    for stream in (follower.process.stdin, follower.process.stdout):
        assert stream
        stream.close()


def test_the_end_of_a_controller(tmp_path: Path) -> None:
    """A controller that says nothing for too long is gone."""
    log = tmp_path / "log"
    log.touch()
    follower = Follower(log)
    follower.answer()
    start = time.monotonic()
    assert follower.process.wait(120) == 0
    assert time.monotonic() - start > 5
    for stream in (follower.process.stdin, follower.process.stdout):
        assert stream
        stream.close()
