# SPDX-License-Identifier: GPL-2.0-or-later
"""The process of an outer VM."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn

from qemu.qmp import QMPClient, QMPError

from vfio_p2p.errors import TestbedError
from vfio_p2p.machine.files import write_whole
from vfio_p2p.machine.process import bound
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed.image import Image
from vfio_p2p.places.sealed.outer import (
    CONSOLE,
    RAM_MIB,
    Outer,
    file_arguments,
    sealed_arguments,
)

# Counts the processes that the kernel has killed, in all cgroups.
_VMSTAT = Path("/proc/vmstat")
_OOM_KILL = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class OuterVm:
    """An outer VM that runs.

    :param process: Its QEMU, whose stderr is a pipe.
    :param folder: Its working directory, with the files of its memory.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, folder: Path
    ) -> None:
        self._process = process
        self._folder = folder
        self._killed_before = _killed_for_memory()

    async def wait(self) -> None:
        """Wait until the VM powers off.

        :raise TestbedError: When it does not end as it should.
        :raise OSError: With ENOSPC, when the disk was filled meanwhile.
        """
        _, stderr = await self._process.communicate()
        if self._process.returncode:
            self._fail(self._process.returncode, stderr)

    def _fail(self, status: int, stderr: bytes) -> NoReturn:
        if status == -signal.SIGKILL:
            raise _killed(_killed_for_memory() > self._killed_before)
        if (
            status == -signal.SIGBUS
            and shutil.disk_usage(self._folder).free < RAM_MIB << 20
        ):
            # Its memory is a file without blocks, until the VM writes to it.
            raise OSError(
                errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder)
            )
        said = stderr.decode(errors="backslashreplace").strip()
        raise TestbedError(
            f"the outer VM's QEMU ended with {status}: {said}",
            "Try 'vfio-p2p testbed shell', which starts the VM as well.",
        )


@asynccontextmanager
async def started(
    outer: Outer,
    arguments: Sequence[str],
    folder: Path,
    limit_s: float,
    *,
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[OuterVm]:
    """Start an outer VM, which ends with the block at the latest.

    :param outer: The QEMU that runs it.
    :param arguments: That QEMU's arguments.
    :param folder: Its working directory.
    :param limit_s: The limit in seconds of the host's time, for the block.
    :param pass_fds: File descriptors that the QEMU inherits.
    :raise TestbedError: When the block takes too long.
    """
    process = await asyncio.create_subprocess_exec(
        *bound(outer.argv),
        *arguments,
        cwd=folder,
        env=dict(outer.environment),
        pass_fds=pass_fds,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(limit_s):
            yield OuterVm(process, folder)
    except TimeoutError:
        raise TestbedError(
            f"the outer VM did not end within {limit_s:g} s",
            "Run fewer jobs at a time with --jobs, and look at the console.",
        ) from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@asynccontextmanager
async def controlled(
    outer: Outer,
    arguments: Sequence[str],
    folder: Path,
    limit_s: float,
    *,
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[tuple[OuterVm, QMPClient]]:
    """Start an outer VM as `started` does, with a QMP session.

    :raise TestbedError: Also when the session breaks down or a command
        fails.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with started(
            outer,
            (
                *arguments,
                *("-chardev", f"socket,id=qmp,fd={theirs.fileno()}"),
                *("-mon", "chardev=qmp,mode=control"),
            ),
            folder,
            limit_s,
            pass_fds=(*pass_fds, theirs.fileno()),
        ) as vm:
            theirs.close()
            qmp = QMPClient("outer")
            try:
                await qmp.connect(ours)
                yield vm, qmp
            except (QMPError, EOFError, ConnectionError) as err:
                # A QEMU that has ended says why.
                with suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        await vm.wait()
                raise TestbedError(f"the outer VM's QMP: {err}") from err
            finally:
                with suppress(QMPError, EOFError, ConnectionError):
                    await qmp.disconnect()


async def run_booted(
    outer: Outer,
    image: Image,
    seed: int,
    mailbox: IO[bytes],
    folder: Path,
    limit_s: float,
    *words: str,
    initramfs: Path | None = None,
) -> None:
    """Run a VM from power-on until it powers off.

    :param outer: The QEMU that runs it.
    :param image: The image of the VM.
    :param seed: The seed of all randomness that the guest gets.
    :param mailbox: Has the job, if any, and then the bundle.
    :param folder: A folder, in which the file ``console.txt`` is made.
    :param limit_s: The limit in seconds of the host's time; the guest has
        limits of its own.
    :param words: As of `sealed_arguments`; by default, the VM does the job.
    :param initramfs: The initramfs, if it has more than the image's.
    :raise TestbedError: When the VM does not end as it should.
    :raise OSError: With ENOSPC, when the disk was filled meanwhile.
    """
    arguments = (
        *sealed_arguments(seed, image.driver, image.kernel_kind, *words),
        *file_arguments(image, mailbox, initramfs=initramfs),
    )
    async with started(
        outer, arguments, folder, limit_s, pass_fds=(mailbox.fileno(),)
    ) as vm:
        await vm.wait()


@contextmanager
def console_kept(folder: Path, name: str) -> Iterator[None]:
    """Keep the console of a VM if the block fails.

    :param folder: The folder in which it runs.
    :param name: What it is for.
    :raise TestbedError: When the block does; it says where the console is.
    """
    try:
        yield
    except TestbedError as err:
        console = folder / CONSOLE
        if not console.exists():
            raise
        kept = cache_dir() / "logs" / f"{name}.console.txt"
        write_whole(kept, console.read_bytes())
        hint = f"{err.hint} The VM's console is kept in {kept}."
        raise TestbedError(err.what, hint.strip()) from err


def _killed_for_memory() -> int:
    """Return how many processes were killed for lack of memory so far."""
    found = None
    with suppress(OSError):
        found = _OOM_KILL.search(_VMSTAT.read_text())
    return int(found[1]) if found else 0


def _killed(out_of_memory: bool) -> TestbedError:
    """Return the error of a VM that somebody has killed.

    :param out_of_memory: Whether the kernel has killed processes for lack of
        memory since the VM was started.
    """
    why = "the usual cause is that memory runs out"
    if out_of_memory:
        why = "memory ran out, and the kernel killed a process"
    return TestbedError(
        f"the outer VM was killed: {why}",
        f"A run may take {RAM_MIB} MiB. Run fewer jobs at a time with "
        "--jobs, free some memory, or raise the limit of the container or "
        "cgroup.",
    )
