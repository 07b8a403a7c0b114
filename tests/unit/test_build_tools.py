# SPDX-License-Identifier: GPL-2.0-or-later
"""The tools of a build are looked for before it is started."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from vfio_p2p.errors import MissingToolError
from vfio_p2p.qemu.recipe import BuildRecipe, check_tools

Replace = Callable[[str, str], None]


@pytest.fixture
def replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replace:
    """Return a function that replaces a program by a shell script."""

    def put(name: str, script: str) -> None:
        program = tmp_path / "bin" / name
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return put


def missing(version: str = "10.0.13") -> tuple[str, str]:
    """Return the tool that is missing, and its package."""
    with pytest.raises(MissingToolError) as caught:
        check_tools(BuildRecipe.load(), version)
    return caught.value.tool, caught.value.package


@pytest.mark.parametrize(
    ("hidden", "package"),
    [
        ("cc", "gcc"),
        ("ninja", "ninja-build"),
        ("pkg-config", "pkg-config"),
        ("strip", "binutils"),
    ],
)
def test_a_program_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hidden: str,
    package: str,
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in "cc", "ld", "strip", "ninja", "pkg-config", "git":
        if name != hidden:
            (folder / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(folder))
    assert missing() == (hidden, package)


def test_a_library_is_missing(replace: Replace) -> None:
    replace("pkg-config", 'case "$2" in glib*) exit 1;; esac')
    assert missing()[1] == "libglib2.0-dev"


def test_additional_libraries_of_older_versions() -> None:
    recipe = BuildRecipe.load()
    besides = recipe.libraries | {"pixman-1 >= 0.21.8": "libpixman-1-dev"}
    assert recipe.libraries_for("8.1.0") == besides
    assert recipe.libraries_for("8.2.0") == recipe.libraries
    assert recipe.libraries_for("10.0.13") == recipe.libraries


def test_a_library_of_older_versions_is_missing(replace: Replace) -> None:
    replace("pkg-config", 'case "$2" in pixman*) exit 1;; esac')
    check_tools(BuildRecipe.load(), "10.0.13")
    assert missing("8.1.99")[1] == "libpixman-1-dev"


def test_a_header_is_missing(replace: Replace) -> None:
    replace("cc", "exit 1")
    assert missing() == ("header libfdt.h", "libfdt-dev")


def test_a_full_disk_is_no_missing_header(replace: Replace) -> None:
    replace("cc", "echo 'as: /tmp/x.s: No space left on device' >&2; exit 1")
    with pytest.raises(OSError, match="No space") as caught:
        check_tools(BuildRecipe.load(), "10.0.13")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename


def test_a_compiler_without_a_version(replace: Replace) -> None:
    cc = shutil.which("cc")
    replace("cc", f'[ "$1" != --version ] && exec {cc} "$@"')
    assert missing() == ("a cc that works", "gcc")
