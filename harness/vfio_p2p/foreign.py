# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be wrong with data that come from elsewhere."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path

import msgspec

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


def read_listing(path: Path) -> dict[str, str] | None:
    """Read a file of an entry of the cache that lists what it holds.

    :param path: A JSON object of strings.
    :return: The object; None if the file is missing or damaged, so that the
        entry has to be made again.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except (FileNotFoundError, *NOT_JSON):
        return None
    return found or None
