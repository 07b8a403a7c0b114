# SPDX-License-Identifier: GPL-2.0-or-later
"""A snapshot of the outer VM, booted and ready for a job.

Booting Linux and importing Python take two thirds of a run, and are the same
in every run of an image.  So a VM is booted once, stops itself at an exact
instruction, and is saved: its memory is a file already, and QEMU writes the
rest as for a migration.  Each run goes on from there with a private copy of
the memory, of which only the pages that it writes to are copied.

What a VM is when it stops is a function of the image, the outer QEMU and its
arguments, like a run itself.  The hash of a snapshot is therefore the same on
every machine, and a part of a run's provenance.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import msgspec
from qemu.qmp import QMPClient

from vfio_p2p.errors import TestbedError
from vfio_p2p.foreign import read_listing
from vfio_p2p.machine.files import exclusive, publishing, room_for, used
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed.image import Image
from vfio_p2p.places.sealed.mailbox import made
from vfio_p2p.places.sealed.outer import (
    CONSOLE,
    RAM,
    RAM_MIB,
    Outer,
    file_arguments,
    sealed_arguments,
)
from vfio_p2p.places.sealed.saved import SavedState
from vfio_p2p.places.sealed.splat import check_console
from vfio_p2p.places.sealed.vm import console_kept, controlled
from vfio_p2p.progress import Progress, silent

_FORMAT = 3
FILES = "snapshot.json"
_STATE = "state"
# A run's own seed comes with its job.
_SEED = 0
_LIMIT_S = 900.0
_POLL_S = 0.02
# Its RAM has this much that is not zero, and its state is small.
_NEEDED_BYTES = 512 << 20
_CHUNK_BYTES = 1 << 20
_WAITING = ("-S", "-incoming", "defer")
_SHARED = {"capability": "x-ignore-shared", "state": True}


@dataclass(frozen=True)
class Snapshot:
    """A whole snapshot.

    :param path: Its folder in the cache.
    :param files: The SHA-256 of its files, by name, as of `memory_digest`.
    :param digest: The hash of what runs go on from.
    """

    path: Path
    files: dict[str, str]
    digest: str

    @property
    def ram(self) -> Path:
        """The file of the VM's memory."""
        return self.path / RAM

    def check(self) -> None:
        """See that the snapshot is as it was made.

        Its files are read only if they may have changed since this process
        has last looked at them.

        :raise TestbedError: When it is not; the next process makes it again.
        """
        try:
            same = _digests(self.path) == self.files
        except OSError:
            same = False
        if not same:
            self._forget()
            raise TestbedError(
                f"the snapshot in {self.path} was changed or removed",
                "Run the command again: it makes a new one.",
            )

    def _forget(self) -> None:
        """Let it be made again, unless another process has done so."""
        listing = self.path / FILES
        lock = self.path.with_name(f"{self.path.name}.lock")
        with suppress(OSError), exclusive(lock):
            if read_listing(listing) == self.files:
                listing.unlink()


def get_snapshot(
    image: Image, outer: Outer, progress: Progress = silent
) -> Snapshot:
    """Find the snapshot of an image in the cache, or make it.

    The memory of a snapshot that is found is not read here.  `Snapshot.check`
    does so before a run goes on from it, and a command whose runs are all in
    the cache needs no more than its digest.

    :param image: The image.
    :param outer: The QEMU that runs the VM.
    :param progress: Told of each step.
    :raise TestbedError: When the VM does not boot, or cannot be saved.
    :raise NoSpaceError: When the disk is too full.
    """
    wanted = (
        _FORMAT,
        image.files,
        outer.version,
        outer.sha256,
        sealed_arguments(_SEED, image.driver, image.kernel_kind),
    )
    text = msgspec.json.encode(wanted, order="sorted")
    key = hashlib.sha256(text).hexdigest()[:32]
    path = cache_dir() / "testbed" / "snapshots" / key
    with exclusive(path.with_name(f"{key}.lock")):
        files = _listed(path) if used(path) else None
        if files is None:
            progress(0, 1, "testbed: booting the VM")
            with room_for(path, _NEEDED_BYTES), publishing(path) as partial:
                asyncio.run(_make(partial, image, outer))
                files = _digests(partial)
                (partial / FILES).write_bytes(msgspec.json.encode(files))
            used(path)
            progress(1, 1, "testbed: booted")
    state = SavedState((path / _STATE).read_bytes())
    both = f"{files[RAM]} {state.digest}"
    return Snapshot(path, files, hashlib.sha256(both.encode()).hexdigest())


def _listed(folder: Path) -> dict[str, str] | None:
    """Return the digests of a snapshot's files, if they seem to be whole."""
    files = read_listing(folder / FILES)
    with suppress(OSError):
        if (
            files
            and files.keys() == {RAM, _STATE}
            and (folder / RAM).exists()
            and _digest(folder / _STATE) == files[_STATE]
        ):
            return files
    return None


