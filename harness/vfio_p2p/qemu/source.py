# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU sources from Debian, from a tarball, or from a folder."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import msgspec

from vfio_p2p.errors import SourceError
from vfio_p2p.foreign import UnfitFileError, read_file, read_listing
from vfio_p2p.machine.files import exclusive, publishing, room_for, used
from vfio_p2p.paths import cache_dir
from vfio_p2p.progress import Progress, silent
from vfio_p2p.qemu.debian import debian_tarball
from vfio_p2p.qemu.tarball import EXPECTED, unpack
from vfio_p2p.series.git import Revision, revision_of, run_git
from vfio_p2p.series.tree import read_version

LISTING = "files.json"

# The size of a QEMU tree without the firmware sources, with some reserve.
UNPACKED_BYTES = 512 << 20

# The largest of a release is firmware of a few MiB.
_MAX_FILE_BYTES = 256 << 20

# Two thirds of a release are sources of firmware, which a build without
# blobs does not read.
_UNUSED = re.compile(r"roms/[^/]+/")

# The files by which a folder is recognised as QEMU.
_LANDMARKS = ("VERSION", "configure", "meson.build", "hw/vfio/trace-events")


@dataclass(frozen=True)
class Source:
    """A QEMU tree, identified by its content.

    :param key: Equal for all sources of the same content.
    :param kind: ``debian``, ``tarball`` or ``folder``.
    :param version: The version in QEMU's file ``VERSION``.
    :param origin: A description of where the source is from.
    :param tree: The folder that holds the files.
    :param files: The identity of each file by its path: "f", "x" or "l"
                  (plain file, program, link), then the SHA-256 of the
                  content.
    :param revision: The commit, if the tree is a git checkout.
    """

    key: str
    kind: str
    version: str
    origin: str
    tree: Path
    files: Mapping[str, str] = field(repr=False)
    revision: Revision | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise SourceError(
                f"{self.origin}: not a QEMU version: {self.version[:40]!r}",
                EXPECTED,
            )

    @property
    def lineage(self) -> str:
        """A name that this source shares with its later states.

        A developer's folder changes from build to build, and only the
        changes shall be compiled. A tarball never changes.
        """
        return str(self.tree) if self.kind == "folder" else self.key

    def kind_of(self, path: str) -> str | None:
        """See `vfio_p2p.series.Tree.kind_of`."""
        return self.files[path][0] if path in self.files else None

    def read(self, path: str) -> bytes:
        """Return the content of a file, or the target of a link.

        :raise SourceError: When the file has changed since the source was
                            found.
        """
        try:
            kind, data = _read(self.tree / path)
        except OSError as error:
            raise SourceError(
                f"{self.tree / path}: {error}",
                "Run the command again when nothing changes the tree.",
            ) from error
        if identity(kind, data) != self.files[path]:
            raise SourceError(
                f"{self.tree / path} changed while it was read",
                "Run the command again when nothing changes the tree.",
            )
        return data


def find_source(
    where: Path | None,
    qemu: str,
    progress: Progress = silent,
    *,
    refresh: bool = False,
) -> Source:
    """Find the source that a user asks for.

    :param where: A folder or a tarball; None means Debian's tarball.
    :param qemu: The version of Debian's tarball, as in `Base.qemu`.
    :param refresh: Ask Debian for a newer tarball even if one is cached.
    :raise SourceError: When the source is not QEMU, or cannot be read.
    :raise HostError: When Debian's tarball cannot be downloaded.
    """
    if where is None:
        tarball = debian_tarball(qemu, progress, refresh=refresh)
        return _from_tarball(tarball, "debian", progress)
    if where.is_dir():
        return _from_folder(where.resolve(), progress)
    if where.is_file():
        return _from_tarball(where.resolve(), "tarball", progress)
    what = "no such file or folder"
    if where.exists():
        what = "neither a regular file nor a folder"
    raise SourceError(f"{where}: {what}", EXPECTED)


