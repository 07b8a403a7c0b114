# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM is believed only if a guest runs on it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from inventories import good, host
from vfio_p2p.devices.vf.drivers import find_driver
from vfio_p2p.errors import UsageError
from vfio_p2p.machine.host import LocalHost
from vfio_p2p.places.hosts import accelerator
from vfio_p2p.places.hosts.machine import Machine
from vfio_p2p.scenario.argv import Launcher

# It writes to the file of -serial what its first argument says, and obeys its
# monitor.
_QEMU = """\
#!/bin/sh
say=$1
while [ $# -gt 1 ]; do
    [ "$1" = -serial ] && log=${2#file:}
    shift
done
echo "$say 1" > "$log"
while read -r word; do [ "$word" = quit ] && exit; done
"""


def launcher(folder: Path, says: str) -> Launcher:
    program = folder / "qemu"
    program.write_text(_QEMU)
    program.chmod(0o755)
    return Launcher((str(program), says), folder)


def machine() -> Machine:
    return Machine("box", LocalHost(), find_driver("mlx5"))


async def test_a_guest_that_beats(tmp_path: Path) -> None:
    # It waits for QEMU's end, which comes at once, and not for the limit.
    begin = time.monotonic()
    assert await machine().has_kvm(good(), launcher(tmp_path, "beat"), None)
    assert time.monotonic() - begin < accelerator._LIMIT_S


async def test_a_guest_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = accelerator._TRY.replace(str(accelerator._LIMIT_S), "1")
    monkeypatch.setattr(accelerator, "_TRY", shorter)
    silent = launcher(tmp_path, "nothing")
    assert not await machine().has_kvm(good(), silent, None)
    with pytest.raises(UsageError, match="no guest of ours runs on KVM"):
        await machine().has_kvm(good(), silent, True)


async def test_nothing_is_tried_without_need(tmp_path: Path) -> None:
    missing = Launcher((str(tmp_path / "missing"),), tmp_path)
    without = host(kvm=False)(good())
    assert not await machine().has_kvm(good(), missing, False)
    assert not await machine().has_kvm(without, missing, None)
    with pytest.raises(UsageError):
        await machine().has_kvm(without, missing, True)
