# SPDX-License-Identifier: GPL-2.0-or-later
"""A shell in the outer VM, for debugging; nothing sealed about it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from vfio_p2p.errors import TestbedError
from vfio_p2p.machine.process import bound
from vfio_p2p.places.sealed.image import Image
from vfio_p2p.places.sealed.outer import (
    COMMON,
    CONSOLE,
    CPU,
    KERNEL_ARGUMENTS,
    Outer,
)

_KVM = ("-accel", "kvm", "-cpu", "host")
_TCG = ("-accel", "tcg,thread=multi", "-cpu", CPU)
# A guest of ours is up in less than 1 s where KVM works. Where /dev/kvm is
# there and useless the firmware alone takes minutes.
_PROBE_LIMIT_S = 20.0
_UP = b"testbed: up"


def kvm_works(outer: Outer, image: Image) -> bool:
    """Whether a guest of ours boots on KVM, within a time limit.

    That /dev/kvm exists says nothing: it may be one on which a standard
    kernel dies.

    :param outer: The QEMU to try it with.
    :param image: The guest to boot.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    with tempfile.TemporaryDirectory(prefix="vfio-p2p-") as name:
        console = Path(name, CONSOLE)
        argv = [
            *bound([outer.program]),
            *COMMON,
            *_KVM,
            *("-L", str(image.firmware)),
            *("-kernel", str(image.kernel)),
            *("-initrd", str(image.initramfs)),
            *("-append", f"{KERNEL_ARGUMENTS} testbed=probe"),
            *("-serial", f"file:{console}"),
        ]
        try:
            subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_PROBE_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return console.exists() and _UP in console.read_bytes()


def run_shell(outer: Outer, image: Image, initramfs: Path) -> None:
    """Give the terminal to a shell in the VM until it powers off.

    Ctrl-a x ends the VM, whatever it does.

    :param initramfs: The whole initramfs, with a QEMU in it.
    :raise TestbedError: When the VM does not run.
    """
    accelerator = _KVM if kvm_works(outer, image) else _TCG
    done = subprocess.run(
        [
            *bound([outer.program]),
            *COMMON,
            *accelerator,
            *("-L", str(image.firmware)),
            *("-kernel", str(image.kernel)),
            *("-initrd", str(initramfs)),
            *("-append", f"{KERNEL_ARGUMENTS} testbed=shell"),
            *("-serial", "mon:stdio"),
        ],
        check=False,
    )
    if done.returncode:
        raise TestbedError(
            f"the outer VM's QEMU ended with {done.returncode}"
        )
