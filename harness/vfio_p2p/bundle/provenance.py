# SPDX-License-Identifier: GPL-2.0-or-later
"""The contribution of a place to the result of a run.

A bundle's manifest records the provenance of its run.  It is a tagged union:
the key ``place`` says which of the classes below it is.
"""

from __future__ import annotations

import msgspec


class SealedProvenance(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="place",
    tag="sealed",
):
    """The testbed in which a sealed run was made.

    :param image: SHA-256 by name of the image's files: the kernel, the
        initramfs (modules, Python, the runner) and the firmware.
    :param outer: The version string of the QEMU that ran the outer VM.
    :param outer_sha256: The SHA-256 of that QEMU's binary.
    :param arguments: That QEMU's arguments, without the paths of files.
    :param driver: The kernel module that provided the devices.
    :param kernel: The name and the version of the kernel's package.
    :param compiler: The first line of the version that the compiler of the
        kernel module reports.
    """

    image: dict[str, str]
    outer: str
    outer_sha256: str
    arguments: tuple[str, ...]
    driver: str = "p2psim"
    kernel: str = ""
    compiler: str = ""

    @property
    def exact(self) -> bool:
        """True: the same inputs give the same bundle, to the byte."""
        return True


class AttachedProvenance(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="place",
    tag="attached",
):
    """Logs that somebody brought; nothing is known of their machines.

    :param source_qemu: The version of the source's QEMU, as far as its
        trace tells; may be empty.
    :param destination_qemu: The same for the destination.
    """

    source_qemu: str = ""
    destination_qemu: str = ""

    @property
    def driver(self) -> str:
        """Empty: no log names the kernel module of the devices."""
        return ""

    @property
    def exact(self) -> bool:
        """False: another run may differ."""
        return False


Provenance = SealedProvenance | AttachedProvenance
