# SPDX-License-Identifier: GPL-2.0-or-later
"""The lines of a log that is plain ASCII, and a witness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from vfio_p2p.errors import TraceError

# What is shown for a line that is no ASCII; it is not printable.
_NOT_ASCII = "\0"


def ascii_lines(
    stream: BinaryIO,
    limit_bytes: int,
    damaged: Callable[[int, str], TraceError],
    strange: str,
) -> Iterator[str]:
    """Yield the lines without their ends; each has to be whole and printable.

    :param stream: The log, opened in binary mode; it is not closed.
    :param limit_bytes: The most bytes that a line can have, with its end.
    :param damaged: Makes the error for the number of a line, from 1, and a
        reason.
    :param strange: The reason for characters that cannot be printed.
    :raise TraceError: When a line has no end, or is not printable ASCII.
    """
    number = 0
    while raw := stream.readline(limit_bytes):
        number += 1
        if not raw.endswith(b"\n"):
            raise damaged(number, "the line has no end")
        try:
            text = raw[:-1].decode("ascii")
        except UnicodeDecodeError:
            text = _NOT_ASCII
        if not text.isprintable():
            raise damaged(number, strange)
        yield text
