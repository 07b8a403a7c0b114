# SPDX-License-Identifier: GPL-2.0-or-later
"""Write bundles, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vfio_p2p.bundle.manifest import (
    DIGEST,
    MANIFEST,
    OWN,
    RESULT,
    File,
    Inputs,
    Manifest,
    digest_file,
)
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.errors import BundleError, SkipError, UsageError
from vfio_p2p.foreign import NOT_JSON
from vfio_p2p.machine.files import (
    exclusive,
    exclusive_if_free,
    publishing,
    write_whole,
)
from vfio_p2p.paths import cache_dir
from vfio_p2p.scenario import result as result_format


@contextmanager
def claimed(
    folder: Path, waiting: Callable[[], None] | None = None
) -> Iterator[None]:
    """Keep other processes from writing bundles into a folder.

    This may wait, so do not call it from a coroutine.

    :param folder: The folder, which is made if it is missing.
    :param waiting: Called once if another process is writing into it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(_lock_of(folder), waiting):
        yield


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from writing bundles into a folder, or give up.

    :param folder: The folder, which need not exist.
    :raise SkipError: When another process writes into it.
    """
    with exclusive_if_free(_lock_of(folder)) as free:
        if not free:
            raise SkipError(
                f"{folder} is taken: another vfio-p2p writes bundles into it",
                "Wait for it, or name another folder with --out.",
            )
        yield


def _lock_of(folder: Path) -> Path:
    # The lock is not in the folder: nothing but bundles goes into a folder
    # of the user.
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    return cache_dir() / "locks" / name


def check_replaceable(path: Path) -> None:
    """Check that nothing but a bundle would be replaced.

    :param path: The folder or zip file that the bundle is going to be.
    :raise UsageError: When something else is there.
    """
    if not os.path.lexists(path):
        return
    try:
        open_bundle(path)
    except BundleError as err:
        raise UsageError(
            f"{path} is there already, and is no whole bundle",
            "Choose another name, or remove it first.",
        ) from err


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Make a bundle in a folder that gets its name when it is whole.

    :param path: The final folder of the bundle; an old bundle is replaced.
    :raise UsageError: When something else is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    check_replaceable(path)
    with publishing(path) as partial:
        yield partial


def seal(folder: Path, inputs: Inputs) -> str:
    """Write the manifest into a folder that a run has filled.

    :param folder: The folder, with ``scenario.json`` and ``result.json``.
    :param inputs: The inputs of the run.
    :return: The bundle's digest.
    :raise BundleError: When the run left no result.
    """
    try:
        result = result_format.from_json((folder / RESULT).read_bytes())
    except (OSError, *NOT_JSON) as err:
        raise BundleError(
            f"{folder}: the run left no result: {err}", "Run it again."
        ) from err
    manifest = Manifest.of(
        inputs,
        result,
        {
            str(path.relative_to(folder)): File.of(path.read_bytes())
            for path in sorted(folder.rglob("*"))
            if path.is_file() and str(path.relative_to(folder)) not in OWN
        },
    ).to_json()
    digest = hashlib.sha256(manifest).hexdigest()
    (folder / MANIFEST).write_bytes(manifest)
    (folder / DIGEST).write_bytes(digest_file(digest))
    return digest


def pack(bundle: Bundle, path: Path) -> None:
    """Write a bundle as a zip file; the same bundle gives the same bytes.

    :param bundle: The bundle.
    :param path: The zip file to write.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(bundle.files.items()):
            # Any fixed date will do; this is the earliest of the format.
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    write_whole(path, buffer.getvalue())
