# SPDX-License-Identifier: GPL-2.0-or-later
"""The testbed's parts that need no VM."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import shutil
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vfio_p2p.choice import VmKernel
from vfio_p2p.devices import Driver
from vfio_p2p.errors import SourceError, TestbedError
from vfio_p2p.places.sealed import mailbox
from vfio_p2p.places.sealed.cpio import Layer
from vfio_p2p.places.sealed.image import Image
from vfio_p2p.places.sealed.kit import Kit
from vfio_p2p.places.sealed.load import job_files, write_initramfs
from vfio_p2p.places.sealed.outer import sealed_arguments
from vfio_p2p.qemu.program import Program

NAMES = st.text("abcXYZ.-_", min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..")
)


@dataclass(frozen=True)
class Member:
    """The attributes of one file of an archive that the kernel sees."""

    inode: int
    mode: int
    links: int
    data: bytes


def parse(archive: bytes) -> dict[str, Member]:
    """Read as the kernel does: Documentation/driver-api/early-userspace/
    buffer-format.rst.
    """
    found: dict[str, Member] = {}
    at = 0
    while at < len(archive):
        if archive[at] == 0:
            at += 1
            continue
        assert at % 4 == 0
        assert archive[at : at + 6] == b"070701"
        numbers = [
            int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16)
            for i in range(13)
        ]
        begin = at + 110
        name = archive[begin : begin + numbers[11]]
        assert name.endswith(b"\0")
        start = begin + numbers[11] + -(begin + numbers[11]) % 4
        end = start + numbers[6]
        at = end + -end % 4
        text = name[:-1].decode()
        if text == "TRAILER!!!":
            continue
        # mtime, owner and device numbers would tell one run from another.
        assert numbers[2:4] == [0, 0]
        assert numbers[5] == 0
        assert numbers[7:11] == [0, 0, 0, 0]
        assert numbers[12] == 0
        above = text.rpartition("/")[0]
        assert not above or stat.S_ISDIR(found[above].mode), text
        found[text] = Member(
            numbers[0], numbers[1], numbers[4], archive[start:end]
        )
    return found


def sample() -> Layer:
    layer = Layer()
    layer.add("usr/bin/tool", b"#!/bin/sh\n", executable=True)
    layer.add("usr/share/text", b"hello")
    layer.add("empty", b"")
    layer.folder("proc")
    layer.link("bin", "usr/bin")
    return layer


def test_archive_is_what_the_kernel_reads() -> None:
    found = parse(sample().to_bytes())
    assert list(found) == sorted(found)
    modes = {name: member.mode for name, member in found.items()}
    assert modes == {
        "bin": stat.S_IFLNK | 0o777,
        "empty": stat.S_IFREG | 0o644,
        "proc": stat.S_IFDIR | 0o755,
        "usr": stat.S_IFDIR | 0o755,
        "usr/bin": stat.S_IFDIR | 0o755,
        "usr/bin/tool": stat.S_IFREG | 0o755,
        "usr/share": stat.S_IFDIR | 0o755,
        "usr/share/text": stat.S_IFREG | 0o644,
    }
    assert found["bin"].data == b"usr/bin"
    assert found["usr/share/text"].data == b"hello"
    # Files with one inode would be hard links.
    assert len({member.inode for member in found.values()}) == len(found)


def test_archive_is_padded_so_that_another_can_follow() -> None:
    assert len(sample().to_bytes()) % 512 == 0


def test_order_of_adding_does_not_matter() -> None:
    layer = Layer()
    layer.link("bin", "usr/bin")
    layer.folder("proc")
    layer.add("empty", b"")
    layer.add("usr/share/text", b"hello")
    layer.add("usr/bin/tool", b"#!/bin/sh\n", executable=True)
    assert layer.to_bytes() == sample().to_bytes()


@pytest.mark.skipif(
    not shutil.which("cpio"), reason="cpio is missing; parse() stands in"
)
def test_archive_unpacks_with_cpio(tmp_path: Path) -> None:
    subprocess.run(
        ["cpio", "-idm", "--quiet"],
        input=sample().to_bytes(),
        cwd=tmp_path,
        check=True,
    )
    assert (tmp_path / "bin" / "tool").read_bytes() == b"#!/bin/sh\n"
    assert os.access(tmp_path / "usr" / "bin" / "tool", os.X_OK)
    assert not (tmp_path / "usr" / "share" / "text").stat().st_mode & 0o111
    assert (tmp_path / "proc").is_dir()


@given(st.dictionaries(NAMES, st.binary(max_size=9)), NAMES)
def test_any_files(files: dict[str, bytes], above: str) -> None:
    layer = Layer()
    for name, data in files.items():
        layer.add(f"{above}/{name}", data)
    found = parse(layer.to_bytes())
    assert {
        name.removeprefix(f"{above}/"): member.data
        for name, member in found.items()
        if stat.S_ISREG(member.mode)
    } == files


def test_initramfs_is_the_image_and_the_job(tmp_path: Path) -> None:
    image = Image("key", tmp_path, {}, Kit(tmp_path, {}))
    image.initramfs.write_bytes(sample().to_bytes())
    path = tmp_path / "whole"
    program = {"qemu-system-x86_64": b"QEMU", "lib/ld.so": b"loader"}
    files = job_files(program, course=b"{}")
    write_initramfs(path, image, files)
    assert path.read_bytes().startswith(image.initramfs.read_bytes())
    found = parse(path.read_bytes())
    assert found["qemu/source/qemu-system-x86_64"].data == b"QEMU"
    assert found["qemu/source/lib/ld.so"].mode & 0o111
    assert found["job/course.json"].data == b"{}"
    again = tmp_path / "again"
    write_initramfs(again, image, files)
    assert again.read_bytes() == path.read_bytes()


def test_equal_programs_are_one_copy() -> None:
    old = {"qemu-old": b"old", "lib/ld.so": b"loader"}
    new = {"qemu-new": b"new", "lib/ld.so": b"loader"}
    assert job_files(old, dict(old), course=b"{}") == {
        "job/course.json": b"{}",
        "qemu/source/qemu-system-x86_64": b"old",
        "qemu/source/lib/ld.so": b"loader",
    }
    found = job_files(old, new, course=b"{}")
    assert found["qemu/source/qemu-system-x86_64"] == b"old"
    assert found["qemu/destination/qemu-system-x86_64"] == b"new"
    assert found["qemu/destination/lib/ld.so"] == b"loader"


def mapped(file: IO[bytes]) -> mmap.mmap:
    """Map a region as the VM has it."""
    return mmap.mmap(file.fileno(), mailbox.SIZE_BYTES)


def test_a_job_that_is_sent_is_received(tmp_path: Path) -> None:
    files = {"qemu/source/q": b"QEMU" * 999, "job/course.json": b""}
    root = tmp_path / "root"
    with mailbox.made() as region, mapped(region) as memory:
        assert not mailbox.has_job(memory)
        mailbox.send(region, files, (1 << 63) - 1)
        assert mailbox.has_job(memory)
        assert mailbox.receive(memory, root) == (1 << 63) - 1
        with pytest.raises(TestbedError, match="without leaving"):
            mailbox.collect(region, tmp_path)
        mailbox.post(memory, root)
        assert not mailbox.has_job(memory)
        with pytest.raises(TestbedError, match="without a job"):
            mailbox.receive(memory, root)
        assert collected(region, tmp_path / "in") == files
    assert contents(root) == files
    assert all(os.access(root / name, os.X_OK) for name in files)


def test_a_job_that_does_not_fit() -> None:
    big = bytes(mailbox.SIZE_BYTES - (1 << 10))
    with (
        mailbox.made() as region,
        pytest.raises(TestbedError, match="takes 256"),
    ):
        mailbox.send(region, {"qemu/source/q": big}, 1)


def test_program_brings_its_libraries() -> None:
    true = shutil.which("true")
    assert true
    found = Program.at(Path(true), variant="v", version="1").files()
    assert found["true"] == Path(true).read_bytes()
    assert found["lib/ld.so"].startswith(b"\x7fELF")
    assert any(name.startswith("lib/libc.so") for name in found)


def test_program_that_is_none(tmp_path: Path) -> None:
    script = tmp_path / "qemu-system-x86_64"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(SourceError, match="not a dynamic program"):
        Program.at(script, variant="v", version="1")


def test_seed_is_all_that_differs() -> None:
    one, other = (
        sealed_arguments(seed, Driver.P2PSIM, VmKernel.DEBIAN)
        for seed in (1, 2)
    )
    assert [x for x, y in zip(one, other, strict=True) if x != y] == ["1"]
    assert "-icount" in one
    assert not any("/" in argument for argument in one)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[IO[bytes]]:
    """A region with a folder that `mailbox.post` left in it."""
    out = tmp_path / "out"
    (out / "source").mkdir(parents=True)
    (out / "source" / "trace.log").write_bytes(b"trace\0\xff")
    (out / "result.json").write_bytes(b"{}")
    (out / "empty").touch()
    with posted(out) as region:
        yield region


def posted(out: Path) -> IO[bytes]:
    region = mailbox.made()
    with mapped(region) as memory:
        mailbox.post(memory, out)
    return region


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def collected(region: IO[bytes], folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    mailbox.collect(region, folder)
    return contents(folder)


def test_what_is_posted_is_collected(post: IO[bytes], tmp_path: Path) -> None:
    assert collected(post, tmp_path / "in") == contents(tmp_path / "out")


def test_post_is_deterministic(post: IO[bytes], tmp_path: Path) -> None:
    for path in (tmp_path / "out").rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    with posted(tmp_path / "out") as again:
        assert again.read() == post.read() != b""


def test_post_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / "big").open("wb") as file:
        file.truncate(mailbox.BUNDLE_BYTES)
    with mailbox.made() as region, mapped(region) as memory:
        with pytest.raises(TestbedError, match="64 MiB"):
            mailbox.post(memory, tmp_path / "out")
        with pytest.raises(TestbedError, match="without leaving"):
            collected(region, tmp_path / "in")


def refusal(region: IO[bytes], folder: Path) -> str:
    with pytest.raises(TestbedError) as caught:
        collected(region, folder)
    assert contents(folder) == {}
    return caught.value.what


@pytest.mark.parametrize(
    ("place", "why"),
    [(0, "without leaving"), (7, "without leaving"), (8, "damaged"),
     (15, "damaged"), (16, "damaged"), (24, "damaged"), (55, "damaged"),
     (56, "damaged"), (600, "damaged")],
)
def test_damage(post: IO[bytes], tmp_path: Path, place: int, why: str) -> None:
    post.seek(place)
    (byte,) = post.read(1)
    post.seek(place)
    post.write(bytes([byte ^ 1]))
    assert why in refusal(post, tmp_path / "in")


@pytest.mark.parametrize("length", [0, 1, 1 << 40, (1 << 64) - 1])
def test_absurd_length(post: IO[bytes], tmp_path: Path, length: int) -> None:
    post.seek(8)
    post.write(struct.pack("<Q", length))
    assert "damaged" in refusal(post, tmp_path / "in")


@pytest.mark.parametrize("size", [0, 8, 55])
def test_short_region(post: IO[bytes], tmp_path: Path, size: int) -> None:
    post.truncate(size)
    refusal(post, tmp_path / "in")


def region_with(payload: bytes) -> IO[bytes]:
    digest = hashlib.sha256(payload).digest()
    return io.BytesIO(
        struct.pack("<8sQQ32s", b"P2PMAIL2", len(payload), 0, digest) + payload
    )


@pytest.mark.parametrize("payload", [b"", b"not a tar archive" * 100])
def test_payload_that_is_no_archive(tmp_path: Path, payload: bytes) -> None:
    refusal(region_with(payload), tmp_path / "in")


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../escaped"),
        tarfile.TarInfo("/tmp/escaped"),
        tarfile.TarInfo("a/../../escaped"),
    ],
    ids=lambda member: member.name,
)
def test_path_that_leads_out(tmp_path: Path, member: tarfile.TarInfo) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(member)
    region = region_with(buffer.getvalue())
    assert member.name in refusal(region, tmp_path / "in")
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.CHRTYPE])
def test_member_that_is_no_file(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("trap")
    member.type = kind
    member.linkname = "/etc/passwd"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(member)
    region = region_with(buffer.getvalue())
    refusal(region, tmp_path / "in")
