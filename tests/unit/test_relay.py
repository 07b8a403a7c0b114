# SPDX-License-Identifier: GPL-2.0-or-later
"""The proxy that breaks off a stream."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from vfio_p2p.scenario.relay import relay

TOTAL = 300_000


@pytest.fixture
def private() -> Iterator[Path]:
    """A folder not below tmp_path, since a socket's path has to be short."""
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        yield Path(folder)


async def transfer(folder: Path, cut_bytes: int) -> tuple[bytes, bytes]:
    """Send TOTAL bytes, and answer with one byte.

    :return: The bytes that arrived, and those that came back.
    """
    arrived: asyncio.Future[bytes] = asyncio.Future()

    async def serve(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if cut_bytes:
            writer.write(b"!")
        arrived.set_result(await reader.read(-1))
        writer.close()

    there, here = folder / "there", folder / "here"
    server = await asyncio.start_unix_server(serve, str(there))
    async with server, relay(here, there, cut_bytes):
        reader, writer = await asyncio.open_unix_connection(str(here))
        if cut_bytes:
            assert await reader.readexactly(1) == b"!"
        try:
            writer.write(b"x" * TOTAL)
            await writer.drain()
            if cut_bytes > TOTAL:
                writer.write_eof()
        except OSError:
            assert cut_bytes < TOTAL
        got = await arrived
        back = b""
        try:
            back = await reader.read(-1)
        except ConnectionError:
            assert cut_bytes < TOTAL
        writer.close()
    return got, back


@pytest.mark.parametrize("cut_bytes", [0, 1, 65536, 65537, TOTAL - 1, TOTAL])
async def test_cut_at_the_byte(private: Path, cut_bytes: int) -> None:
    got, _ = await transfer(private, cut_bytes)
    assert len(got) == cut_bytes


async def test_not_cut(private: Path) -> None:
    got, back = await transfer(private, TOTAL + 1)
    assert len(got) == TOTAL
    assert back == b""


async def test_nobody_there(private: Path) -> None:
    async with relay(private / "here", private / "there", 10):
        reader, writer = await asyncio.open_unix_connection(
            str(private / "here")
        )
        assert await reader.read(-1) == b""
        writer.close()


async def test_nothing_is_left(private: Path) -> None:
    async def serve(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"!")
        await reader.read(-1)
        writer.close()

    there, here = private / "there", private / "here"
    async with await asyncio.start_unix_server(serve, str(there)):
        async with relay(here, there, 10):
            reader, writer = await asyncio.open_unix_connection(str(here))
            assert await reader.readexactly(1) == b"!"
        # The client sees the end, although neither side asked for it.
        assert await reader.read(-1) == b""
        writer.close()
        await writer.wait_closed()
        # From Python 3.13 on, asyncio removes the socket of a closed server.
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            await asyncio.open_unix_connection(str(here))
    assert asyncio.all_tasks() == {asyncio.current_task()}
