# SPDX-License-Identifier: GPL-2.0-or-later
"""A few files are taken from a package; here it is a small one."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import pytest
from vfio_p2p.errors import HostError, MissingToolError, TestbedError
from vfio_p2p.places.sealed.kit import ImageRecipe, Kit, Mtty, read_recipe
from vfio_p2p.places.sealed.linux import linux_files
from vfio_p2p.progress import silent
from vfio_p2p.qemu.apt import AptRoot

pytestmark = pytest.mark.skipif(
    shutil.which("dpkg-deb") is None, reason="no dpkg on this machine"
)

PACKAGE = "linux-source-6.12"
VERSION = "6.12.95-1~bpo12+1"
FILES = ("samples/vfio-mdev/mtty.c", "drivers/vfio/mdev/mdev_core.c")


def package(folder: Path, files: Iterable[str]) -> Path:
    """Make a package that contains a tarball of Linux."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    # dpkg-deb refuses the mode that a strict umask would give.
    (tree / "DEBIAN").chmod(0o755)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {PACKAGE}\nVersion: {VERSION}\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: Linux\n"
    )
    (tree / "usr" / "src").mkdir(parents=True)
    tarball = tree / "usr" / "src" / f"{PACKAGE}.tar.xz"
    with tarfile.open(tarball, "w:xz") as tar:
        for name in (*files, "COPYING"):
            data = f"this is {name}\n".encode()
            member = tarfile.TarInfo(f"{PACKAGE}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path = folder / "linux.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "-Zxz", str(tree), str(path)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return path


class Archive:
    """An archive with one package, which counts its downloads."""

    def __init__(self, path: Path, version: str = VERSION) -> None:
        self.path = path
        self.version = version
        self.downloads = 0

    def resolve_packages(self, patterns: Iterable[str]) -> dict[str, str]:
        """Return the version, as `AptRoot` does."""
        assert list(patterns) == [PACKAGE]
        return {PACKAGE: self.version}

    def download_packages(self, packages: Mapping[str, str]) -> list[Path]:
        """Return the file, as `AptRoot` does."""
        assert packages == {PACKAGE: VERSION}
        self.downloads += 1
        return [self.path]


@pytest.fixture
def recipe() -> ImageRecipe:
    """The recipe, with two files of Linux."""
    return msgspec.structs.replace(
        read_recipe(), mtty=Mtty(FILES)
    )


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """A kit with a kernel; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = "linux-image-6.12.95+deb12-cloud-amd64"
    return Kit(tmp_path / "kit", {name: VERSION})


def use(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """Make this the machine's archive."""
    monkeypatch.setattr(AptRoot, "open", lambda suites: archive)
    return archive


def test_files_are_taken_once(
    recipe: ImageRecipe,
    kit: Kit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = use(Archive(package(tmp_path, FILES)), monkeypatch)
    found = linux_files(recipe, kit, silent)
    assert [path.name for path in found] == ["mdev_core.c", "mtty.c"]
    assert found[1].read_text() == f"this is {FILES[0]}\n"
    assert linux_files(recipe, kit, silent) == found
    assert archive.downloads == 1


def test_another_list_is_another_folder(
    recipe: ImageRecipe,
    kit: Kit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(Archive(package(tmp_path, FILES)), monkeypatch)
    linux_files(recipe, kit, silent)
    fewer = msgspec.structs.replace(recipe.mtty, files=FILES[:1])
    one = msgspec.structs.replace(recipe, mtty=fewer)
    (path,) = linux_files(one, kit, silent)
    assert path.name == "mtty.c"


def test_the_archive_has_gone_on(
    recipe: ImageRecipe,
    kit: Kit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newer = "6.12.99-1~bpo12+1"
    archive = use(Archive(tmp_path / "none", newer), monkeypatch)
    with pytest.raises(HostError) as caught:
        linux_files(recipe, kit, silent)
    assert newer in caught.value.what
    assert VERSION in caught.value.what
    assert str(kit.path) in caught.value.hint
    assert not archive.downloads


def test_a_file_that_is_not_there(
    recipe: ImageRecipe,
    kit: Kit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(Archive(package(tmp_path, FILES[:1])), monkeypatch)
    with pytest.raises(TestbedError, match=f"has no {FILES[1]}$"):
        linux_files(recipe, kit, silent)
    (lock,) = (tmp_path / "cache").rglob("linux/*")
    assert lock.suffix == ".lock"


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_package_that_is_cut(
    share: float,
    recipe: ImageRecipe,
    kit: Kit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = package(tmp_path, FILES)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    use(Archive(path), monkeypatch)
    with pytest.raises(HostError, match="is damaged"):
        linux_files(recipe, kit, silent)


def test_no_dpkg(
    recipe: ImageRecipe,
    kit: Kit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = package(tmp_path, FILES)
    use(Archive(path), monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError):
        linux_files(recipe, kit, silent)
