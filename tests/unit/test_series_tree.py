# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees on disk: all files change, or none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from small_series import make_small_tree, snapshot
from vfio_p2p.errors import SourceError
from vfio_p2p.series import Folder, open_folder
from vfio_p2p.series.tree import Overlay, replace_files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_small_tree(tmp_path / "qemu")


def test_kinds(root: Path) -> None:
    (root / "link").symlink_to("VERSION")
    (root / "away").symlink_to("/etc")
    (root / "run").touch(0o755)
    os.mkfifo(root / "pipe")
    tree = Folder(root)
    names = ("VERSION", "run", "link", "away", "pipe", "hw", "no", ".")
    kinds = [tree.kind_of(name) for name in names]
    assert kinds == ["f", "x", "l", "l", "l", None, None, None]
    assert tree.kind_of("VERSION/x") is None


def test_a_folder_that_is_not_qemu_is_refused(root: Path) -> None:
    assert open_folder(root).version == "10.0.13"
    (root / "VERSION").unlink()
    with pytest.raises(SourceError, match="not QEMU: it contains no VERSION"):
        open_folder(root)
    with pytest.raises(SourceError, match="not QEMU"):
        open_folder(root / "no")


def test_an_overlay_changes_nothing_below(root: Path) -> None:
    before = snapshot(root)
    (root / "run").touch(0o755)
    tree = Overlay(
        Folder(root),
        {"VERSION": None, "new": b"n", "hw/a.c": b"a", "run": b"r"},
    )
    assert tree.kind_of("VERSION") is None
    assert tree.kind_of("new") == "f"
    assert tree.kind_of("run") == "x"
    assert tree.kind_of("scripts/checkpatch.pl") == "f"
    assert (tree.read("new"), tree.read("hw/a.c")) == (b"n", b"a")
    assert tree.read("scripts/checkpatch.pl") == (
        before["scripts/checkpatch.pl"]
    )


def test_replacing(root: Path) -> None:
    (root / "hw/a.c").chmod(0o750)
    before = snapshot(root)
    replace_files(
        root, {"hw/a.c": b"a", "VERSION": None, "new/deep/x.c": b"x"}
    )
    del before["VERSION"]
    assert snapshot(root) == before | {"hw/a.c": b"a", "new/deep/x.c": b"x"}
    assert (root / "hw/a.c").stat().st_mode & 0o777 == 0o750


def test_other_names_of_a_file_keep_their_content(root: Path) -> None:
    other = root.parent / "other.c"
    os.link(root / "hw/a.c", other)
    before = other.read_bytes()
    replace_files(root, {"hw/a.c": b"a"})
    assert other.read_bytes() == before


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
@pytest.mark.parametrize("fatal", [1, 2, 3])
def test_all_or_nothing(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    fatal: int,
) -> None:
    before = snapshot(root)
    folders = {path for path in root.rglob("*") if path.is_dir()}
    calls = 0
    replace: Callable[..., None] = os.replace

    def failing(source: object, target: object) -> None:
        nonlocal calls
        calls += 1
        if calls == fatal:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(type(error)):
        replace_files(
            root,
            {
                "VERSION": b"v",
                "new/deep/x.c": b"x",
                "scripts/checkpatch.pl": None,
                "hw/a.c": b"a",
            },
        )
    assert snapshot(root) == before
    assert {path for path in root.rglob("*") if path.is_dir()} == folders
