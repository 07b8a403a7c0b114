# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for the cleanup of a migration, which QMP does not report.

A ``quit`` before it would close the devices in another order than a
management tool does, which waits a moment.
"""

from __future__ import annotations

import asyncio

from vfio_p2p.machine.qemu import TRACE_LOG, Qemu
from vfio_p2p.tells import Tells

POLL_S = 0.1
_STEP = "cleanup of the migration"
_CLEANUP = b"vfio_save_cleanup "
# The states that the cleanup ends.
_BUSY = ("pre-copy", "pre-copy-p2p", "stop-copy")
# A device that refuses to leave such a state sends no event.  Each device
# that obeys sends one, far sooner than this.
_QUIET_POLLS = 30


def traced(vm: Qemu) -> bytes:
    """Return what QEMU has written to its log so far.

    :param vm: The QEMU.
    """
    path = vm.directory / TRACE_LOG
    return path.read_bytes() if path.exists() else b""


def cleanups(vm: Qemu) -> int:
    """Count the device cleanups that QEMU has reported.

    :param vm: The QEMU.
    """
    return traced(vm).count(_CLEANUP)


async def cleaned_up(vm: Qemu, due: int, limit_s: float) -> None:
    """Wait for the source's cleanup, which follows its last status.

    The cleanup is over when the trace has a line vfio_save_cleanup for each
    device; QEMU 8.1 to 11.1 all print it as the last thing
    (savevm_state_cleanup only marks the beginning).  Without a log, it is
    over when no device has reported a state that the cleanup ends.

    :param vm: The source's QEMU.
    :param due: How many cleanups it has reported in the end.
    :param limit_s: The limit in seconds.
    :raise StepTimeoutError: When it takes longer.
    :raise ConnectionLostError: When QEMU goes away.
    """
    async with vm.step(_STEP, limit_s):
        if vm.tells is Tells.LOG:
            while cleanups(vm) < due:
                await vm.check_alive(_STEP)
                await asyncio.sleep(POLL_S)
            return
        told, quiet = -1, 0
        while _busy(vm) and quiet < _QUIET_POLLS:
            await vm.check_alive(_STEP)
            await asyncio.sleep(POLL_S)
            quiet = quiet + 1 if told == len(vm.events.history) else 0
            told = len(vm.events.history)


def _busy(vm: Qemu) -> bool:
    """Whether a device was last reported in a state of a migration."""
    last = {}
    for event in vm.events.history:
        match event:
            case {
                "event": "VFIO_MIGRATION",
                "data": {"qom-path": path, "device-state": state},
            }:
                last[path] = state
    return any(state in _BUSY for state in last.values())
