# SPDX-License-Identifier: GPL-2.0-or-later
"""Sealed runs that were made: a run is a function, so one is enough.

Bundles, by the hash of all that determines them, in the cache.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from pathlib import Path

import msgspec

from vfio_p2p.bundle.manifest import OWN, Inputs, trace_file
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.errors import BundleError, TestbedError
from vfio_p2p.machine.files import exclusive, publishing, room_for
from vfio_p2p.paths import cache_dir


def _path(inputs: Inputs) -> Path:
    identity = msgspec.json.encode(inputs, order="sorted")
    name = hashlib.sha256(identity).hexdigest()
    return cache_dir() / "results" / name[:2] / name


def find(inputs: Inputs) -> Bundle | None:
    """What came of a run, if it was made.

    One that was damaged since was not made.

    :param inputs: All that determines it.
    """
    try:
        return open_bundle(_path(inputs))
    except BundleError:
        return None


def keep(bundle: Bundle) -> None:
    """Keep what came of a run.

    :raise NoSpaceError: When the disk is too full.
    """
    path = _path(bundle.manifest.inputs)
    size_bytes = sum(map(len, bundle.files.values()))
    # Nobody holds the lock for longer than such a copy takes.
    with (
        exclusive(cache_dir() / "results" / "lock"),
        room_for(path, 2 * size_bytes),
        publishing(path) as partial,
    ):
        shutil.copytree(bundle.path, partial, dirs_exist_ok=True)


def check_same(known: Bundle, made: Bundle) -> None:
    """See that a run that was made again is what it was.

    :param known: What it was.
    :param made: What it is now.
    :raise TestbedError: When they differ; says where that begins.
    """
    if known.manifest.files != made.manifest.files:
        raise TestbedError(
            "run again, it is not the same: "
            + _first_difference(known.files, made.files),
            f"a testbed that is not exact is a bug; compare {known.path} "
            f"and {made.path}",
        )


def _first_difference(
    known: dict[str, bytes], made: dict[str, bytes]
) -> str:
    traces = (trace_file("source"), trace_file("destination"))
    others = (known.keys() | made.keys()) - {*traces, *OWN}
    # A difference begins in a trace, or did not concern QEMU.
    for name in (*traces, *sorted(others)):
        lines = itertools.zip_longest(
            known.get(name, b"").split(b"\n"),
            made.get(name, b"").split(b"\n"),
            fillvalue=b"",
        )
        for number, (then, now) in enumerate(lines, 1):
            if then != now:
                return (
                    f"{name}:{number} was {_shown(then)}, is {_shown(now)}"
                )
    return f"{sorted(known)} were left, now {sorted(made)}"


def _shown(line: bytes) -> str:
    return repr(line.decode(errors="backslashreplace"))
