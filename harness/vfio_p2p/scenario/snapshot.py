# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots of a VM, made and loaded by QMP's jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vfio_p2p.machine.errors import CommandError
from vfio_p2p.machine.qemu import Qemu
from vfio_p2p.scenario.course import Limits

_NODE = "snapshots"
_TAG = "vfio-p2p"
# The size of the disk, which no guest sees; the VM's state lies behind it.
_SIZE_BYTES = 1 << 20


async def save(vm: Qemu, path: Path, limits: Limits) -> None:
    """Save a VM to a disk image, which is made if it does not exist.

    :param vm: The QEMU of the VM.
    :param path: The disk image; each VM needs its own.
    :param limits: The time limits.
    :raise VMError: When QEMU cannot save the VM.
    """
    if not path.exists():
        await _make_image(vm, path, limits)
    await _job(
        vm,
        "snapshot-save",
        {"tag": _TAG, "vmstate": _NODE, "devices": [_NODE]},
        limits.migrate_s,
    )


async def load(vm: Qemu, limits: Limits) -> None:
    """Load the snapshot of a VM.

    :param vm: The QEMU of the VM that was saved.
    :param limits: The time limits.
    :raise VMError: When QEMU cannot load it.
    """
    await _job(
        vm,
        "snapshot-load",
        {"tag": _TAG, "vmstate": _NODE, "devices": [_NODE]},
        limits.migrate_s,
    )


async def _make_image(vm: Qemu, path: Path, limits: Limits) -> None:
    file = {"driver": "file", "filename": str(path)}
    image = {"driver": "qcow2", "file": f"{_NODE}-file"}
    for node, options, size_bytes in (
        (f"{_NODE}-file", file, 0),
        (_NODE, image, _SIZE_BYTES),
    ):
        await _job(
            vm,
            "blockdev-create",
            {"options": {**options, "size": size_bytes}},
            limits.command_s,
        )
        await vm.execute(
            "blockdev-add",
            {"node-name": node, **options},
            limit_s=limits.command_s,
        )


async def _job(
    vm: Qemu, command: str, arguments: dict[str, Any], limit_s: float
) -> None:
    """Run a job to its end."""
    job = f"job-{command}"
    await vm.execute(command, {"job-id": job, **arguments}, limit_s=limit_s)
    async with vm.step(command, limit_s):
        while True:
            match await vm.next_event(command):
                case {
                    "event": "JOB_STATUS_CHANGE",
                    "data": {"id": str(name), "status": "concluded"},
                }:
                    if name == job:
                        break
    for found in await vm.execute("query-jobs", limit_s=limit_s):
        match found:
            case {"id": str(name), "error": str(why)} if name == job:
                raise CommandError(vm.side, f"{command}: {why}")
    await vm.execute("job-dismiss", {"id": job}, limit_s=limit_s)
