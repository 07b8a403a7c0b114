# SPDX-License-Identifier: GPL-2.0-or-later
"""Traces that are compressed, or in another encoding of text.

The first bytes of a file tell.  Whatever comes out is bounded in size, and
is passed on in chunks, so that a bomb costs neither memory nor much time.
"""

from __future__ import annotations

import bz2
import codecs
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Protocol

from vfio_p2p.errors import TraceError
from vfio_p2p.trace.record import printable

# The most that a compressed file can have in it.
MOST_BYTES = 2 << 30
_CHUNK_BYTES = 1 << 20
_MEMORY_BYTES = 256 << 20
_WINDOW_BYTES = 128 << 20
_PIECE_BYTES = 512

_ZSTD = b"\x28\xb5\x2f\xfd"
# Formats that are known and not read, each with how to unpack it.
_REFUSED = {
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -d"),
    b"PK\x03\x04": ("zip", "unzip"),
    b"7z\xbc\xaf\x27\x1c": ("7-Zip", "7z x"),
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_PEEKED_BYTES = 64


class _Unpacker(Protocol):
    """What zlib, lzma and bz2 have in common, here."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """Makes zlib's interface that of lzma and bz2."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(
            self._inner.unconsumed_tail + data, max_length
        )


class _Zstd:
    """Makes zstandard's interface that of lzma and bz2.

    :param module: The package, which need not be there.
    """

    def __init__(self, module: Any) -> None:
        self._error = module.ZstdError
        self._inner = module.ZstdDecompressor(
            max_window_size=_WINDOW_BYTES
        ).decompressobj()
        self._data = b""
        self._at = 0

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        unused: bytes = self._inner.unused_data
        return unused + self._data[self._at :]

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self._data = self._data[self._at :] + data
        self._at = 0
        found: list[bytes] = []
        size = 0
        # A block has at most 128 KiB in it and four bytes at least, so that
        # a small piece cannot become large.
        while self._at < len(self._data) and not self.eof:
            piece = self._data[self._at : self._at + _PIECE_BYTES]
            self._at += len(piece)
            try:
                found.append(self._inner.decompress(piece))
            except self._error as err:
                raise ValueError(str(err)) from None
            size += len(found[-1])
            if size >= max_length:
                break
        return b"".join(found)


def _xz() -> _Unpacker:
    return lzma.LZMADecompressor(memlimit=_MEMORY_BYTES)


_MAKERS: dict[bytes, tuple[str, Any]] = {
    b"\x1f\x8b": ("gzip", _Gzip),
    b"\xfd7zXZ\0": ("xz", _xz),
    b"BZh": ("bzip2", bz2.BZ2Decompressor),
}


class Unpacked:
    """The content of a file, unpacked if it is packed.

    :param chunks: The file's bytes.  The first chunk decides, so it has to
        be the whole file, or a few bytes at least.
    :param name: What to call the file in messages.
    """

    def __init__(self, chunks: Iterator[bytes], name: str) -> None:
        self._chunks = chunks
        self._name = printable(name)
        #: The name of the format; empty if the file is plain.
        self.format = ""
        #: Whether the packed file ends too early.
        self.cut = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield the content.

        :raise TraceError: When the file is damaged, of a format that is not
            read, or has more in it than `MOST_BYTES`.
        """
        head = next(self._chunks, b"")
        chunks = chain([head], self._chunks)
        for magic, (name, command) in _REFUSED.items():
            if head.startswith(magic):
                raise TraceError(
                    f"{self._name} is compressed by {name}, which is not read",
                    f"Unpack it with '{command}', and give what is in it.",
                )
        # Two bytes alone may be anything; ASCII has a zero in every second.
        if head.startswith(_UTF16) and b"\0" in head[2:_PEEKED_BYTES]:
            self.format = "UTF-16"
            return self._recoded(chunks)
        for magic, (name, maker) in _MAKERS.items():
            if head.startswith(magic):
                self.format = name
                return self._limited(self._members(chunks, maker))
        if head.startswith(_ZSTD):
            self.format = "zstd"
            return self._limited(self._members(chunks, self._zstd()))
        return chunks

    def _limited(self, content: Iterator[bytes]) -> Iterator[bytes]:
        size = 0
        try:
            for chunk in content:
                size += len(chunk)
                if size > MOST_BYTES:
                    raise TraceError(
                        f"{self._name} has more than {MOST_BYTES >> 30} GiB "
                        "in it",
                        "Unpack it, and give the part that has the migration.",
                    )
                yield chunk
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
            raise self._damaged() from None

    def _damaged(self) -> TraceError:
        return TraceError(
            f"{self._name}: its {self.format} data are damaged",
            "Give a whole copy of the file, or unpack what can be unpacked.",
        )

    def _members(
        self, chunks: Iterator[bytes], maker: Any
    ) -> Iterator[bytes]:
        """Yield what is in one member after another."""
        inner: _Unpacker = maker()
        begun = False
        for chunk in chunks:
            data = chunk if begun else chunk.lstrip(b"\0")
            if not data:
                continue
            while True:
                found = inner.decompress(data, _CHUNK_BYTES)
                begun = begun or bool(data)
                if found:
                    yield found
                if inner.eof:
                    # Padding may follow, or another member.
                    data = inner.unused_data.lstrip(b"\0")
                    inner = maker()
                    begun = False
                    if not data:
                        break
                    continue
                data = b""
                if not found:
                    break
        self.cut = begun

    def _zstd(self) -> Callable[[], _Unpacker]:
        try:
            module = importlib.import_module("zstandard")
        except ImportError:
            raise TraceError(
                f"{self._name} is compressed by zstd, and the Python package "
                "'zstandard' is not installed",
                "Unpack it with 'zstd -d', or install that package.",
            ) from None
        return lambda: _Zstd(module)

    def _recoded(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder("utf-16")("replace")
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "replace")
        yield decoder.decode(b"", final=True).encode("utf-8", "replace")
