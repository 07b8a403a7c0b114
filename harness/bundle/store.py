# SPDX-License-Identifier: GPL-2.0-or-later
"""Write bundles whole or not at all, and read none that is damaged."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from harness.bundle.manifest import FORMAT, File, Inputs, Manifest
from harness.errors import BundleError
from harness.host.files import publishing
from harness.scenario import result as result_format
from harness.scenario.model import Scenario
from harness.scenario.model import from_json as scenario_from_json

MANIFEST = "manifest.json"
DIGEST = "digest"
SCENARIO = "scenario.json"
RESULT = "result.json"

_OWN = (MANIFEST, DIGEST)
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
        """The scenario that was run."""
        return scenario_from_json(self.files[SCENARIO])


def seal(folder: Path, inputs: Inputs) -> str:
    """Write the manifest of a folder that a run has filled.

    :param folder: Has ``scenario.json`` and ``result.json``.
    :param inputs: What the run was made from.
    :return: The bundle's digest.
    :raise BundleError: When the run left no result.
    """
    try:
        result = result_format.from_json((folder / RESULT).read_bytes())
    except (OSError, msgspec.ValidationError, msgspec.DecodeError) as err:
        raise BundleError(f"{folder}: the run left no result: {err}") from err
    manifest = Manifest(
        inputs=inputs,
        result=result,
        files={
            str(path.relative_to(folder)): _file(path.read_bytes())
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in _OWN
        },
    ).to_json()
    digest = hashlib.sha256(manifest).hexdigest()
    (folder / MANIFEST).write_bytes(manifest)
    (folder / DIGEST).write_text(f"{digest}\n")
    return digest


def _file(data: bytes) -> File:
    return File(
        sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)
    )


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Make a bundle in a folder that gets its name when it is whole.

    :param path: The bundle's folder in the end; an old one is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with publishing(path) as partial:
        yield partial


def pack(bundle: Bundle, path: Path) -> None:
    """Write a bundle as a zip file; the same bundle gives the same bytes.

    :param path: The zip file to write.
    """
    partial = path.with_name(f".{path.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(bundle.files.items()):
            # The epoch of the format, for want of any other fixed date.
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    partial.rename(path)


def open_bundle(path: Path) -> Bundle:
    """Read and check a bundle.

    :param path: Its folder or zip file.
    :raise BundleError: When it is not whole, or newer than this program.
    """
    files = _read(path)
    for name in _OWN:
        if name not in files:
            raise BundleError(
                f"{path}: not a whole bundle: no {name}",
                "a run that did not end leaves none; run it again",
            )
    digest = hashlib.sha256(files[MANIFEST]).hexdigest()
    try:
        stated = files[DIGEST].decode("ascii").strip()
    except UnicodeDecodeError:
        stated = "(binary)"
    if stated != digest:
        raise _damaged(path, MANIFEST)
    manifest = _decode(path, files[MANIFEST])
    for name in sorted(manifest.files.keys() | files.keys() - set(_OWN)):
        data = files.get(name)
        if data is None or manifest.files.get(name) != _file(data):
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
    except (msgspec.ValidationError, msgspec.DecodeError) as err:
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
                member.filename: archive.read(member) for member in members
            }
    except FileNotFoundError:
        raise BundleError(f"{path}: no such bundle") from None
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError,
            NotImplementedError, RuntimeError, zlib.error) as err:
        raise BundleError(
            f"{path}: neither a bundle's folder nor a whole zip of one: "
            f"{err}"
        ) from err