async def _make(folder: Path, image: Image, outer: Outer) -> None:
    """Boot a VM, and save it in a folder as every host would save it."""
    with (folder / RAM).open("wb") as ram:
        ram.truncate(RAM_MIB << 20)
    with made() as mailbox:
        arguments = (
            *sealed_arguments(_SEED, image.driver, image.kernel_kind),
            *file_arguments(image, mailbox, Path(RAM), shared=True),
        )
        fd = mailbox.fileno()
        with console_kept(folder, "snapshot"):
            async with controlled(
                outer, arguments, folder, _LIMIT_S, pass_fds=(fd,)
            ) as (vm, qmp):
                await _stopped(qmp)
                await _save(qmp, folder / _STATE)
                await vm.wait()
            check_console(folder / CONSOLE)
            booted = SavedState((folder / _STATE).read_bytes())
            (folder / _STATE).write_bytes(booted.settled())
        # Devices have saved what they calculate from the clock, which was
        # moved.  So QEMU loads the VM and saves it again.
        with (folder / _STATE).open("rb") as state:
            async with controlled(
                outer,
                (*arguments, *_WAITING),
                folder,
                _LIMIT_S,
                pass_fds=(fd, state.fileno()),
            ) as (vm, qmp):
                await _load(qmp, state.fileno())
                (folder / _STATE).unlink()
                await _save(qmp, folder / _STATE)
                await vm.wait()


async def run_restored(
    outer: Outer,
    image: Image,
    snapshot: Snapshot,
    seed: int,
    mailbox: IO[bytes],
    folder: Path,
    limit_s: float,
) -> None:
    """Run a VM from its snapshot until it powers off.

    :param outer: The QEMU that has made the snapshot.
    :param image: The image of the snapshot.
    :param snapshot: The snapshot.
    :param seed: The seed of all randomness that the guest gets.
    :param mailbox: Has the job, and then the bundle.
    :param folder: A folder, in which the file ``console.txt`` is made.
    :param limit_s: The limit in seconds of the host's time; the guest has
        limits of its own.
    :raise TestbedError: When the VM does not end as it should.
    :raise OSError: With ENOSPC, when the disk was filled meanwhile.
    """
    snapshot.check()
    with (snapshot.path / _STATE).open("rb") as state:
        fd = state.fileno()
        async with controlled(
            outer,
            (
                *sealed_arguments(seed, image.driver, image.kernel_kind),
                *file_arguments(image, mailbox, snapshot.ram),
                *_WAITING,
            ),
            folder,
            limit_s,
            pass_fds=(fd, mailbox.fileno()),
        ) as (vm, qmp):
            await _load(qmp, fd)
            await qmp.execute("cont")
            await vm.wait()


async def _keep_memory(qmp: QMPClient) -> None:
    """Leave memory that is a file out of what is saved or restored."""
    await qmp.execute("migrate-set-capabilities", {"capabilities": [_SHARED]})


async def _stopped(qmp: QMPClient) -> None:
    """Wait until the VM has stopped itself."""
    while await _status(qmp, "query-status") != "guest-panicked":
        await asyncio.sleep(_POLL_S)


async def _load(qmp: QMPClient, fd: int) -> None:
    """Load the state that an inherited descriptor has."""
    await _keep_memory(qmp)
    await qmp.execute("migrate-incoming", {"uri": f"fd:{fd}"})
    while await _status(qmp, "query-status") == "inmigrate":
        await asyncio.sleep(_POLL_S)


async def _save(qmp: QMPClient, path: Path) -> None:
    """Save the state of a VM that does not run, and end its QEMU.

    :raise TestbedError: When it cannot be saved.
    """
    await _keep_memory(qmp)
    with path.open("wb") as state:
        # Unlike migrate-incoming, it takes no inherited descriptor.
        qmp.send_fd_scm(state.fileno())
        await qmp.execute("getfd", {"fdname": _STATE})
        await qmp.execute("migrate", {"uri": f"fd:{_STATE}"})
        await _saved(qmp)
    await qmp.execute("quit")


async def _saved(qmp: QMPClient) -> None:
    """Wait until the VM is saved.

    :raise TestbedError: When it cannot be.
    """
    while (found := await _status(qmp, "query-migrate")) != "completed":
        if found == "failed":
            raise TestbedError(
                "the outer VM could not be saved",
                "Use --boot, which needs no snapshot, and report this.",
            )
        await asyncio.sleep(_POLL_S)


async def _status(qmp: QMPClient, command: str) -> str:
    answer = await qmp.execute(command)
    assert isinstance(answer, dict)
    return str(answer.get("status"))


def _digests(folder: Path) -> dict[str, str]:
    return {name: _digest(folder / name) for name in (RAM, _STATE)}


def _digest(path: Path) -> str:
    """Hash a file, if it may have changed since it was hashed last."""
    found = path.stat()
    # Whoever changes a file also changes its ctime.
    return _known_digest(
        path,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


@cache
def _known_digest(path: Path, *_identity: int) -> str:
    return memory_digest(path)


def memory_digest(path: Path) -> str:
    """Hash what is not zero in a file, and where it is.

    Most of a VM's memory is zero, and a hole of the file or not: that
    depends on the file system.

    :param path: The file.
    :return: A SHA-256.
    """
    digest = hashlib.sha256()
    nothing = bytes(_CHUNK_BYTES)
    with path.open("rb") as file:
        for offset in _chunks(file.fileno()):
            data = os.pread(file.fileno(), _CHUNK_BYTES, offset)
            if data != nothing[: len(data)]:
                digest.update(offset.to_bytes(8, "little") + data)
    return digest.hexdigest()


def _chunks(fd: int) -> Iterator[int]:
    """Yield the offsets of all chunks that are not holes."""
    size_bytes = os.fstat(fd).st_size
    offset = 0
    while offset < size_bytes:
        try:
            data = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as err:
            if err.errno == errno.ENXIO:
                # The rest is a hole.
                return
            raise
        offset = data - data % _CHUNK_BYTES
        yield offset
        offset += _CHUNK_BYTES
