# SPDX-License-Identifier: GPL-2.0-or-later
"""The way in for files that come from elsewhere, and what can be wrong."""

from __future__ import annotations

import errno
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from vfio_p2p.errors import UsageError

#: What decoding JSON can raise: msgspec does not turn a text that is no UTF-8
#: into an error of its own, nor one that is nested too deeply.
NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

#: What reading a zip file can raise: zipfile checks little of what it reads.
#: ValueError includes UnicodeDecodeError.
NOT_ZIP = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)


# What the shell's <(COMMAND) and a redirection of stdin give.
_OPENED_FOR_US = re.compile(r"/dev/(fd/\d+|stdin)\Z")


class UnfitFileError(OSError):
    """A file that is not of the kind, or the size, that is read.

    ``strerror`` says why.
    """


def read_file(path: Path, limit_bytes: int, *, follow: bool = True) -> bytes:
    """Read a file that comes from elsewhere, whatever it is.

    A FIFO is not waited for, a device is not read, and of a file that is too
    large no more is read than the limit.  A pipe or a terminal is read only
    if it was opened for this process, as by the shell's ``<(COMMAND)``.

    :param path: The file.
    :param limit_bytes: The size that such a file can have.
    :param follow: Whether the file may be a symbolic link.
    :return: All of the file.
    :raise UnfitFileError: When it is no regular file, or larger.
    :raise OSError: When there is no such file, or it cannot be read.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC
    ours = _OPENED_FOR_US.match(str(path))
    if not ours:
        # A FIFO that nobody writes to would be waited for.
        flags |= os.O_NONBLOCK
    if not follow:
        flags |= os.O_NOFOLLOW
    fd = os.open(path, flags)
    found = os.fstat(fd)
    if not ours and not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise UnfitFileError(errno.EINVAL, "not a regular file", str(path))
    with open(fd, "rb") as file:
        if found.st_size <= limit_bytes:
            # Room is made for what is asked for, so ask for the size at
            # first; files of the kernel say that it is 0.
            data = file.read(found.st_size + 1)
            if len(data) > found.st_size:
                data += file.read(limit_bytes + 1 - len(data))
            if len(data) <= limit_bytes:
                return data
    raise UnfitFileError(
        errno.EFBIG, f"larger than {limit_bytes >> 20} MiB", str(path)
    )


def read_listing(path: Path) -> dict[str, str] | None:
    """Read a file of an entry of the cache that lists what it holds.

    :param path: A JSON object of strings.
    :return: The object; None if the file is missing or damaged, so that the
        entry has to be made again.
    :raise UsageError: When a newer vfio-p2p has written it.
    """
    try:
        data = path.read_bytes()
        found = msgspec.json.decode(data, type=dict[str, str])
    except FileNotFoundError:
        return None
    except NOT_JSON:
        # So far, such a file has no format.
        check_format(path, data, 0)
        return None
    return found or None


def read_intact(
    path: Path, digests: Callable[[Path], dict[str, str]]
) -> dict[str, str] | None:
    """Read the digests of an entry of the cache, and compare them with it.

    :param path: As of `read_listing`, in the folder of the entry.
    :param digests: Takes that folder, and returns its digests.
    :return: The digests; None if the entry is not whole, so that it has to
        be made again.
    :raise UsageError: When a newer vfio-p2p has written it.
    """
    try:
        files = read_listing(path)
        return files if files and files == digests(path.parent) else None
    except OSError:
        return None


def check_format(path: Path, data: bytes, known: int) -> None:
    """See that a file of the cache is not newer than we are.

    :param path: The file, for the message.
    :param data: Its content.
    :param known: The newest format of such files that is known here.
    :raise UsageError: When it is; it is not to be replaced as if it were
        damaged.
    """
    if (number := format_in(data)) > known:
        raise UsageError(
            f"{path}: a newer vfio-p2p has written this, in format {number}",
            "Use that one, or set XDG_CACHE_HOME to another folder.",
        )


class _Header(msgspec.Struct):
    format: int


def format_of(data: bytes) -> int:
    """Return the format of a JSON document, whatever else is in it.

    A newer format also causes other errors, which would be misleading, so
    the format is read first.

    :param data: The document.
    :raise msgspec.DecodeError: When it is no JSON object with a format; see
        also `NOT_JSON`.
    """
    return msgspec.json.decode(data, type=_Header).format


def format_in(data: bytes) -> int:
    """Return the format that a JSON document names; 0 if it names none.

    :param data: Any bytes.
    """
    try:
        return format_of(data)
    except NOT_JSON:
        return 0
