# SPDX-License-Identifier: GPL-2.0-or-later
"""Read bundles, and refuse damaged ones."""

from __future__ import annotations

import errno
import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from vfio_p2p.bundle.manifest import (
    DIGEST,
    FORMAT,
    MANIFEST,
    OWN,
    SCENARIO,
    File,
    Manifest,
    digest_file,
    manifest_from_json,
)
from vfio_p2p.bundle.provenance import AttachedProvenance
from vfio_p2p.errors import BundleError
from vfio_p2p.foreign import (
    NOT_JSON,
    NOT_ZIP,
    UnfitFileError,
    format_of,
    read_file,
)
from vfio_p2p.paths import is_special
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.model import from_json as scenario_from_json

# No run leaves as much: a larger bundle is not one of ours.
_MAX_BYTES = 192 << 20


@dataclass(frozen=True, eq=False)
class Bundle:
    """A whole bundle; every byte of it has been checked.

    Bundles are compared by identity, so that results can be cached by
    bundle.

    :param path: The folder or zip file.
    :param digest: The SHA-256 of the manifest, which names everything else.
    :param manifest: The manifest.
    :param files: The contents of all files by relative path.
    """

    path: Path
    digest: str
    manifest: Manifest
    files: dict[str, bytes]

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario that was run.

        :raise BundleError: When the file is not a scenario, or newer than
            this program.
        """
        if isinstance(self.manifest.inputs.place, AttachedProvenance):
            raise BundleError(
                f"{self.path}: it is of QEMUs that ran already, and has no "
                "scenario",
                "Unpack it, and give its folder: it is judged by its logs.",
            )
        try:
            return scenario_from_json(self.files[SCENARIO])
        except (KeyError, *NOT_JSON) as err:
            raise BundleError(f"{self.path}: {SCENARIO}: {err}") from err


def is_bundle(folder: Path) -> bool:
    """Return whether a folder is a bundle, or one that has lost a part.

    :param folder: Any path.
    """
    return any((folder / name).is_file() for name in OWN)


def is_attached(folder: Path) -> bool:
    """Return whether a folder is a bundle of QEMUs that ran already.

    Such a bundle has no scenario, and is judged by its logs alone.

    :param folder: Any path.
    """
    try:
        manifest = _decode(folder, read_file(folder / MANIFEST, _MAX_BYTES))
    except (OSError, BundleError):
        return False
    return isinstance(manifest.inputs.place, AttachedProvenance)


def open_bundle(path: Path) -> Bundle:
    """Read and check a bundle.

    A path that is obviously not a bundle is not read to its end.

    :param path: The folder or zip file.
    :raise BundleError: When the bundle is not whole, or newer than this
        program.
    """
    with _opened(path) as found:
        own = {name: _own(path, found, name) for name in OWN}
        digest = hashlib.sha256(own[MANIFEST]).hexdigest()
        if own[DIGEST] != digest_file(digest):
            raise _damaged(path, MANIFEST)
        manifest = _decode(path, own[MANIFEST])
        listed = manifest.files
        if sum(file.size_bytes for file in listed.values()) > _MAX_BYTES:
            raise BundleError(f"{path}: too large for a bundle")
        there = set()
        for name in found.names():
            if name not in listed and name not in OWN:
                raise _damaged(path, name)
            there.add(name)
        files = dict(own)
        for name, file in sorted(listed.items()):
            data = None
            # A name that leads out of the bundle was not found in it.
            if name in there:
                data = found.read(name, file.size_bytes)
            if data is None or File.of(data) != file:
                raise _damaged(path, name)
            files[name] = data
    return Bundle(path, digest, manifest, files)


def _own(path: Path, found: _Files, name: str) -> bytes:
    data = found.read(name, _MAX_BYTES)
    if data is None:
        raise BundleError(
            f"{path}: not a whole bundle: no {name}",
            "Run it again: a run that did not end leaves no bundle.",
        )
    return data


def _damaged(path: Path, name: str) -> BundleError:
    return BundleError(
        f"{path}: damaged: {name} is not what was written",
        "Use another copy of the bundle, or run it again.",
    )


def _decode(path: Path, data: bytes) -> Manifest:
    try:
        version = format_of(data)
        if version > FORMAT:
            raise BundleError(
                f"{path}: bundle format {version} is newer than this "
                f"program, which knows up to {FORMAT}",
                "Use a newer vfio-p2p.",
            )
        return manifest_from_json(data)
    except NOT_JSON as err:
        raise BundleError(f"{path}: not a bundle: {err}") from err


class _Files(Protocol):
    """A folder or a zip file, whose content is not trusted."""

    def names(self) -> Iterable[str]:
        """Return the names of everything in it except folders."""

    def read(self, name: str, limit_bytes: int) -> bytes | None:
        """Read a file.

        :return: The content; None if it is not a regular file.  What is
            larger than the limit is not read whole.
        """


@dataclass(frozen=True)
class _Folder:
    path: Path

    def names(self) -> Iterator[str]:
        folders = [""]
        while folders:
            folder = folders.pop()
            with os.scandir(self.path / folder) as entries:
                for entry in entries:
                    name = f"{folder}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{name}/")
                    else:
                        yield name

    def read(self, name: str, limit_bytes: int) -> bytes | None:
        try:
            return read_file(self.path / name, limit_bytes, follow=False)
        except UnfitFileError as err:
            return b"" if err.errno == errno.EFBIG else None
        except OSError as err:
            if err.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                return None
            raise


@dataclass(frozen=True)
class _Zip:
    archive: zipfile.ZipFile

    def names(self) -> list[str]:
        # ZipInfo.is_dir() fails on an empty name in some versions of Python.
        names = [member.filename for member in self.archive.infolist()]
        if "" in names:
            raise zipfile.BadZipFile("it has a file without a name")
        return [name for name in names if not name.endswith("/")]

    def read(self, name: str, limit_bytes: int) -> bytes | None:
        try:
            member = self.archive.getinfo(name)
        except KeyError:
            return None
        with self.archive.open(member) as file:
            return file.read(limit_bytes + 1)


@contextmanager
def _opened(path: Path) -> Iterator[_Files]:
    try:
        if path.is_dir():
            yield _Folder(path)
            return
        if is_special(path):
            raise OSError("not a regular file")
        with zipfile.ZipFile(path) as archive:
            yield _Zip(archive)
    except FileNotFoundError:
        raise BundleError(f"{path}: no such bundle") from None
    except NOT_ZIP as err:
        raise BundleError(
            f"{path}: neither a bundle's folder nor a whole zip of one: "
            f"{err}"
        ) from err
