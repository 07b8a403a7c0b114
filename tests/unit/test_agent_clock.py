# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's command ``clock``, and what is measured with it.

All clocks here are this machine's, some of them wrong on purpose, so that the
true offset is known.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from vfio_p2p.agent.clock import ask
from vfio_p2p.clock import Exchange, estimate
from vfio_p2p.errors import UsageError
from vfio_p2p.machine.clocks import (
    ONE_CLOCK,
    measure,
    measure_from_here,
    measure_link,
)
from vfio_p2p.machine.host import HostSpec, open_host

_WRONG_BY_NS = 123_456_789_012


@contextmanager
def answering(address: str, wrong_by_ns: int) -> Iterator[tuple[int, str]]:
    """Run a host whose clock is wrong; yields its port and its token."""
    code = (
        "import sys, time; from vfio_p2p.agent.clock import answer_datagrams; "
        f"answer_datagrams({address!r}, lambda: time.time_ns() + "
        f"{wrong_by_ns})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        told = json.loads(process.stdout.readline())
        yield told["port"], told["token"]
        process.stdin.close()
        assert process.wait() == 0


@pytest.mark.parametrize("wrong_by_ns", [0, _WRONG_BY_NS, -_WRONG_BY_NS])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_clock_that_is_wrong(address: str, wrong_by_ns: int) -> None:
    with answering(address, wrong_by_ns) as (port, token):
        samples = ask(address, port, token, 20)
    assert samples
    found = estimate(Exchange(*x) for x in samples)
    assert abs(found.offset_ns - wrong_by_ns) <= found.bound_ns
    # The bound would be worthless otherwise.
    assert found.bound_ns < 10**9


def test_strangers_get_no_answer() -> None:
    with (
        answering("127.0.0.1", 0) as (port, token),
        socket.socket(type=socket.SOCK_DGRAM) as sock,
    ):
        sock.connect(("127.0.0.1", port))
        sock.settimeout(0.3)
        for request in (b"", b"x", token.encode(), b"x" * 24, b"x" * 60000):
            sock.send(request)
            with pytest.raises(TimeoutError):
                sock.recv(100)
        assert ask("127.0.0.1", port, "x" * 16, 100) == []
        # It still answers those who know the token.
        assert len(ask("127.0.0.1", port, token, 3)) == 3


def test_nobody_answers() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert ask("127.0.0.1", port, "token", 1000) == []
    assert ask("127.0.0.1", port, "token", 1000) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["tell"], ["ask"], ["ask", "::1", "x", "y", "1"],
        ["answer", "--udp"], ["answer", "--udp", "no.invalid"],
        ["answer", "--udp", "192.0.2.1"],
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vfio_p2p.agent", "clock", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["hint"]


async def test_hosts_with_one_kernel_have_one_clock() -> None:
    async with open_host(HostSpec()) as one, open_host(HostSpec()) as two:
        assert await measure(one, two, None) == ONE_CLOCK


async def test_two_ways_to_measure() -> None:
    """The true offset is 0, whatever the way."""
    async with open_host(HostSpec()) as one, open_host(HostSpec()) as two:
        link = await measure_link(one, two, "127.0.0.1")
        assert link
        here = await measure_from_here(one, two)
    for found in (link, here):
        assert abs(found.offset_ns) <= found.bound_ns < 10**9
        assert found.exchanges == 50


async def test_an_address_that_is_not_the_hosts() -> None:
    async with open_host(HostSpec()) as one, open_host(HostSpec()) as two:
        with pytest.raises(UsageError, match=r"192\.0\.2\.1: Cannot assign"):
            await measure_link(one, two, "192.0.2.1")
