# SPDX-License-Identifier: GPL-2.0-or-later
"""The controller of a command that runs for a while.

It sends a request on the first line of stdin, and the command answers as long
as there is something to answer.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable

from vfio_p2p.agent.failure import INPUT, AgentError

# A controller that has said nothing for so long is gone.
LEASE_S = 8.0

_POLL_S = 0.5
_PIECE_BYTES = 1 << 15


def serve(
    command: str,
    arguments: list[str],
    answer: Callable[[Controller, bytes], None],
) -> None:
    """Wait for the request, and answer it.

    :param command: The name of the command.
    :param arguments: Its arguments, of which it has none.
    :param answer: Called with the controller and its request; not called if
        the controller goes away before.
    :raise AgentError: When there are arguments, or as `answer` does.
    """
    if arguments:
        raise AgentError(
            f"{command} has no arguments", "Send the request on stdin.", INPUT
        )
    controller = Controller(0, 1)
    try:
        while not controller.received and not controller.ended:
            controller.wait(_POLL_S)
        if controller.received:
            answer(controller, controller.received.pop(0))
    finally:
        controller.close()


class Controller:
    """The controller, at the other end of two pipes; it never blocks us.

    :param source: The descriptor to read from.
    :param sink: The descriptor to write to.
    """

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._rest = b""
        self.received: list[bytes] = []
        self.pending = b""
        self.ended = False
        for fd in (source, sink):
            os.set_blocking(fd, False)

    def send(self, document: object) -> None:
        """Send a document, as soon as the controller takes it."""
        self.pending += json.dumps(document).encode() + b"\n"
        self._write()

    def wait(self, limit_s: float) -> None:
        """Wait for lines, and for room if something waits to be sent."""
        sinks = [self._sink] if self.pending else []
        ready, able, _ = select.select([self._source], sinks, [], limit_s)
        if able:
            self._write()
        if ready:
            self._read()

    def close(self) -> None:
        """Make the descriptors wait again, as others expect."""
        for fd in (self._source, self._sink):
            os.set_blocking(fd, True)

    def _read(self) -> None:
        try:
            data = os.read(self._source, _PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.ended = True
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.received += lines

    def _write(self) -> None:
        try:
            sent = os.write(self._sink, self.pending)
        except BlockingIOError:
            return
        except OSError:
            # Nobody listens any more.
            self.ended = True
            return
        self.pending = self.pending[sent:]
