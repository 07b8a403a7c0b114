# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge many bundles, each of them once.

The judgement on a bundle depends on the bundle and on this program's code
alone.  So it is kept in the cache, by the digest of the bundle and a hash of
the code, and a report on a folder that has grown judges only the new bundles.
Each bundle is opened nevertheless, and every byte of it is checked.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import force_setattr, replace

from vfio_p2p import resources
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.downtime import Breakdown
from vfio_p2p.errors import HarnessError
from vfio_p2p.foreign import NOT_JSON
from vfio_p2p.machine.files import used, write_whole
from vfio_p2p.parallel import each
from vfio_p2p.paths import cache_dir
from vfio_p2p.report.collect import has_only_logs
from vfio_p2p.report.run import Run, SharedInputs
from vfio_p2p.report.runs import run_of, run_of_logs
from vfio_p2p.verdict.assess import Assessment, assess
from vfio_p2p.verdict.reading import read_run

#: The folder of the cache, with one folder for each state of the code.
FOLDER = "judgements"

# Fewer bundles are judged in less time than it takes to hash the code.
_MANY = 16


@dataclass(frozen=True, slots=True)
class BundleJudgement:
    """What a run came to.

    :param run: The run, as reports show it.
    :param breakdown: Its blackout and its parts; None if the run is known by
        its logs alone.
    """

    run: Run
    breakdown: Breakdown | None

    @classmethod
    def of(
        cls, bundle: Bundle, known: Assessment | None = None
    ) -> BundleJudgement:
        """Judge a bundle.

        :param bundle: The bundle.
        :param known: The verdict on it, if there is one already.
        """
        reading = read_run(bundle)
        found = known or assess(bundle, run=reading)
        run = run_of(bundle, found, reading=reading)
        return cls(run, reading.breakdown)


def runs_in(paths: Sequence[Path]) -> Iterator[Run]:
    """Yield the run of each bundle, or of each folder with logs.

    :param paths: The bundles and folders.
    :raise BundleError: When a bundle is damaged or newer than this program.
    :raise TraceError: When a log is missing, or is none.
    """
    for judgement in judgements_in(paths):
        yield judgement.run


def judgements_in(paths: Sequence[Path]) -> Iterator[BundleJudgement]:
    """Yield the judgement on each run, as `runs_in` yields the runs.

    :param paths: The bundles and folders.
    """
    if len(paths) < _MANY:
        yield from map(_judged, paths)
        return
    texts: dict[str, str] = {}
    inputs = SharedInputs()
    encoded = zip(paths, each(_encoded, paths), strict=True)
    for path, (digest, data) in encoded:
        found = _decoded(digest, data)
        if found is None:
            # The entry is damaged, or has values that no report may have.
            found = _judged(path)
            _keep(digest, found)
        _share(found, texts)
        run = replace(found.run, bundle=str(path))
        yield BundleJudgement(inputs.of(run), found.breakdown)


def _judged(path: Path) -> BundleJudgement:
    if has_only_logs(path):
        return BundleJudgement(run_of_logs(path), None)
    return BundleJudgement.of(open_bundle(path))


def _encoded(path: Path) -> tuple[str, bytes]:
    """Find the judgement on a bundle in the cache, or make it.

    Handing these bytes to another process takes less time than handing it
    hundreds of objects.

    :return: The digest of the bundle, and the judgement, which was not
        decoded yet.
    """
    if has_only_logs(path):
        return "", msgspec.json.encode(_judged(path))
    bundle = open_bundle(path)
    with suppress(OSError):
        return bundle.digest, _path(bundle.digest).read_bytes()
    return bundle.digest, _keep(bundle.digest, BundleJudgement.of(bundle))


def _path(digest: str) -> Path:
    return _folder() / f"{digest}.json"


def _decoded(digest: str, data: bytes) -> BundleJudgement | None:
    try:
        found = msgspec.json.decode(data, type=BundleJudgement)
    except NOT_JSON:
        return None
    return found if found.run.digest == digest else None


def _keep(digest: str, judgement: BundleJudgement) -> bytes:
    """Keep a judgement, if there is room for it; return it encoded."""
    data = msgspec.json.encode(judgement)
    if digest:
        with suppress(OSError, HarnessError):
            write_whole(_path(digest), data)
    return data


def _share(value: Any, known: dict[str, str]) -> None:
    """Replace equal texts by one object.

    Decoding makes a new object of each text, and these would be half of what
    a thousand runs take in memory.

    :param value: A decoded value.
    :param known: The texts so far.
    """
    if isinstance(value, tuple):
        for each_one in value:
            _share(each_one, known)
        return
    names, put = _fields(value.__class__)
    for name in names:
        found = getattr(value, name)
        if type(found) is str:
            put(value, name, known.setdefault(found, found))
        elif found is not None and type(found) is not int:
            _share(found, known)


@cache
def _fields(
    kind: type,
) -> tuple[tuple[str, ...], Callable[[Any, str, Any], None]]:
    """Return the fields of a frozen kind of values, and what sets them."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__, force_setattr
    if dataclasses.is_dataclass(kind):
        names = tuple(x.name for x in dataclasses.fields(kind))
        return names, object.__setattr__
    return (), object.__setattr__


@cache
def _folder() -> Path:
    """Return the folder for this state of the code."""
    digest = hashlib.sha256(f"{sys.version} {msgspec.__version__}".encode())
    root = resources.resource()
    files = [*root.rglob("*.py"), *root.rglob("*.toml")]
    # Which trees there are, and what holds for them.
    files.append(resources.patches() / "series.toml")
    for path in sorted(files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root)} {content}\n".encode())
    folder = cache_dir() / FOLDER / digest.hexdigest()[:32]
    # Pruning leaves it alone while this process lives.  A cache that cannot
    # be written to, or has no locks, keeps nothing.
    with suppress(OSError, HarnessError):
        folder.mkdir(parents=True, exist_ok=True)
        used(folder)
    return folder
