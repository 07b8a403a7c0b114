# SPDX-License-Identifier: GPL-2.0-or-later
"""Tell the time of this host, or ask another host for its time.

``answer`` answers each line of stdin with CLOCK_REALTIME in nanoseconds.
``answer --udp ADDRESS`` prints ``{"port": N, "token": TEXT}`` and answers
datagrams with that token until stdin ends.  ``ask ADDRESS PORT TOKEN COUNT``
prints ``{"samples": [[SENT, TIME THERE, RECEIVED], ...]}``.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from vfio_p2p.agent.failure import INPUT, AgentError
from vfio_p2p.agent.main import show
from vfio_p2p.agent.roots import Roots

Clock = Callable[[], int]

_NUMBER = struct.Struct("!Q")
_TIME = struct.Struct("!Q")

# An answer that takes longer is of no use.
_ANSWER_S = 0.25
_PAUSE_S = 0.005
# If none of the first requests is answered, none will be.
_TRIES = 8


def run(arguments: list[str], roots: Roots) -> object:
    """Answer or ask.

    :param arguments: What to do.
    :param roots: Not needed.
    :raise AgentError: When the arguments make no sense, or the network does
        not do what it has to.
    """
    if arguments == ["answer"]:
        answer_lines(time.time_ns)
        return None
    if arguments[:2] == ["answer", "--udp"] and len(arguments) == 3:
        answer_datagrams(arguments[2], time.time_ns)
        return None
    if arguments[:1] == ["ask"] and len(arguments) == 5:
        address, port, token, count = arguments[1:]
        if port.isdigit() and count.isdigit():
            samples = ask(address, int(port), token, int(count))
            return {"samples": samples}
    raise AgentError(
        "clock does not know what to do",
        "Use 'answer', 'answer --udp ADDRESS' or 'ask ADDRESS PORT TOKEN "
        "COUNT'.",
        INPUT,
    )


def answer_lines(clock: Clock) -> None:
    """Answer each line of stdin with the time.

    :param clock: Returns the time.
    """
    for _ in sys.stdin:
        show(clock())


def answer_datagrams(address: str, clock: Clock) -> None:
    """Answer datagrams with the time until stdin ends.

    :param address: The address to listen on.
    :param clock: Returns the time.
    :raise AgentError: When the address is none of this host.
    """
    token = secrets.token_hex(8)
    with _Datagrams(address, 0) as (sock, place):
        try:
            sock.bind(place)
        except OSError as err:
            raise AgentError(
                f"{address}: {err.strerror}",
                "Give an address of this host on the link.",
                INPUT,
            ) from err
        show({"port": sock.getsockname()[1], "token": token})
        stdin = sys.stdin.fileno()
        while True:
            ready, _, _ = select.select([sock, stdin], [], [])
            if sock in ready:
                _answer(sock, token.encode(), clock)
            if stdin in ready and not os.read(stdin, 4096):
                return


def _answer(sock: socket.socket, token: bytes, clock: Clock) -> None:
    try:
        request, sender = sock.recvfrom(len(token) + _NUMBER.size + 1)
        whole = len(request) == len(token) + _NUMBER.size
        if whole and request.startswith(token):
            sock.sendto(request + _TIME.pack(clock()), sender)
    except OSError:
        pass        # as if the datagram was lost on the way


def ask(
    address: str,
    port: int,
    token: str,
    count: int,
    clock: Clock = time.time_ns,
) -> list[list[int]]:
    """Ask another host for its time.

    :param address: The other host's address.
    :param port: The port on which it answers.
    :param token: What the other host expects to be told.
    :param count: The number of requests.
    :param clock: Returns our time.
    :return: The time when each request was sent, the time there, and the
        time when the answer came; none for an answer that did not come.
    """
    samples: list[list[int]] = []
    with _Datagrams(address, port) as (sock, place):
        sock.connect(place)
        for number in range(count):
            if number == _TRIES and not samples:
                break
            request = token.encode() + _NUMBER.pack(number)
            sent = clock()
            try:
                sock.send(request)
                there = _receive(sock, request)
            except OSError:
                there = None    # refused, or no way to get there
            received = clock()
            if there is not None:
                samples.append([sent, there, received])
            time.sleep(_PAUSE_S)
    return samples


def _receive(sock: socket.socket, request: bytes) -> int | None:
    """Wait for the answer to a request, and ignore older ones."""
    deadline = time.monotonic() + _ANSWER_S
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([sock], [], [], left_s)[0]:
            return None
        data = sock.recv(len(request) + _TIME.size + 1)
        whole = len(data) == len(request) + _TIME.size
        if whole and data.startswith(request):
            time_ns: int = _TIME.unpack(data[len(request) :])[0]
            return time_ns


class _Datagrams:
    """A datagram socket, and where it belongs; a context manager."""

    def __init__(self, address: str, port: int) -> None:
        self._place: Any
        try:
            family, kind, _, _, self._place = socket.getaddrinfo(
                address, port, type=socket.SOCK_DGRAM
            )[0]
        except OSError as err:
            raise AgentError(
                f"{address}: {err.strerror}", "Give an IP address.", INPUT
            ) from err
        self._sock = socket.socket(family, kind)

    def __enter__(self) -> tuple[socket.socket, Any]:
        return self._sock, self._place

    def __exit__(self, *exc: object) -> None:
        self._sock.close()
