# SPDX-License-Identifier: GPL-2.0-or-later
"""Tell the lab's devices how to behave, for as long as stdin is open.

The lab's variant driver p2pvf takes the attributes of p2psim's devices: flags,
latencies, faults (images/p2pvf/README.md).  The first line on stdin is the
request, and the answer says that it was done.  Each further line names a
device, whose own log is the answer.  In the end the devices are as they were.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vfio_p2p.agent.failure import HOST, INPUT, AgentError
from vfio_p2p.agent.functions import checked_address
from vfio_p2p.agent.main import show
from vfio_p2p.agent.roots import Roots

_DRIVER = "p2pvf"


def run(arguments: Sequence[str], roots: Roots) -> None:
    """Set the attributes of devices, and answer with their logs.

    :param arguments: None.
    :param roots: Where the kernel's folders are.
    :raise AgentError: When the driver refuses, or the request is none.
    """
    wanted = _request(sys.stdin.readline())
    top = roots.sys / "kernel" / "config" / _DRIVER
    logs = roots.sys / "kernel" / "debug" / _DRIVER
    try:
        for address, settings in wanted.items():
            _create(top / address, settings)
        show({"simulated": sorted(wanted)})
        for line in sys.stdin:
            address = checked_address(json.loads(line)["log"])
            show({"log": _log(logs / address / "log")})
    finally:
        for address in wanted:
            # It is in use only if QEMU is, which ends before us.
            with suppress(OSError):
                (top / address).rmdir()


def _request(line: str) -> dict[str, list[tuple[str, str]]]:
    try:
        devices = json.loads(line)["devices"]
        return {
            checked_address(address): [(str(x), str(y)) for x, y in settings]
            for address, settings in devices.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise AgentError(
            f"the request is wrong: {err!r}",
            "Let vfio-p2p send its own agent.",
            INPUT,
        ) from err


def _create(folder: Path, settings: list[tuple[str, str]]) -> None:
    step = "mkdir"
    try:
        # Somebody who was killed may have left one.
        with suppress(FileNotFoundError):
            folder.rmdir()
        folder.mkdir()
        for name, value in settings:
            step = f"{name} = {value!r}"
            # configfs needs one write(2) for each value.
            fd = os.open(folder / name, os.O_WRONLY)
            try:
                os.write(fd, f"{value}\n".encode())
            finally:
                os.close(fd)
    except OSError as err:
        raise AgentError(
            f"{folder}, {step}: {err.strerror}",
            "This needs root and the lab's driver p2pvf; dmesg may say more.",
            HOST,
        ) from err


def _log(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as err:
        raise AgentError(
            f"{path}: {err.strerror}",
            "This needs root, and debugfs in /sys/kernel/debug.",
            HOST,
        ) from err
