# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU that runs the outer VM, and its arguments.

The reasons for the arguments, all confirmed by experiments:

* ``icount`` makes the guest's clock a count of its instructions.
  ``sleep=off`` skips idle time, and ``align=off`` never waits for the host.
* With one vCPU in one thread, nothing depends on the host's scheduler.
* A named CPU does not depend on the host's CPU or on QEMU's version.
  With ``rdrand``, ``-seed`` fixes the kernel's first randomness.
  Without ``cx16``, Linux does not use CMPXCHG16B: up to QEMU 7.2, TCG leaves
  wrong EFLAGS after that instruction (target/i386/tcg/mem_helper.c takes the
  flags from a stale CC_OP), and an interrupt at that moment crashes Linux,
  whose SLUB allocator uses it all the time.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.devices import Driver
from vfio_p2p.devices.p2pvf import MAX_DEVICES
from vfio_p2p.errors import MissingToolError, TestbedError
from vfio_p2p.machine.process import bound
from vfio_p2p.places.sealed.image import Image
from vfio_p2p.places.sealed.mailbox import SIZE_BYTES
from vfio_p2p.side import Side

PROGRAM = "qemu-system-x86_64"
PACKAGE = "qemu-system-x86"
RAM_MIB = 1024

CONSOLE = "console.txt"
MAILBOX = "mailbox"
INITRAMFS = "initramfs.cpio"

CPU = "Nehalem-v1,rdrand=on,cx16=off"
_COMMON = (
    *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
    *("-machine", "q35"),
    *("-m", f"{RAM_MIB}"),
)
_SEALED = (
    *("-accel", "tcg,thread=single"),
    *("-icount", "shift=1,align=off,sleep=off"),
    *("-smp", "1"),
    *("-cpu", CPU),
    *("-rtc", "base=2026-01-01T00:00:00,clock=vm"),
)
# Self-tests, certificates and tracing take half of the kernel's boot, 1.5 s of
# guest time, and no run needs them. Modules load without certificates, too.
# Mitigations are pointless on an emulated CPU, and they are slow: with page
# tables of its own for the kernel, every system call flushes the TLB, which
# takes 12 % of a run.
_KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests "
    "initcall_blacklist=jent_mod_init,crypto_kdf108_init,"
    "load_system_certificate_list,init_kprobe_trace,trace_eval_init"
)


# Counts the processes that the kernel has killed, in all cgroups.
_VMSTAT = Path("/proc/vmstat")
_OOM_KILL = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Outer:
    """The distribution's QEMU.

    :param program: The path of the binary.
    :param version: The version that it reports.
    :param sha256: The SHA-256 of the binary.
    """

    program: str
    version: str
    sha256: str


@dataclass(frozen=True)
class _Board:
    """What the VM has for a driver, beside what it always has.

    :param arguments: Arguments of the QEMU that runs the VM.
    :param kernel: Words of the kernel's command line.
    """

    arguments: tuple[str, ...] = ()
    kernel: str = ""


def _controllers() -> Iterator[str]:
    """Arguments for one NVMe controller with virtual functions per side.

    Each function takes two queues and an interrupt of its controller, which
    keeps two queues and an interrupt for itself.
    """
    for number, side in enumerate(Side, 1):
        yield from ("-device", f"pcie-root-port,id=port{number},slot={number}")
        yield from ("-device", f"nvme-subsys,id=sub{number}")
        yield "-device"
        yield (
            f"nvme,bus=port{number},subsys=sub{number},serial={side.prefix},"
            f"sriov_max_vfs={MAX_DEVICES},"
            f"sriov_vq_flexible={2 * MAX_DEVICES},"
            f"sriov_vi_flexible={MAX_DEVICES},"
            f"max_ioqpairs={2 * MAX_DEVICES + 2},"
            f"msix_qsize={MAX_DEVICES + 2}"
        )


