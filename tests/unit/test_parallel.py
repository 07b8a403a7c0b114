# SPDX-License-Identifier: GPL-2.0-or-later
"""The same work on many inputs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from vfio_p2p import parallel
from vfio_p2p.errors import HostError, PatchError
from vfio_p2p.parallel import each

MANY = range(200)

# Each child leaves a file, and waits.
WAITING = """
import os, sys, time
from pathlib import Path
from vfio_p2p.parallel import each

def wait(number):
    (Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(600)

os.sched_getaffinity = lambda _: {0, 1}
list(each(wait, range(200)))
"""


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests mean the same on each machine."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def who(number: int) -> tuple[int, int]:
    """Return the number, and the process that was called with it."""
    return number, os.getpid()


def test_many_inputs_are_done_by_children_in_order() -> None:
    found = list(each(who, MANY))
    assert [number for number, _ in found] == list(MANY)
    assert os.getpid() not in {process for _, process in found}


def test_few_inputs_are_done_here() -> None:
    assert list(each(who, range(9))) == [(x, os.getpid()) for x in range(9)]


def test_one_processor_does_it_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert {process for _, process in each(who, MANY)} == {os.getpid()}


def refuse_the_last(number: int) -> int:
    """Fail with an error that cannot be pickled."""
    if number == MANY[-1]:
        raise PatchError("0001.patch", "a.c", "@@ -1 +1 @@", "it is bad")
    return number


def test_an_error_is_the_one_that_was_raised() -> None:
    found = each(refuse_the_last, MANY)
    with pytest.raises(PatchError, match=r"0001\.patch.*it is bad"):
        list(found)


def be_killed(number: int) -> None:
    """End as if memory had run out."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_child_that_is_killed_is_told() -> None:
    with pytest.raises(HostError, match="was killed"):
        list(each(be_killed, MANY))


def children(folder: Path) -> list[Path]:
    """Return the children that have begun."""
    return [Path("/proc") / path.name for path in folder.iterdir()]


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is true."""
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_child_outlives_its_parent(
    number: signal.Signals, tmp_path: Path
) -> None:
    path = str(Path(parallel.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, tmp_path],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as parent:
        until(lambda: len(children(tmp_path)) == 2)
        if number is signal.SIGINT:
            # A terminal sends it to all of them.
            os.killpg(parent.pid, number)
        else:
            parent.send_signal(number)
    until(lambda: not any(x.exists() for x in children(tmp_path)))
