# SPDX-License-Identifier: GPL-2.0-or-later
"""A proxy that breaks off a stream at a chosen byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_CHUNK_BYTES = 1 << 16


class _Relay:
    """One proxy; it counts the bytes of all streams towards the target."""

    def __init__(self, target: Path, cut_bytes: int) -> None:
        self._target = target
        self._left_bytes = cut_bytes
        self._over = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Connect a client to the target."""
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self._writers.add(writer)
        with suppress(OSError, asyncio.CancelledError):
            there = await asyncio.open_unix_connection(str(self._target))
            self._writers.add(there[1])
            await asyncio.gather(
                self._towards(reader, there[1]), _back(there[0], writer)
            )
            there[1].close()
        writer.close()

    async def _towards(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # A client that is accepted after the cut gets nothing either.
        while self._left_bytes and not self._over:
            data = await reader.read(min(_CHUNK_BYTES, self._left_bytes))
            if not data:
                writer.close()
                return
            self._left_bytes -= len(data)
            writer.write(data)
            await writer.drain()
        self.cut()

    def cut(self) -> None:
        """Break off all streams; bytes that were passed on still arrive."""
        self._over = True
        for writer in self._writers:
            writer.close()

    async def end(self) -> None:
        """Break off all streams, and end all tasks."""
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _back(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def relay(
    path: Path, target: Path, cut_bytes: int
) -> AsyncIterator[None]:
    """Pass on the streams of all clients, up to a number of bytes.

    :param path: The Unix socket to listen on.
    :param target: The Unix socket to connect to, once for each client.
    :param cut_bytes: When this many bytes have gone towards the target, all
        streams break off in both directions.
    """
    made = _Relay(target, cut_bytes)
    server = await asyncio.start_unix_server(made.accept, str(path))
    try:
        yield
    finally:
        server.close()
        await made.end()
        await server.wait_closed()
