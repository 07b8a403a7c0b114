# SPDX-License-Identifier: GPL-2.0-or-later
"""Make a bpftrace program that witnesses the migrations of a QEMU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.attach.elf import Elf
from vfio_p2p.attach.uprobes import bpftrace_program
from vfio_p2p.errors import SourceError, UsageError

# What a QEMU that was started through it has for its program.
_LOADER = "ld-linux"


@dataclass(frozen=True)
class TraceScriptRequest:
    """The QEMU that is to be witnessed, by its file or by its process.

    :param binary: Its file; None if `pid` says which.
    :param pid: Its process on this machine; None is every one of the file.
    :param path: Its path where the program is to run; empty if it is the
        same there.
    :param name_offset: Where struct VFIODevice has a device's name, in bytes;
        None if it is as in QEMU's releases.
    """

    binary: Path | None = None
    pid: int | None = None
    path: str = ""
    name_offset: int | None = None


def trace_script(request: TraceScriptRequest) -> str:
    """Return the program.

    :param request: The QEMU.
    :raise UsageError: When there is no such process, or no QEMU is named.
    :raise SourceError: When the file lacks what the program needs.
    """
    path = request.binary
    if path is None:
        if request.pid is None:
            raise UsageError(
                "no QEMU is named", "Name its file, or its process by --pid."
            )
        path = _program_of(request.pid)
    return bpftrace_program(
        Elf(path),
        request.path or str(path.absolute()),
        pid=request.pid,
        name_offset=request.name_offset,
    )


def _program_of(pid: int) -> Path:
    """Return the file of a process, by a path that leads there from here."""
    link = Path("/proc", str(pid), "exe")
    try:
        target = Path(os.readlink(link))
    except OSError as err:
        raise UsageError(
            f"process {pid}: {err.strerror}",
            "Name a QEMU that runs on this machine; that of another user "
            "needs root.",
        ) from err
    if target.name.startswith(_LOADER):
        raise SourceError(
            f"process {pid} was started by a dynamic loader",
            "Give the path of QEMU's file instead of --pid, and the process "
            "to bpftrace.",
        )
    try:
        same = target.samefile(link)
    except OSError:
        same = False
    # QEMU can be in a container, or its file be replaced since it started.
    return target if same else link
