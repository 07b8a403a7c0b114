# SPDX-License-Identifier: GPL-2.0-or-later
"""Read bundles, and none that is damaged."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from harness.bundle.manifest import (
    DIGEST,
    FORMAT,
    MANIFEST,
    OWN,
    SCENARIO,
    File,
    Manifest,
    digest_file,
)
from harness.errors import BundleError
from harness.scenario.model import Scenario
from harness.scenario.model import from_json as scenario_from_json

# No run leaves as much; a zip that says so is not ours.
_MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class Bundle:
    """A whole bundle; every byte of it has been checked.

    :param path: Its folder or zip file.
    :param digest: SHA-256 of the manifest, which names everything else.
    :param manifest: The manifest.
    :param files: Contents by relative path.
    """

    path: Path
    digest: str
    manifest: Manifest
    files: dict[str, bytes]

    @property
    def scenario(self) -> Scenario:
        """The scenario that was run.

        :raise BundleError: When it is none, or newer than this program.
        """
        try:
            return scenario_from_json(self.files[SCENARIO])
        except (KeyError, msgspec.DecodeError) as err:
            raise BundleError(f"{self.path}: {SCENARIO}: {err}") from err


def open_bundle(path: Path) -> Bundle:
    """Read and check a bundle.

    :param path: Its folder or zip file.
    :raise BundleError: When it is not whole, or newer than this program.
    """
    files = _read(path)
    for name in OWN:
        if name not in files:
            raise BundleError(
                f"{path}: not a whole bundle: no {name}",
                "a run that did not end leaves none; run it again",
            )
    digest = hashlib.sha256(files[MANIFEST]).hexdigest()
    if files[DIGEST] != digest_file(digest):
        raise _damaged(path, MANIFEST)
    manifest = _decode(path, files[MANIFEST])
    for name in sorted(manifest.files.keys() | files.keys() - set(OWN)):
        data = files.get(name)
        if data is None or manifest.files.get(name) != File.of(data):
            raise _damaged(path, name)
    return Bundle(path, digest, manifest, files)


def _damaged(path: Path, name: str) -> BundleError:
    return BundleError(
        f"{path}: damaged: {name} is not what was written",
        "use another copy, or run it again",
    )


def _decode(path: Path, data: bytes) -> Manifest:
    class Header(msgspec.Struct):
        format: int

    try:
        version = msgspec.json.decode(data, type=Header).format
        if version > FORMAT:
            raise BundleError(
                f"{path}: bundle format {version} is newer than this "
                f"program, which knows up to {FORMAT}",
                "use a newer vfio-p2p",
            )
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as err:
        raise BundleError(f"{path}: not a bundle: {err}") from err


def _read(path: Path) -> dict[str, bytes]:
    if path.is_dir():
        return {
            str(file.relative_to(path)): file.read_bytes()
            for file in sorted(path.rglob("*"))
            if file.is_file()
        }
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > _MAX_BYTES:
                raise BundleError(f"{path}: too large for a bundle")
            return {
                member.filename: archive.read(member)
                for member in members
                if not member.is_dir()
            }
    except FileNotFoundError:
        raise BundleError(f"{path}: no such bundle") from None
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError,
            NotImplementedError, RuntimeError, zlib.error) as err:
        raise BundleError(
            f"{path}: neither a bundle's folder nor a whole zip of one: "
            f"{err}"
        ) from err
