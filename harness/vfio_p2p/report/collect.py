# SPDX-License-Identifier: GPL-2.0-or-later
"""From bundles, logs, folders of them and older reports to one document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

from msgspec.structs import replace

from vfio_p2p.bundle.read import is_attached, is_bundle, open_bundle
from vfio_p2p.downtime.logs import is_host_run, is_log
from vfio_p2p.errors import BundleError, InputError
from vfio_p2p.foreign import UnfitFileError, read_file
from vfio_p2p.oracle.verdict import worst
from vfio_p2p.parallel import each
from vfio_p2p.report.document import Document, common, from_json
from vfio_p2p.report.run import Run, SharedInputs
from vfio_p2p.report.runs import run_of, run_of_logs
from vfio_p2p.report.shard import read_listing

Read = Callable[[Sequence[Path]], Iterable[Run]]

_MAX_BYTES = 256 << 20
_EXPECTED = "Give a bundle, a folder of bundles or logs, or a report.json."


def each_run(paths: Sequence[Path]) -> Iterator[Run]:
    """Yield the run of each bundle, or of each folder with logs.

    :param paths: The bundles and folders.
    :raise BundleError: When a bundle is damaged or newer than this program.
    :raise TraceError: When a log is missing, or is none.
    """
    shared = SharedInputs()
    for run in each(_run, paths):
        yield shared.of(run)


def collect(inputs: Sequence[Path], read: Read = each_run) -> Document:
    """Read everything that is to be reported on.

    Two inputs are two sets of runs, to be compared, unless they are shards of
    one set.  Otherwise the runs of each QEMU are a set.

    :param inputs: Bundles (folders or zip files), folders with the logs of
        real hosts, folders of either, and reports (JSON).
    :param read: Does what `each_run` does.
    :raise BundleError: When a bundle is damaged or newer than this program.
    :raise TraceError: When a log is missing, or is none.
    :raise InputError: When there is nothing to report on.
    """
    found = [_read(path, read) for path in inputs]
    if len(found) == 2 and not _of_one_set(inputs):
        names = _two_names(found, inputs)
        found = [
            _renamed(document, name)
            for name, document in zip(names, found, strict=True)
        ]
    if len(found) == 1:
        return found[0]
    return _merged(found)


def _of_one_set(folders: Sequence[Path]) -> bool:
    """Return whether folders are different shards of as many."""
    try:
        found = [read_listing(folder) for folder in folders]
    except InputError:
        return False
    return (
        len({shard.count for shard in found}) == 1
        and len({shard.number for shard in found}) == len(found)
    )


def _renamed(document: Document, name: str) -> Document:
    # The sets of a report that has several keep their names.
    if document.trees or document.versions:
        return document
    runs = tuple(replace(run, tree=name) for run in document.runs)
    return replace(document, runs=runs)


def _merged(found: Sequence[Document]) -> Document:
    # A rule that is broken in one report is proven for all of them.
    unproven = [
        rule
        for rule in (found[0].unproven if found else ())
        if all(rule in one.unproven for one in found)
    ]
    comparisons = [one.comparison for one in found if one.comparison]
    versions = [one.versions for one in found if one.versions]
    changes = [one.change for one in found if one.change]
    return Document.of(
        _named_again([run for one in found for run in one.runs]),
        qemu=common(one.qemu for one in found),
        base=common(one.base for one in found),
        origin=common(one.origin for one in found),
        verdict=worst(one.verdict for one in found),
        unproven=unproven,
        trees=[x for one in found for x in one.trees],
        patches=[x for one in found for x in one.patches],
        control={k: v for one in found for k, v in one.control.items()},
        mutants=[x for one in found for x in one.mutants],
        followups=[x for one in found for x in one.followups],
        versions=versions[0] if len(versions) == 1 else None,
        comparison=comparisons[0] if len(comparisons) == 1 else None,
        change=changes[0] if len(changes) == 1 else None,
    )


def _named_again(runs: Iterable[Run]) -> list[Run]:
    """Clear the names of trees that are only the names of variants.

    The trees get new names, since among all inputs one variant may have
    several builds.
    """
    return [
        replace(run, tree="") if run.tree == run.variant else run
        for run in runs
    ]


def _read(path: Path, read: Read) -> Document:
    if is_run(path) or path.is_dir():
        return _of_runs([*read(expanded(path))])
    if is_log(path):
        return _of_runs([run_of_logs(path)])
    return _read_report(path)


def is_run(path: Path) -> bool:
    """Return whether a path is a bundle, or has the logs of a run.

    :param path: A file or folder.
    """
    return (
        path.suffix == ".zip" and not path.is_dir()
    ) or is_bundle(path) or is_host_run(path)


def has_only_logs(path: Path) -> bool:
    """Return whether a run is known by its logs alone.

    :param path: A file or folder.
    """
    if is_bundle(path):
        return is_attached(path)
    return is_log(path) or is_host_run(path)


def runs_in(folder: Path) -> list[Path]:
    """List the bundles in a folder, and the folders with logs of a run.

    :param folder: The folder.
    """
    return sorted(
        child
        for child in folder.iterdir()
        # A name with a dot is that of a run that is still being written.
        if not child.name.startswith(".") and is_run(child)
    )


def expanded(path: Path) -> list[Path]:
    """Return the runs that a user means by a path.

    :param path: A run, or a folder of runs.
    :raise InputError: When the folder has none.
    """
    if is_run(path) or not path.is_dir():
        return [path]
    if found := runs_in(path):
        return found
    raise InputError(
        f"{path}: no bundles in it, and no logs of runs", _EXPECTED
    )


def _run(path: Path) -> Run:
    if has_only_logs(path):
        return run_of_logs(path)
    return run_of(open_bundle(path))


def _of_runs(runs: list[Run]) -> Document:
    return Document.of(runs, qemu=common(run.qemu for run in runs))


def _read_report(path: Path) -> Document:
    try:
        data = read_file(path, _MAX_BYTES)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file or folder", _EXPECTED
        ) from None
    except UnfitFileError as err:
        raise InputError(f"{path}: {err.strerror}", _EXPECTED) from None
    document = from_json(data, str(path))
    # A report may name a bundle many times.
    find = cache(partial(_from_bundle, path.parent))
    return replace(
        document,
        runs=tuple(
            run
            if run.inputs is not None or not run.bundle
            else find(run.bundle, run.digest, run.tree) or run
            for run in document.runs
        ),
    )


def _from_bundle(
    folder: Path, name: str, digest: str, tree: str
) -> Run | None:
    """Make a run of an older report from its bundle, if that is there.

    :param folder: Where the report is, which may have been moved together
        with its bundles.
    :param name: The path of the bundle.
    :param digest: The digest of the bundle.
    :param tree: The name of the run's tree.
    """
    for path in (Path(name), folder / Path(name).name):
        try:
            bundle = open_bundle(path)
        except (BundleError, OSError):
            continue
        if bundle.digest == digest:
            return run_of(bundle, path=str(path), tree=tree)
    return None


def _two_names(
    found: Sequence[Document], inputs: Sequence[Path]
) -> tuple[str, str]:
    """The names of two sets: their variants, if that tells them apart."""
    first, second = (
        common(run.variant for run in document.runs) for document in found
    )
    if first != second and first and second:
        return first, second
    a, b = (str(path) for path in inputs)
    return (a, b) if a != b else ("A", "B")
