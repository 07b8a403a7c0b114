# SPDX-License-Identifier: GPL-2.0-or-later
"""The way out of a sealed VM: shared memory that is read afterwards.

With a block device, a network or a serial port, the host's speed would
affect the guest's clock.  Stores to an ivshmem region are just stores, and
the host reads them only after the VM has ended.

The region starts with a header: 8 bytes magic, 8 bytes little-endian
length, 32 bytes SHA-256; the payload, a tar archive, follows.  The magic is
written last.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import struct
import tarfile
from pathlib import Path

from vfio_p2p.machine.errors import TestbedError

SIZE_BYTES = 64 << 20

_MAGIC = b"P2PMAIL1"
_HEADER = struct.Struct("<8sQ32s")
# PCI ids of ivshmem (QEMU's docs/specs/ivshmem-spec).
_IVSHMEM = ("0x1af4", "0x1110")


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


def _region() -> Path:
    for device in sorted(Path("/sys/bus/pci/devices").iterdir()):
        ids = tuple(
            (device / name).read_text().strip()
            for name in ("vendor", "device")
        )
        if ids == _IVSHMEM:
            (device / "enable").write_text("1")
            return device / "resource2"
    raise TestbedError("the VM has no ivshmem device")


def post(directory: Path) -> None:
    """Leave a folder in the mailbox; this runs in the VM.

    :param directory: The folder.
    :raise TestbedError: When it does not fit, or there is no mailbox.
    """
    payload = _pack(directory)
    if _HEADER.size + len(payload) > SIZE_BYTES:
        raise TestbedError(
            f"the run left {len(payload) >> 20} MiB, which is more than the "
            "mailbox holds"
        )
    digest = hashlib.sha256(payload).digest()
    header = _HEADER.pack(_MAGIC, len(payload), digest)
    fd = os.open(_region(), os.O_RDWR)
    try:
        with mmap.mmap(fd, SIZE_BYTES) as region:
            region[_HEADER.size : _HEADER.size + len(payload)] = payload
            region[8 : _HEADER.size] = header[8:]
            region[:8] = _MAGIC
    finally:
        os.close(fd)


def collect(region: Path, directory: Path) -> None:
    """Unpack what the VM left; this runs on the host, afterwards.

    :param region: The file that backs the shared memory.
    :param directory: An existing folder to unpack into.
    :raise TestbedError: When the VM left nothing, or nothing whole.
    """
    with region.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            raise TestbedError("the VM ended without leaving a bundle")
        _, length, digest = _HEADER.unpack(header)
        payload = file.read(min(length, SIZE_BYTES))
    if hashlib.sha256(payload).digest() != digest:
        raise TestbedError("what the VM left is damaged")
    try:
        _unpack(payload, directory)
    except tarfile.TarError as err:
        raise TestbedError(f"what the VM left is no archive: {err}") from err


def _unpack(payload: bytes, directory: Path) -> None:
    # Python 3.11.2, that of Debian 12, has no filters for extractall().
    with tarfile.open(fileobj=io.BytesIO(payload), mode="r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            path = Path(member.name)
            if content is None or path.is_absolute() or ".." in path.parts:
                raise TestbedError(f"the VM left {member.name!r}")
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())
