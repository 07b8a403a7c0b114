# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees on disk: read them, and replace all of some files or none."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vfio_p2p.errors import SourceError
from vfio_p2p.foreign import read_file
from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.series.apply import Changes, Tree

_MAX_VERSION_BYTES = 1 << 20

@dataclass(frozen=True)
class Folder:
    """A folder, a git work tree or not; files are read when asked for.

    :param root: The folder.
    """

    root: Path

    def kind_of(self, path: str) -> str | None:
        """See `vfio_p2p.series.Tree.kind_of`."""
        try:
            mode = (self.root / path).lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISDIR(mode):
            return None
        if stat.S_ISREG(mode):
            return "x" if mode & stat.S_IXUSR else "f"
        # A pipe must not be opened, and a link must not be followed.
        return "l"

    def read(self, path: str) -> bytes:
        """See `vfio_p2p.series.Tree.read`."""
        return (self.root / path).read_bytes()

    @property
    def version(self) -> str:
        """The version in QEMU's file ``VERSION``."""
        return read_version(self.root)


def read_version(root: Path) -> str:
    """Return what a QEMU tree says that its version is.

    :param root: The tree's folder.
    :raise SourceError: When the file ``VERSION`` cannot be read.
    """
    path = root / "VERSION"
    try:
        text = read_file(path, _MAX_VERSION_BYTES)
    except OSError as err:
        raise SourceError(
            f"{path}: {err.strerror}",
            "Give a git checkout of QEMU, or an unpacked release.",
        ) from err
    return text.decode(errors="replace").strip()


def open_folder(path: Path) -> Folder:
    """Open a QEMU tree.

    :raise SourceError: When the folder is not QEMU.
    """
    root = path.resolve()
    for name in ("VERSION", "hw/vfio/trace-events"):
        if not (root / name).is_file():
            raise SourceError(
                f"{path} is not QEMU: it contains no {name}",
                "Give a git checkout of QEMU, or an unpacked release.",
            )
    return Folder(root)


@dataclass(frozen=True)
class Overlay:
    """A tree with changes that exist only in memory.

    :param below: The tree.
    :param changes: The new contents, as `apply_patches` returns them.
    """

    below: Tree
    changes: Changes = field(repr=False)

    def kind_of(self, path: str) -> str | None:
        """See `vfio_p2p.series.Tree.kind_of`."""
        if path not in self.changes:
            return self.below.kind_of(path)
        if self.changes[path] is None:
            return None
        return self.below.kind_of(path) or "f"

    def read(self, path: str) -> bytes:
        """See `vfio_p2p.series.Tree.read`."""
        data = self.changes.get(path)
        return self.below.read(path) if data is None else data


def replace_files(root: Path, changes: Changes) -> None:
    """Change files of a tree, all of them or none.

    All new files are written before any file is replaced, and copies of the
    old files are kept until the end.  Only if the process is killed can
    some files have changed and others not; the old files are then in
    ``.vfio-p2p-*`` in the tree.

    :param root: The tree.
    :param changes: The new contents, as `apply_patches` returns them.
    :raise OSError: When a file cannot be replaced.  All files are then as
                    they were.
    """
    with (
        temporary_folder(root) as name,
        ExitStack() as undo,
    ):
        for number, (path, data) in enumerate(changes.items()):
            if data is not None:
                new = Path(name, f"{number}.new")
                new.write_bytes(data)
                if (root / path).exists():
                    new.chmod(stat.S_IMODE((root / path).stat().st_mode))
        for number, (path, data) in enumerate(changes.items()):
            place = root / path
            old = Path(name, f"{number}.old")
            if place.exists():
                # Copied, not moved, so that the file exists at any time.
                shutil.copy2(place, old)
                undo.callback(os.replace, old, place)
            else:
                _make_parents(root, path, undo)
                undo.callback(place.unlink, missing_ok=True)
            if data is None:
                place.unlink(missing_ok=True)
            else:
                os.replace(Path(name, f"{number}.new"), place)
        undo.pop_all()


def _make_parents(root: Path, path: str, undo: ExitStack) -> None:
    for parent in reversed(PurePosixPath(path).parents):
        if not (root / parent).exists():
            (root / parent).mkdir()
            undo.callback((root / parent).rmdir)