# SeaBIOS would use the controllers, whose emulation takes the time of the
# host; qboot does not look for disks.  Without no_timer_check, Linux may
# panic: it finds that its timer does not work through an IOMMU.
_BOARDS = {
    Driver.P2PVF: _Board(
        (
            *("-bios", "qboot.rom"),
            *("-device", "intel-iommu,intremap=on,caching-mode=off"),
            *_controllers(),
        ),
        "intel_iommu=on no_timer_check initcall_blacklist=nvme_init",
    )
}


def find_outer() -> Outer:
    """Find the QEMU that runs the outer VM.

    :raise MissingToolError: When there is none.
    """
    program = shutil.which(PROGRAM)
    if not program:
        raise MissingToolError(PROGRAM, PACKAGE)
    text = subprocess.run(
        [program, "--version"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    ).stdout
    return Outer(
        program,
        text.partition("\n")[0],
        hashlib.sha256(Path(program).read_bytes()).hexdigest(),
    )


def vm_arguments(driver: Driver, job: str = "") -> tuple[str, ...]:
    """Return the arguments of the VM, without the paths of files.

    :param driver: The kernel module that provides the devices.
    :param job: See `run_sealed`.
    """
    board = _BOARDS.get(driver, _Board())
    words = filter(None, (_KERNEL_ARGUMENTS, board.kernel, job))
    return (*_COMMON, *board.arguments, "-append", " ".join(words))


def sealed_arguments(
    seed: int, driver: Driver, job: str = ""
) -> tuple[str, ...]:
    """Return the arguments of a sealed run, without the paths of files.

    :param seed: The seed of all randomness that the guest gets.
    :param driver: The kernel module that provides the devices.
    :param job: See `run_sealed`.
    """
    return (*vm_arguments(driver, job), *_SEALED, "-seed", str(seed))


async def run_sealed(
    outer: Outer,
    image: Image,
    seed: int,
    folder: Path,
    limit_s: float,
    job: str = "",
) -> None:
    """Run the outer VM until it powers off; nothing goes in or out.

    :param outer: The QEMU that runs the VM.
    :param image: The image of the VM.
    :param seed: The seed of all randomness that the guest gets.
    :param folder: The folder with ``initramfs.cpio``; the files ``mailbox``
        and ``console.txt`` are made in it.
    :param limit_s: The limit in seconds of the host's time; the guest has
        limits of its own.
    :param job: A word of the kernel's command line for images/testbed/init;
        by default, the VM runs a scenario.
    :raise TestbedError: When the VM does not end as it should.
    :raise OSError: With ENOSPC, when the disk was filled meanwhile.
    """
    killed_before = _killed_for_memory()
    (folder / MAILBOX).touch()
    os.truncate(folder / MAILBOX, SIZE_BYTES)
    backend = f"memory-backend-file,id=mailbox,size={SIZE_BYTES},share=on"
    process = await asyncio.create_subprocess_exec(
        *bound([outer.program]),
        *sealed_arguments(seed, image.driver, job),
        *("-L", str(image.firmware)),
        *("-kernel", str(image.kernel)),
        *("-initrd", INITRAMFS),
        *("-serial", f"file:{CONSOLE}"),
        *("-object", f"{backend},mem-path={MAILBOX}"),
        *("-device", "ivshmem-plain,memdev=mailbox"),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(limit_s):
            _, stderr = await process.communicate()
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
    if process.returncode == -signal.SIGKILL:
        raise _killed(_killed_for_memory() > killed_before)
    if (
        process.returncode == -signal.SIGBUS
        and shutil.disk_usage(folder).free < SIZE_BYTES
    ):
        # The mailbox is a file without blocks, until the VM writes to it.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if process.returncode:
        said = stderr.decode(errors="backslashreplace").strip()
        raise TestbedError(
            f"the outer VM's QEMU ended with {process.returncode}: {said}",
            "Try 'vfio-p2p testbed shell', which starts the VM as well.",
        )


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
        f"A run takes more than {RAM_MIB} MiB. Run fewer jobs at a time with "
        "--jobs, free some memory, or raise the limit of the container or "
        "cgroup.",
    )
