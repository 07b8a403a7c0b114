# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lab's VMs are made of, with small trees in place of packages."""

from __future__ import annotations

import lzma
from pathlib import Path, PurePosixPath

import msgspec
import pytest
from vfio_p2p import resources
from vfio_p2p.errors import TestbedError
from vfio_p2p.lab.image import lab_image_key
from vfio_p2p.lab.modules import closure, lab_sources
from vfio_p2p.lab.recipe import (
    lab_folder,
    read_lab_recipe,
    wanted_packages,
)
from vfio_p2p.lab.system import merged, wanted_files
from vfio_p2p.places.sealed.compiler import Compiler
from vfio_p2p.places.sealed.kit import Kit


def test_the_recipe_is_read() -> None:
    recipe = read_lab_recipe()
    assert "openssh-server" in recipe.packages
    assert "igb" in recipe.modules
    # An older devlink cannot make a function migratable.
    assert "iproute2/bookworm-backports" in recipe.packages


def test_no_package_is_wanted_and_left_out() -> None:
    recipe = read_lab_recipe()
    names = {name.partition("/")[0]: "1" for name in recipe.packages}
    assert wanted_packages(names, recipe) == names


def test_unwanted_packages_are_left_out() -> None:
    recipe = msgspec.structs.replace(read_lab_recipe(), without=("perl*",))
    solved = {"perl-base": "5", "perl": "5", "bash": "5"}
    assert wanted_packages(solved, recipe) == {"bash": "5"}


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("bin/ls", "usr/bin/ls"),
        ("sbin/ip", "usr/sbin/ip"),
        ("lib/x86_64-linux-gnu/libc.so.6",
         "usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
        ("usr/bin/env", "usr/bin/env"),
        ("etc/lib/x", "etc/lib/x"),
        ("libexec/x", "libexec/x"),
    ],
)
def test_merged(name: str, where: str) -> None:
    assert merged(PurePosixPath(name)) == PurePosixPath(where)


def test_wanted_files(tmp_path: Path) -> None:
    for name in ("bin/ls", "usr/share/doc/x/y", "usr/share/z", "var/a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    # Neither is followed: the first leads out, the second into a circle.
    (tmp_path / "usr" / "out").symlink_to("/etc")
    (tmp_path / "usr" / "up").symlink_to("..")
    (tmp_path / "usr" / "broken").symlink_to("nothing")
    found = wanted_files(tmp_path, ("usr/bin/l*", "usr/share/doc", "var"))
    assert sorted(str(x.relative_to(tmp_path)) for x in found) == [
        "usr/broken", "usr/out", "usr/share/z", "usr/up",
    ]


def write_module(tree: Path, name: str, depends: str) -> None:
    path = tree / "kernel" / f"{name}.ko.xz"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"\x7fELF\0name=x\0depends=" + depends.encode() + b"\0vermagic\0"
    path.write_bytes(lzma.compress(data))


def test_modules_bring_what_they_depend_on(tmp_path: Path) -> None:
    write_module(tmp_path, "vfio-pci", "vfio-pci-core")
    # Names in files have dashes, those in modules have either.
    write_module(tmp_path, "vfio-pci-core", "vfio,irqbypass")
    write_module(tmp_path, "vfio", "")
    write_module(tmp_path, "irqbypass", "")
    write_module(tmp_path, "other", "")
    found = dict(closure(tmp_path, ["vfio_pci", "vfio"]))
    assert sorted(x.name.removesuffix(".ko.xz") for x in found) == [
        "irqbypass", "vfio", "vfio-pci", "vfio-pci-core",
    ]
    assert all(data.startswith(b"\x7fELF") for data in found.values())


def test_a_module_is_missing(tmp_path: Path) -> None:
    write_module(tmp_path, "igb", "dca")
    with pytest.raises(TestbedError, match="no module dca") as caught:
        list(closure(tmp_path, ["igb"]))
    assert "lab.toml" in caught.value.hint


def test_sources_of_own_modules() -> None:
    found = lab_sources(["mtty"])
    assert "mtty/Kbuild" in found
    assert "p2psim/migration.c" in found
    assert "p2psim/README.md" not in found
    with pytest.raises(TestbedError, match="module none"):
        lab_sources(["none"])


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small sources of the lab's images, to be changed."""
    for name in ("lab/init", "lab/etc/passwd", "p2psim/main.c",
                 "labpf/Kbuild", "p2pvf/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(resources, "images", lambda: tmp_path)
    return tmp_path


RECIPE = read_lab_recipe()


def key(version: str = "1", compiler: str = "gcc 12") -> str:
    kit = Kit(Path("/kit"), {"bash": version})
    recipe = msgspec.structs.replace(RECIPE, own_modules=("labpf", "p2pvf"))
    return lab_image_key(recipe, kit, Compiler({}, compiler))


@pytest.mark.parametrize(
    "name", ["lab/init", "lab/etc/passwd", "p2psim/main.c", "labpf/Kbuild"]
)
def test_every_source_matters(images: Path, name: str) -> None:
    assert lab_folder() == images / "lab"
    before = key()
    (images / name).write_text("changed")
    assert key() != before


def test_what_else_matters(images: Path) -> None:
    assert len({key(), key("2"), key(compiler="gcc 13")}) == 3
    before = key()
    (images / "p2pvf" / "README.md").write_text("changed")
    assert key() == before
