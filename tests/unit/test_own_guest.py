# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's own guest in hosts.toml."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from test_hosts_file import WHOLE
from vfio_p2p.devices.vf.line import CheckLine
from vfio_p2p.errors import ConfigError
from vfio_p2p.machine.host import HostSpec, open_host
from vfio_p2p.places.hosts.config import FILE, parse_hosts
from vfio_p2p.places.hosts.guest import (
    GuestEntry,
    ImageMode,
    differences,
    own_guest,
)
from vfio_p2p.places.hosts.guest_files import check_files
from vfio_p2p.scenario.load import load

KERNEL = 'guest = {kernel = "/boot/k", initrd = "/boot/i", append = "quiet"}'
DISK = 'guest = {image = "/srv/disk", image_mode = "shared"}'
DRIVER = 'driver = "mlx5"\n'


def parse(one: str, other: str = "") -> GuestEntry | None:
    """Return the first host's guest; the second host may have one, too."""
    first, *rest = WHOLE.split(DRIVER)
    texts = [first, f"{one}\n{rest[0]}", f"{other}\n{rest[1]}"]
    found = parse_hosts(DRIVER.join(texts).encode(), FILE)
    return found.host["box"].guest


def test_a_kernel() -> None:
    guest = parse(KERNEL, KERNEL)
    assert guest is not None
    assert guest.files == ("/boot/k", "/boot/i")
    assert guest.arguments() == (
        "-m", "512", "-smp", "1", "-kernel", "/boot/k", "-initrd", "/boot/i",
        "-append", "quiet",
    )  # fmt: skip


def test_a_disk() -> None:
    guest = GuestEntry(image="/srv/a,b")
    drive = "id=vfio-p2p-disk,if=none,file=/srv/a,,b,format=raw,readonly=on"
    assert drive in guest.arguments()
    shared = msgspec.structs.replace(guest, image_mode=ImageMode.SHARED)
    assert not any("readonly" in x for x in shared.arguments())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("guest = {}", "give 'kernel' or 'image'"),
        ('guest = {image = "/d", append = "x"}', "only a 'kernel' has one"),
        ('guest = {kernel = "k"}', "'k' is not an absolute path"),
        ('guest = {image = "/d", format = "raw,x=y"}', "is not a format"),
        ('guest = {image = "/d", image_mode = "snapshot"}', "image_mode"),
        ('guest = {image = "/d", wait_for = "a\\n"}', "a part of one line"),
        ('guest = {image = "/d", wait_s = 0}', "wait_s"),
        ('guest = {image = "/d", smp = 0}', "smp"),
        ('guest = {imag = "/d"}', "imag"),
    ],
)
def test_mistakes_are_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (KERNEL, "", "only one of the hosts has a guest"),
        (DISK, DISK.replace("disk", "desk"), "image has to be the same"),
        (KERNEL, DISK, "image has to be the same"),
        (
            KERNEL,
            KERNEL.replace("{", "{memory_mib = 64, "),
            "memory_mib has to be the same",
        ),
    ],
)
def test_a_pair_has_one_guest(one: str, other: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(one, other)
    assert parse(one, one)


def test_kernels_may_be_in_other_places() -> None:
    one = GuestEntry(kernel="/boot/a")
    assert not differences(one, GuestEntry(kernel="/boot/b"))
    assert not differences(None, None)


def test_the_heartbeat_stays(tmp_path: Path) -> None:
    guest = GuestEntry(kernel="/k")
    assert own_guest(load("two-devices"), guest) is guest
    assert own_guest(load("two-devices-with-heartbeat"), guest) is None


def checked(guest: GuestEntry) -> list[bool | None]:
    """Look for the files of a guest on this machine."""

    async def look() -> tuple[CheckLine, ...]:
        async with open_host(HostSpec()) as host:
            return await check_files("box", host, guest)

    return [x.ok for x in asyncio.run(look())]


def test_files_are_looked_for(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.touch()
    guest = GuestEntry(kernel=str(kernel), initrd=str(tmp_path / "initrd"))
    assert checked(guest) == [True, False]
    assert checked(GuestEntry(image=str(tmp_path))) == [False]
    shared = GuestEntry(image=str(kernel), image_mode=ImageMode.SHARED)
    assert checked(shared) == [True]
