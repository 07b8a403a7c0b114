# SPDX-License-Identifier: GPL-2.0-or-later
"""A shell in the outer VM, for debugging; it is not sealed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vfio_p2p.errors import TestbedError
from vfio_p2p.machine.process import bound
from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.places.sealed.image import Image
from vfio_p2p.places.sealed.outer import (
    CONSOLE,
    CPU,
    RAM_MIB,
    Outer,
    vm_arguments,
)

_MEMORY = ("-m", f"{RAM_MIB}")
_KVM = ("-accel", "kvm", "-cpu", "host")
_TCG = ("-accel", "tcg,thread=multi", "-cpu", CPU)
# If KVM works, our guest is up in less than 1 s.  If /dev/kvm exists but is
# useless, the firmware alone takes minutes.
_PROBE_LIMIT_S = 20.0
_UP = b"testbed: up"


def kvm_works(outer: Outer, image: Image) -> bool:
    """Whether our guest boots on KVM within a time limit.

    The existence of /dev/kvm proves nothing: a standard kernel may crash on
    it.

    :param outer: The QEMU to try.
    :param image: The image to boot.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    with temporary_folder() as name:
        console = Path(name, CONSOLE)
        argv = [
            *bound(outer.argv),
            *vm_arguments(image.driver, image.kernel_kind, "testbed=probe"),
            *_MEMORY,
            *_KVM,
            *("-L", str(image.firmware)),
            *("-kernel", str(image.kernel)),
            *("-initrd", str(image.initramfs)),
            *("-serial", f"file:{console}"),
        ]
        try:
            subprocess.run(
                argv,
                env=dict(outer.environment),
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
    """Give the terminal to a shell in the VM until the VM powers off.

    Ctrl-a x always ends the VM.

    :param outer: The QEMU that runs the VM.
    :param image: The image of the VM.
    :param initramfs: The whole initramfs, with a QEMU in it.
    :raise TestbedError: When the VM does not run.
    """
    accelerator = _KVM if kvm_works(outer, image) else _TCG
    done = subprocess.run(
        [
            *bound(outer.argv),
            *vm_arguments(image.driver, image.kernel_kind, "testbed=shell"),
            *_MEMORY,
            *accelerator,
            *("-L", str(image.firmware)),
            *("-kernel", str(image.kernel)),
            *("-initrd", str(initramfs)),
            *("-serial", "mon:stdio"),
        ],
        env=dict(outer.environment),
        check=False,
    )
    if done.returncode:
        raise TestbedError(
            f"the outer VM's QEMU ended with {done.returncode}",
            "Read the messages above.",
        )
