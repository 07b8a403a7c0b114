# SPDX-License-Identifier: GPL-2.0-or-later
"""Initramfs archives whose bytes depend on their contents alone.

The format is "newc" (Linux: Documentation/driver-api/early-userspace/
buffer-format.rst).  Archives can be concatenated, and a later file replaces
an earlier one, so an initramfs is a list of layers.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import PurePosixPath

_ALIGN = 4
# The kernel's own tools pad archives to this size.
_BLOCK = 512


class Layer:
    """One archive: contents by path, without a leading slash."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[int, bytes]] = {}

    def add(self, path: str, data: bytes, executable: bool = False) -> None:
        """Add a regular file, and the folders above it."""
        self._parents(path)
        mode = stat.S_IFREG | (0o755 if executable else 0o644)
        self._files[path] = (mode, data)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link, and the folders above it."""
        self._parents(path)
        self._files[path] = (stat.S_IFLNK | 0o777, target.encode())

    def folder(self, path: str) -> None:
        """Add a folder, and the folders above it."""
        self._parents(path)
        self._files.setdefault(path, (stat.S_IFDIR | 0o755, b""))

    def _parents(self, path: str) -> None:
        for parent in reversed(PurePosixPath(path).parents):
            if str(parent) != ".":
                self._files.setdefault(
                    str(parent), (stat.S_IFDIR | 0o755, b"")
                )

    def to_bytes(self) -> bytes:
        """Return the archive."""
        return _archive(self._files)


def _pad(data: bytes, align: int) -> bytes:
    return data + b"\0" * (-len(data) % align)


def _member(inode: int, path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    numbers = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0,
               len(name), 0)
    header = b"070701" + b"".join(b"%08x" % number for number in numbers)
    return _pad(header + name, _ALIGN) + _pad(data, _ALIGN)


def _archive(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    # In sorted order, a folder comes before its files.
    members = [
        _member(inode, path, mode, data)
        for inode, (path, (mode, data)) in enumerate(
            sorted(files.items()), 1
        )
    ]
    members.append(_member(0, "TRAILER!!!", 0, b""))
    return _pad(b"".join(members), _BLOCK)
