# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's own guest in hosts.toml."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from bundles import make_bundle
from test_hosts_file import WHOLE
from test_two_clocks import machine
from vfio_p2p.bundle.provenance import GuestProvenance, HostProvenance
from vfio_p2p.devices.vf.line import CheckLine
from vfio_p2p.errors import ConfigError, HostError
from vfio_p2p.machine.host import HostSpec, open_host
from vfio_p2p.places.hosts.config import FILE, parse_hosts
from vfio_p2p.places.hosts.guest import (
    GuestEntry,
    ImageMode,
    differences,
    own_guest,
)
from vfio_p2p.places.hosts.guest_files import GuestFiles, check_files
from vfio_p2p.report.collect import collect
from vfio_p2p.report.document import from_json, to_json
from vfio_p2p.report.formats import render
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


def test_what_is_known_of_a_guest(tmp_path: Path) -> None:
    kernel, image = tmp_path / "a kernel", tmp_path / "image"
    kernel.write_bytes(b"first")
    image.write_bytes(b"disk")
    guest = GuestEntry(
        kernel=str(kernel), image=str(image), append="quiet", smp=2
    )

    async def look() -> None:
        async with open_host(HostSpec()) as host:
            files = GuestFiles("box", host)
            found = await files.provenance(guest)
            assert found == GuestProvenance(
                files={"kernel": sha256(b"first"), "image": sha256(b"disk")},
                append="quiet",
                memory_mib=512,
                smp=2,
                image_mode="read-only",
            )
            # The guest may have been made anew in the meantime.
            kernel.write_bytes(b"second")
            found = await files.provenance(guest)
            assert found.files["kernel"] == sha256(b"second")
            # An image that the guest writes to is another one each time.
            shared = msgspec.structs.replace(
                guest, image_mode=ImageMode.SHARED
            )
            found = await files.provenance(shared)
            assert (set(found.files), found.image_mode) == (
                {"kernel"}, "shared"
            )
            kernel.unlink()
            with pytest.raises(HostError, match=r"kernel cannot be read: "):
                await files.provenance(guest)

    asyncio.run(look())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_report_shows_the_guest(tmp_path: Path) -> None:
    guest = GuestProvenance(
        files={"kernel": "4" * 64}, append="quiet", memory_mib=64, smp=1
    )
    box = msgspec.structs.replace(machine("box"), guest=guest)
    for at, shown in ((box, True), (machine("box"), False)):
        place = HostProvenance(name="box", source=at, destination=at)
        path = make_bundle(tmp_path / str(shown), place=place)
        document = collect([path])
        assert from_json(to_json(document).encode(), "x") == document
        text = " ".join(render("html", document).split())
        for said in ("64 MiB, 1 x CPU", ">quiet<", "4" * 64):
            assert (said in text) is shown
        # Without a guest, nothing is different in a bundle.
        manifest = json.loads((path / "manifest.json").read_bytes())
        assert ("guest" in manifest["inputs"]["place"]["source"]) is shown


def test_files_are_looked_for(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.touch()
    guest = GuestEntry(kernel=str(kernel), initrd=str(tmp_path / "initrd"))
    assert checked(guest) == [True, False]
    assert checked(GuestEntry(image=str(tmp_path))) == [False]
    shared = GuestEntry(image=str(kernel), image_mode=ImageMode.SHARED)
    assert checked(shared) == [True]
