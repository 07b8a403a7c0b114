# SPDX-License-Identifier: GPL-2.0-or-later
"""Unpacking a tarball, which may be anybody's.

It is listed before it is unpacked, so that nothing is made of one that has
devices, or that would fill the disk.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from vfio_p2p.errors import MissingToolError, SourceError
from vfio_p2p.trace import printable

EXPECTED = (
    "Give a QEMU: a git checkout, the folder of a release, or its tarball."
)

# A release of QEMU has 0.7 GiB in 20,000 files with all of its firmware.
_MAX_BYTES = 4 << 30
_MAX_MEMBERS = 200_000

# The Debian packages of programs that tar calls, where the names differ.
_UNPACKERS = {"xz": "xz-utils"}
# Kind, permissions, owner and size, or the numbers of a device.
_MEMBER = re.compile(rb"(.)\S* +\S+ +(?:(\d+)|\d+,\d+) ")
_UNPACKED = (b"-", b"d", b"h", b"l")
_KINDS = {
    b"b": "a block device",
    b"c": "a character device",
    b"p": "a FIFO",
}


def unpack(tarball: Path, folder: Path) -> None:
    """Unpack with GNU tar, which keeps members inside of the folder.

    Python's tarfile does so only from 3.11.4 on, and Debian 12 has 3.11.2.

    :param tarball: The file.
    :param folder: An empty folder, which gets what is in the tarball's only
        folder.
    :raise SourceError: When it is damaged, has anything but files, folders
        and links within, or is larger than a QEMU can be.
    :raise MissingToolError: When a program is missing.
    """
    _check_members(tarball)
    result = subprocess.run(
        [
            *_command("--extract", tarball),
            f"--directory={folder}", "--strip-components=1",
            "--no-same-owner", "--no-same-permissions",
            "--anchored", "--no-wildcards-match-slash",
            "--exclude=*/roms/*/*",
        ],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )  # fmt: skip
    _check_end(tarball, result.returncode, result.stderr)
    for name, target in _links(folder):
        within = os.path.normpath(os.path.join(folder, name, "..", target))
        if not Path(within).is_relative_to(folder):
            raise SourceError(
                f"{tarball}: {printable(name)} is a link to "
                f"{printable(target)}, which is outside",
                EXPECTED,
            )


def _command(action: str, tarball: Path) -> list[str]:
    return ["tar", action, f"--file={tarball}"]


def _environment() -> Mapping[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _check_members(tarball: Path) -> None:
    """List a tarball, and stop at what must not be unpacked."""
    size_bytes = members = 0
    with tempfile.TemporaryFile() as said:
        try:
            listing = subprocess.Popen(
                [
                    *_command("--list", tarball), "--verbose",
                    "--numeric-owner", "--quoting-style=escape",
                ],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
            )  # fmt: skip
        except FileNotFoundError as err:
            raise MissingToolError("tar", "tar") from err
        with listing:
            assert listing.stdout
            try:
                for line in listing.stdout:
                    members += 1
                    size_bytes += _size_of(tarball, line)
                    if size_bytes > _MAX_BYTES or members > _MAX_MEMBERS:
                        raise SourceError(
                            f"{tarball}: larger than a QEMU can be: more than "
                            f"{_MAX_BYTES >> 30} GiB or {_MAX_MEMBERS} files",
                            EXPECTED,
                        )
            except BaseException:
                # It would go on reading, for as long as the tarball is.
                listing.kill()
                raise
        said.seek(0)
        _check_end(tarball, listing.returncode, said.read())


def _size_of(tarball: Path, line: bytes) -> int:
    """Return the size of a member from a line of the listing."""
    found = _MEMBER.match(line)
    kind = found[1] if found else b""
    if found and kind in _UNPACKED:
        return int(found[2] or 0)
    name = line.split(maxsplit=5)[-1].decode(errors="replace").strip()
    raise SourceError(
        f"{tarball}: the member {printable(name)} is "
        f"{_KINDS.get(kind, 'no file, folder or link')}",
        EXPECTED,
    )


def _check_end(tarball: Path, status: int, said: bytes) -> None:
    """Say why tar failed, if it did."""
    if not status:
        return
    message = said.decode(errors="replace")
    if os.strerror(errno.ENOSPC) in message:
        raise OSError(errno.ENOSPC, message)
    missing = re.search(r"(\w+): Cannot exec", message)
    if missing:
        raise MissingToolError(
            missing[1], _UNPACKERS.get(missing[1], missing[1])
        )
    first = next(iter(message.splitlines()), "tar gave no reason")
    raise SourceError(f"{tarball} is not a whole tarball: {first}", EXPECTED)


def _links(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the symbolic links below a folder, and what they contain."""
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(root, name)
            if stat.S_ISLNK(os.lstat(path).st_mode):
                yield os.path.relpath(path, folder), os.readlink(path)
