# SPDX-License-Identifier: GPL-2.0-or-later
"""The way into a sealed VM, and out of it: memory of the VM that is a file.

With a block device, a network or a serial port, the host's speed would
affect the guest's clock.  Loads and stores are just that.  The host writes
the job before the VM runs, and reads the bundle after the VM has ended.

The region starts with a header: 8 bytes of magic, which say whether a job or
a bundle follows, an 8 byte little-endian length, an 8 byte little-endian
seed, and 32 bytes of SHA-256, which only a bundle has.  The payload, a tar
archive, follows.  The magic is written last.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import shutil
import struct
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vfio_p2p.machine.errors import TestbedError

# A job has the programs of both sides, with all their libraries.
SIZE_BYTES = 256 << 20
# All memory below this address is the kernel's.
ADDRESS = 4 << 30
# The size of the largest bundle.
BUNDLE_BYTES = 64 << 20

_JOB = b"P2PJOB01"
_BUNDLE = b"P2PMAIL2"
_HEADER = struct.Struct("<8sQQ32s")
_NO_DIGEST = bytes(32)


def made() -> IO[bytes]:
    """Make an empty mailbox; this runs on the host.

    It is a file in memory, which goes with its last descriptor.
    """
    # Without a buffer, as the VM changes the file as well.
    file = os.fdopen(os.memfd_create("mailbox"), "r+b", buffering=0)
    file.truncate(SIZE_BYTES)
    return file


def send(file: IO[bytes], files: Mapping[str, bytes], seed: int) -> None:
    """Leave a job in an empty mailbox; this runs on the host, beforehand.

    :param file: The file that backs the region.
    :param files: The files of the job by path, relative to ``/``.
    :param seed: The seed of all randomness that the guest gets.
    :raise TestbedError: When they do not fit.
    """
    file.seek(_HEADER.size)
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o755
            tar.addfile(info, io.BytesIO(data))
    end = file.tell()
    if end > SIZE_BYTES:
        raise TestbedError(
            f"the QEMU under test, with its libraries, has {end >> 20} MiB, "
            f"and the testbed takes {SIZE_BYTES >> 20}",
            "Strip the binary of its debugging information.",
        )
    file.seek(0)
    length = end - _HEADER.size
    file.write(_HEADER.pack(_JOB, length, seed, _NO_DIGEST))


@contextmanager
def opened(memory: Path = Path("/dev/mem")) -> Iterator[mmap.mmap]:
    """Map the mailbox; this runs in the VM.

    :param memory: The file of the VM's whole memory.
    """
    fd = os.open(memory, os.O_RDWR | os.O_SYNC)
    try:
        with mmap.mmap(fd, SIZE_BYTES, offset=ADDRESS) as region:
            yield region
    finally:
        os.close(fd)


def has_job(region: mmap.mmap) -> bool:
    """Return whether there is a job in the mailbox.

    :param region: The mailbox.
    """
    return region[: len(_JOB)] == _JOB


def receive(region: mmap.mmap, root: Path) -> int:
    """Unpack the job; this runs in the VM.

    :param region: The mailbox; see `has_job`.
    :param root: The folder to unpack into.
    :return: The seed of the job.
    :raise TestbedError: When there is none.
    """
    if not has_job(region):
        raise TestbedError("the VM was started without a job")
    seed: int = _HEADER.unpack(region[: _HEADER.size])[2]
    region.seek(_HEADER.size)
    _unpack(region, root)
    return seed


def _pack(directory: Path) -> bytes:
    """Archive a folder; the bytes depend on its contents alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                info = tarfile.TarInfo(str(path.relative_to(directory)))
                info.size = path.stat().st_size
                with path.open("rb") as file:
                    tar.addfile(info, file)
    return buffer.getvalue()


def post(region: mmap.mmap, directory: Path) -> None:
    """Leave a folder in the mailbox; this runs in the VM.

    :param region: The mailbox.
    :param directory: The folder.
    :raise TestbedError: When it does not fit.
    """
    payload = _pack(directory)
    if len(payload) > BUNDLE_BYTES:
        raise TestbedError(
            f"the run left {len(payload) >> 20} MiB, which is more than the "
            "mailbox holds"
        )
    digest = hashlib.sha256(payload).digest()
    header = _HEADER.pack(_BUNDLE, len(payload), 0, digest)
    region[_HEADER.size : _HEADER.size + len(payload)] = payload
    region[len(_BUNDLE) : _HEADER.size] = header[len(_BUNDLE) :]
    region[: len(_BUNDLE)] = _BUNDLE


def collect(file: IO[bytes], directory: Path) -> None:
    """Unpack what the VM left; this runs on the host, afterwards.

    :param file: The file that backs the region.
    :param directory: An existing folder to unpack into.
    :raise TestbedError: When the VM left nothing, or nothing whole.
    """
    file.seek(0)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(_BUNDLE):
        raise TestbedError("the VM ended without leaving a bundle")
    _, length, seed, digest = _HEADER.unpack(header)
    payload = file.read(min(length, BUNDLE_BYTES))
    if seed or hashlib.sha256(payload).digest() != digest:
        raise TestbedError("what the VM left is damaged")
    try:
        _unpack(io.BytesIO(payload), directory)
    except tarfile.TarError as err:
        raise TestbedError(f"what the VM left is no archive: {err}") from err


def _unpack(archive: IO[bytes] | mmap.mmap, directory: Path) -> None:
    # Python 3.11.2, that of Debian 12, has no filters for extractall().
    with tarfile.open(fileobj=archive, mode="r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            path = Path(member.name)
            if content is None or path.is_absolute() or ".." in path.parts:
                raise TestbedError(f"the mailbox has {member.name!r}")
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(content, file)
            if member.mode & 0o100:
                target.chmod(0o755)