def _from_folder(folder: Path, progress: Progress) -> Source:
    _check_landmarks(folder, str(folder))
    progress(0, 0, f"reading {folder}")
    if (folder / ".git").exists():
        names = _git_files(folder)
    else:
        names = list(_walk(folder, PurePosixPath()))
    for wrap in folder.glob("subprojects/*.wrap"):
        start = PurePosixPath("subprojects", wrap.stem)
        if not (folder / start).resolve().is_relative_to(folder):
            raise SourceError(
                f"{folder}/{start} is a link out of the tree",
                "Put the subproject itself there.",
            )
        names += _walk(folder, start)
    source = _source(
        "folder", str(folder), folder, _identify(folder, names)
    )
    return replace(source, revision=revision_of(folder))


def _from_tarball(path: Path, kind: str, progress: Progress) -> Source:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    home = cache_dir() / "sources" / digest[:32]
    listing = home / LISTING
    with exclusive(home.with_name(f"{home.name}.lock")):
        files = read_listing(listing) if used(home) else None
        if files is None:
            progress(0, 0, f"unpacking {path.name}")
            with (
                room_for(home, UNPACKED_BYTES),
                publishing(home) as partial,
            ):
                tree = partial / "tree"
                tree.mkdir()
                unpack(path, tree)
                _check_landmarks(tree, str(path))
                files = _identify(tree, _walk(tree, PurePosixPath()))
                (partial / LISTING).write_bytes(
                    msgspec.json.encode(files)
                )
            used(home)
    return _source(kind, str(path), home / "tree", files)


def _source(
    kind: str, origin: str, tree: Path, files: Mapping[str, str]
) -> Source:
    text = "".join(f"{files[x]} {x}\0" for x in sorted(files))
    key = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    return Source(key, kind, read_version(tree), origin, tree, files)


def _check_landmarks(folder: Path, origin: str) -> None:
    for name in _LANDMARKS:
        if not (folder / name).is_file():
            raise SourceError(
                f"{origin} is not QEMU: it has no {name}", EXPECTED
            )
    # If they are missing, configure tries to download them.
    if not (folder / "subprojects/keycodemapdb/README").is_file():
        raise SourceError(
            f"{origin}: the subprojects of QEMU are missing",
            "Run 'meson subprojects download keycodemapdb "
            "berkeley-softfloat-3 berkeley-testfloat-3' in it.",
        )


def _git_files(folder: Path) -> list[str]:
    """Return the files of a checkout, with local changes and new files."""
    result = run_git(
        folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard"
    )
    if result.returncode:
        message = result.stderr.decode(errors="replace").strip()
        raise SourceError(f"{folder}: {message.splitlines()[0]}", EXPECTED)
    builds = {x.parent for x in folder.glob("*/build.ninja")}
    return [
        name
        for name in map(os.fsdecode, result.stdout.split(b"\0"))
        if name and folder / name.partition("/")[0] not in builds
    ]


def _walk(root: Path, start: PurePosixPath) -> Iterator[str]:
    """Yield the files below a folder, without repositories and builds."""
    if not (root / start).is_dir() or (root / start / "build.ninja").exists():
        return
    for entry in os.scandir(root / start):
        if entry.is_dir(follow_symlinks=False):
            if entry.name != ".git":
                yield from _walk(root, start / entry.name)
        else:
            yield str(start / entry.name)


def _identify(root: Path, names: Iterable[str]) -> dict[str, str]:
    files = {}
    for name in names:
        # git also lists submodules, and files deleted from the work tree.
        path = root / name
        if _UNUSED.match(name) or not (path.is_symlink() or path.is_file()):
            continue
        files[name] = identity(*_read(path))
    return files


def _read(path: Path) -> tuple[str, bytes]:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "l", os.fsencode(os.readlink(path))
    try:
        data = read_file(path, _MAX_FILE_BYTES)
    except UnfitFileError as err:
        raise SourceError(
            f"{path}: {err.strerror}",
            "Take it out of the tree: all of a tree that git does not ignore "
            "is built.",
        ) from err
    return "x" if mode & stat.S_IXUSR else "f", data


def identity(kind: str, data: bytes) -> str:
    """Return the entry of `Source.files` for a file.

    :param kind: "f", "x" or "l".
    :param data: The content of the file, or the target of the link.
    """
    return kind + hashlib.sha256(data).hexdigest()
