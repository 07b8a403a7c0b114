# SPDX-License-Identifier: GPL-2.0-or-later
"""A streaming reader for the files of QEMU's trace backends.

It reads bytes in chunks, and its memory is bounded by the chunk, whatever the
file holds.  The file's first bytes tell which backend wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from itertools import chain
from typing import BinaryIO

from vfio_p2p.errors import TraceError
from vfio_p2p.trace import log, simple
from vfio_p2p.trace.packed import Unpacked
from vfio_p2p.trace.record import Backend, Record, Summary, Tally, printable

_CHUNK_BYTES = 1 << 20


class TraceReader:
    """Iterates once over the records of a trace, and then has its `summary`.

    :param stream: The file, opened in binary mode; it is not closed.
    :param name: What to call the file in messages.
    :param shift_ns: What is added to every time, in nanoseconds, so that a
        trace can be read by the clock of another host.
    """

    def __init__(
        self, stream: BinaryIO, name: str, shift_ns: int = 0
    ) -> None:
        self._stream = stream
        self._shift_ns = shift_ns
        self._tally = Tally(name)
        self.name = name

    @property
    def summary(self) -> Summary:
        """The summary of the whole trace, once the iteration is over."""
        return self._tally.summary()

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in the order of the file.

        :raise TraceError: When the file is unreadable, damaged, or was
            written by neither backend.
        """
        return self.without(frozenset())

    def without(self, events: Set[str]) -> Iterator[Record]:
        """Yield the records in the order of the file, except for some.

        This is much faster if the excluded events are many.

        :param events: The names of the events that are not wanted.
        :raise TraceError: As `__iter__` does.
        """
        unpacked = Unpacked(_with_head(self._chunks()), self.name)
        chunks = _with_head(iter(unpacked))
        head = next(chunks, b"")
        scan = log.scan
        if head.startswith(simple.SIGNATURE):
            scan = simple.scan
            self._tally.backend = Backend.SIMPLE
        records = scan(chain([head], chunks), self._tally, events)
        if unpacked.format:
            self._tally.wrapped = f"{unpacked.format} compression"
            if unpacked.format.startswith("UTF"):
                self._tally.wrapped = f"the encoding {unpacked.format}"
            records = self._noting(records, unpacked)
        return self._shifted(records) if self._shift_ns else records

    def _noting(
        self, records: Iterator[Record], unpacked: Unpacked
    ) -> Iterator[Record]:
        """Note that a packed file is cut, once that is known."""
        yield from records
        self._tally.cut = self._tally.cut or unpacked.cut

    def _shifted(self, records: Iterator[Record]) -> Iterator[Record]:
        for record in records:
            if record.time_ns is None:
                yield record
            else:
                yield record._replace(
                    time_ns=record.time_ns + self._shift_ns
                )

    def _chunks(self) -> Iterator[bytes]:
        while True:
            try:
                chunk = self._stream.read(_CHUNK_BYTES)
            except OSError as err:
                raise TraceError(
                    f"{printable(self.name)}: {err.strerror}",
                    "Give a trace log that can be read.",
                ) from err
            if not chunk:
                return
            self._tally.size_bytes += len(chunk)
            yield chunk


def _with_head(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same, but so much at first that it tells what follows."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= simple.HEADER_BYTES:
            break
    if head:
        yield head
    yield from chunks
