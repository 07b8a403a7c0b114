# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's own guest: the table ``[host.NAME.guest]`` of ``hosts.toml``.

It takes the place of the bare firmware.  A scenario whose guest sends
heartbeats runs images/guest whatever the table says.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from vfio_p2p.scenario.course import GuestProgram
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.values import Strict

_MOST_RAM_MIB = 1 << 20


class ImageMode(StrEnum):
    """Who writes to a disk image.

    `read-only` gives the guest a disk that it cannot write to.  `shared`
    lets the guest write to it, and both QEMUs open the same image.
    """

    READ_ONLY = "read-only"
    SHARED = "shared"


class GuestEntry(Strict, frozen=True, kw_only=True):
    """A guest of the user.

    All paths are absolute ones of the host.

    :param kernel: The path of a Linux kernel.
    :param initrd: The path of its initial RAM disk.
    :param append: Its command line.
    :param image: The path of a disk image.
    :param format: The format of the image, by QEMU's name.
    :param image_mode: Who writes to the image.
    :param memory_mib: The guest's memory.
    :param cpu: QEMU's model of the processor; empty for QEMU's default.
    :param smp: The number of processors.
    :param wait_for: A text on the guest's first serial port; the first step
        of a scenario waits for it.
    :param wait_s: How long to wait for it.
    """

    kernel: str = ""
    initrd: str = ""
    append: str = ""
    image: str = ""
    format: str = "raw"
    image_mode: ImageMode = ImageMode.READ_ONLY
    memory_mib: Annotated[int, Meta(ge=16, le=_MOST_RAM_MIB)] = 512
    cpu: str = ""
    smp: Annotated[int, Meta(ge=1, le=255)] = 1
    wait_for: Annotated[str, Meta(max_length=200)] = ""
    wait_s: Annotated[int, Meta(ge=1, le=3600)] = 300

    def __post_init__(self) -> None:
        if not self.kernel and not self.image:
            raise ValueError("give 'kernel' or 'image'")
        for key in ("initrd", "append"):
            if getattr(self, key) and not self.kernel:
                raise ValueError(f"{key}: only a 'kernel' has one")
        for path in self.files:
            if not path.startswith("/"):
                raise ValueError(
                    f"{path!r} is not an absolute path of the host"
                )
        if not self.wait_for.isprintable():
            raise ValueError("wait_for: it has to be a part of one line")
        if not self.format.isalnum():
            raise ValueError(f"format: {self.format!r} is not a format")

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all its files."""
        return tuple(filter(None, (self.kernel, self.initrd, self.image)))

    @property
    def writes(self) -> bool:
        """Whether it changes its image."""
        return bool(self.image) and self.image_mode is ImageMode.SHARED

    def arguments(self) -> tuple[str, ...]:
        """The arguments that give it to QEMU; they follow all others."""
        # QEMU takes the last of two sizes.  A scenario's cannot be as large
        # as a user's guest may need.
        found = ["-m", str(self.memory_mib), "-smp", str(self.smp)]
        for option in ("cpu", "kernel", "initrd", "append"):
            if value := getattr(self, option):
                found += [f"-{option}", value]
        if self.image:
            path = self.image.replace(",", ",,")
            drive = f"id=vfio-p2p-disk,if=none,file={path}"
            drive += f",format={self.format}"
            if not self.writes:
                drive += ",readonly=on"
            found += [
                *("-drive", drive),
                *("-device", "virtio-blk-pci,drive=vfio-p2p-disk"),
            ]
        return tuple(found)


def own_guest(
    scenario: Scenario, guest: GuestEntry | None
) -> GuestEntry | None:
    """Return the user's own guest if the scenario runs it.

    :param scenario: The scenario.
    :param guest: The guest of hosts.toml, if there is one.
    """
    if scenario.guest.program is GuestProgram.FIRMWARE:
        return guest
    return None


def differences(source: GuestEntry | None, other: GuestEntry | None) -> str:
    """Say why two hosts cannot hand a guest to one another.

    :param source: The guest of the source's host.
    :param other: The guest of the destination's host.
    :return: A clause; empty if they can.
    """
    if source is None or other is None:
        return "" if source is other else "only one of the hosts has a guest"
    for key in ("image", "format", "image_mode", "memory_mib", "cpu", "smp"):
        if getattr(source, key) != getattr(other, key):
            return (
                f"guest: {key} has to be the same on both hosts, since the "
                "guest moves from one to the other"
            )
    if bool(source.kernel) is not bool(other.kernel):
        return "guest: either both hosts have a kernel, or none has"
    return ""
