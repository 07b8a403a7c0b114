# SPDX-License-Identifier: GPL-2.0-or-later
"""The wheel and the sdist contain the whole package, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Builds, interpreters and editors leave these files behind.
STRAY = (
    "images/p2psim/build/p2psim.ko",
    "images/guest/build/sub/guest.o",
    "harness/vfio_p2p/__pycache__/paths.cpython-311.pyc",
    "harness/vfio_p2p/series/__pycache__/git.cpython-311.pyc",
)
BUILD = "import setuptools.build_meta as x; x.build_{}({!r})"


def build(kind: str, tree: Path, out: Path) -> Path:
    """Build a wheel or an sdist of a tree, and return its path."""
    out.mkdir()
    subprocess.run(
        [sys.executable, "-c", BUILD.format(kind, str(out))],
        cwd=tree,
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": ""},
    )
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with files that do not belong to it."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("harness", "images", "qemu-patches"):
        shutil.copytree(
            ROOT / name,
            tree / name,
            symlinks=True,
            ignore=shutil.ignore_patterns(
                "__pycache__", "*.egg-info", "build"
            ),
        )
    for name in STRAY:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    return tree


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the copy."""
    return build("wheel", tree, tmp_path_factory.mktemp("wheel") / "out")


def names(wheel: Path) -> set[str]:
    """The names of all files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {x for x in archive.namelist() if not x.endswith("/")}


def wanted() -> set[str]:
    """The files that belong to the package, as a wheel names them."""
    package = ROOT / "harness/vfio_p2p"
    data = package / "data"
    files = [
        path
        for top in (package, *data.iterdir())
        for path in top.rglob("*")
        if path.is_file()
        and not {"__pycache__", "build"} & set(path.parts)
        and path.name != ".gitignore"
    ]
    return {str(path.relative_to(package.parent)) for path in files}


def test_the_wheel_is_the_package(wheel: Path) -> None:
    found = names(wheel)
    package = {x for x in found if x.startswith("vfio_p2p/")}
    assert package == wanted()
    tops = {x.partition("/")[0] for x in found - package}
    assert [x.partition(".dist-info")[1:] for x in tops] == [
        (".dist-info", "")
    ]


def test_links_become_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in (
            "qemu-patches/series.toml",
            "qemu-patches/v8.1/0000-cover-letter.txt",
            "images/p2psim/main.c",
            "images/testbed/init",
        ):
            data = archive.read(f"vfio_p2p/data/{name}")
            assert data == (ROOT / name).read_bytes()


def test_the_sdist_makes_the_same_wheel(
    tree: Path, wheel: Path, tmp_path: Path
) -> None:
    stray = {Path(name).name for name in STRAY}
    sdist = build("sdist", tree, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            assert member.isfile() or member.isdir()
            assert Path(member.name).name not in stray
    # Debian 12's tarfile has no filter yet, and later ones demand it.
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", sdist, "-C", unpacked], check=True)
    (again,) = unpacked.iterdir()
    assert names(build("wheel", again, tmp_path / "wheel")) == names(wheel)
