# SPDX-License-Identifier: GPL-2.0-or-later
"""The records in a log that comes in pieces."""

from __future__ import annotations

import io
from collections.abc import Iterator

from vfio_p2p.errors import TraceError
from vfio_p2p.trace import Record, TraceReader

# A line of a trace is shorter; of a longer one, the end is enough to find its
# own end.
_LINE_BYTES = 4096


class LogPieces:
    """Reads whole lines as soon as their ends have come."""

    def __init__(self) -> None:
        self._rest = b""

    def records(self, data: bytes) -> Iterator[Record]:
        """Take a piece of the log.

        Lines that are of no trace are left out: whoever judges the log later
        says so.

        :param data: The piece.
        :return: What concerns migration in the lines that are whole now.
        """
        whole, newline, rest = (self._rest + data).rpartition(b"\n")
        self._rest = rest[-_LINE_BYTES:]
        if newline:
            try:
                yield from TraceReader(io.BytesIO(whole + newline), "log")
            except TraceError:
                return
