# SPDX-License-Identifier: GPL-2.0-or-later
"""List the cache, and remove the entries that were not used for long.

Everything in the cache can be made again, so pruning costs time at most.
The entries that were used last are kept. An entry that a running process
uses, or is just making, is never removed: see `vfio_p2p.machine.files`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath

from vfio_p2p.bundle import manifest
from vfio_p2p.errors import UsageError
from vfio_p2p.foreign import format_in
from vfio_p2p.machine.files import exclusive_if_free, remove, unused
from vfio_p2p.machine.temporary import PREFIX
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed import image, kernel, snapshot
from vfio_p2p.places.sealed.kit import PACKAGES
from vfio_p2p.plans import judgements
from vfio_p2p.progress import Progress, silent
from vfio_p2p.qemu import abilities
from vfio_p2p.qemu.job import FORMAT as STORE
from vfio_p2p.qemu.source import LISTING
from vfio_p2p.qemu.store import INFO
from vfio_p2p.qemu.worktree import STATE

KEEP_BYTES = 20 << 30

# Logs, and the remains of interrupted processes, have no locks of their own.
# A process that writes to such an entry does so more often than this.
_REST_S = 3600


class CacheKind(StrEnum):
    """The kinds of entries in the cache."""

    BUILDS = "builds"           # QEMU binaries
    WORK = "work"               # folders to compile QEMU in
    SOURCES = "sources"         # unpacked QEMU tarballs
    DOWNLOADS = "downloads"     # QEMU tarballs
    DEBS = "debs"               # Debian packages
    APT = "apt"                 # indexes of Debian's archive
    KERNELS = "kernels"         # the testbed's own kernels
    KITS = "kits"               # the parts of the testbed, unpacked
    IMAGES = "images"           # the testbed's kernel and initramfs
    SNAPSHOTS = "snapshots"     # the testbed's VM, booted
    RESULTS = "results"         # bundles of sealed runs
    JUDGEMENTS = "judgements"   # what bundles came to
    ABILITIES = "abilities"     # what QEMUs said that they know
    LOGS = "logs"               # of builds and runs that failed
    BISECT = "bisect"           # what an interrupted bisection left
    LOCKS = "locks"             # locks of entries that are gone
    OTHER = "other"             # unknown here, or newer; never removed


@dataclass(frozen=True)
class CacheEntry:
    """Something that is kept or removed as a whole.

    :param kind: What it is.
    :param path: A file or folder.
    :param size_bytes: The room that it takes on the disk.
    :param used_s: When it was last used, in Unix time.
    """

    kind: CacheKind
    path: Path
    size_bytes: int
    used_s: float


@dataclass(frozen=True)
class CacheLimits:
    """The limits of `prune`; `KEEP_BYTES` is the default.

    :param older_than_s: Remove what was not used for this long.
    :param keep_bytes: Remove the least recently used entries until the
                       others take no more room than this.
    :param dry_run: Only find out what would be removed.
    """

    older_than_s: float | None = None
    keep_bytes: int | None = None
    dry_run: bool = False

    @property
    def room_bytes(self) -> int | None:
        """The room that the entries may take; None sets no limit."""
        if self.older_than_s is None and self.keep_bytes is None:
            return KEEP_BYTES
        return self.keep_bytes


@dataclass(frozen=True)
class Pruned:
    """The result of pruning.

    :param removed: The entries that were removed, least recently used
                    first; in a dry run, those that would have been.
    :param busy: The entries that were due and stayed, since a process uses
                 them or they cannot be removed.
    :param kept_bytes: The room that the remaining entries take, without
                       those of an unknown kind.
    """

    removed: tuple[CacheEntry, ...]
    busy: tuple[CacheEntry, ...]
    kept_bytes: int


@dataclass(frozen=True)
class _Shelf:
    """A place in the cache with entries of one kind.

    :param pattern: A glob below the cache.
    :param mark: The file of an entry that names its format; empty if the
                 entry is that file.  None if there is none.
    :param known: The newest format that is known here; 0 if there is none
                  so far.
    :param lock: The lock that is held while an entry is being made, with
                 `{path}` for the entry and `{parent}` for its folder;
                 empty where there is none.
    """

    kind: CacheKind
    pattern: str
    lock: str = ""
    mark: str | None = None
    known: int = 0

    def has_newer(self, path: Path) -> bool:
        """Return whether a newer vfio-p2p has made an entry."""
        if self.mark is None:
            return False
        try:
            data = (path / self.mark).read_bytes()
        except OSError:
            return False
        return format_in(data) > self.known


_LOCK_SUFFIX = ".lock"

_SHELVES = (
    _Shelf(CacheKind.BUILDS, "builds/*", "{parent}/lock", INFO, STORE),
    _Shelf(CacheKind.WORK, "work/*", "{path}.lock", STATE),
    _Shelf(CacheKind.SOURCES, "sources/*", "{path}.lock", LISTING),
    _Shelf(CacheKind.DOWNLOADS, "downloads/*", "{parent}/lock"),
    _Shelf(CacheKind.DEBS, "debs/*"),
    _Shelf(CacheKind.APT, "apt/*", "{path}/lock"),
    _Shelf(CacheKind.KITS, "testbed/kits/*", "{path}.lock", PACKAGES),
    _Shelf(CacheKind.KITS, "testbed/linux/*", "{path}.lock"),
    _Shelf(
        CacheKind.KERNELS, "testbed/kernels/*", "{path}.lock", kernel.FILES
    ),
    _Shelf(CacheKind.IMAGES, "testbed/images/*", "{path}.lock", image.FILES),
    _Shelf(
        CacheKind.SNAPSHOTS, "testbed/snapshots/*", "{path}.lock",
        snapshot.FILES,
    ),
    _Shelf(
        CacheKind.RESULTS, "results/*/*", "{parent}/../lock",
        manifest.MANIFEST, manifest.FORMAT,
    ),
    _Shelf(CacheKind.JUDGEMENTS, f"{judgements.FOLDER}/*"),
    _Shelf(
        CacheKind.ABILITIES, "abilities/*", mark="", known=abilities.FORMAT
    ),
    _Shelf(CacheKind.LOGS, "logs/*"),
    _Shelf(CacheKind.LOGS, "testbed/*.log"),
    _Shelf(CacheKind.BISECT, "bisect/*", "{path}.lock"),
    _Shelf(CacheKind.LOCKS, "locks/*", "{path}"),
)


def cache_entries(home: Path | None = None) -> tuple[CacheEntry, ...]:
    """List what is in the cache, least recently used first.

    :param home: The cache; by default the user's.
    """
    found = [entry for entry, _ in _entries(home or cache_dir())]
    return tuple(sorted(found, key=lambda x: (x.used_s, x.path)))


def prune(
    limits: CacheLimits = CacheLimits(),
    *,
    home: Path | None = None,
    progress: Progress = silent,
) -> Pruned:
    """Remove the entries of the cache that were not used for long.

    :param limits: What to remove.
    :param home: The cache; by default the user's.
    :param progress: Told of each entry that is removed.
    :raise UsageError: When the cache has no locks that hold.
    """
    older_than_s = limits.older_than_s
    room_bytes = limits.room_bytes
    home = home or cache_dir()
    now_s = time.time()
    entries = sorted(
        (x for x in _entries(home) if x[0].kind is not CacheKind.OTHER),
        key=lambda x: (x[0].used_s, x[0].path),
    )
    kept_bytes = sum(entry.size_bytes for entry, _ in entries)
    removed = []
    busy = []
    for number, (entry, lock) in enumerate(entries):
        too_old = older_than_s is not None and (
            now_s - entry.used_s >= older_than_s
        )
        too_large = room_bytes is not None and kept_bytes > room_bytes
        if not (too_old or too_large):
            continue
        progress(number, len(entries), "pruning")
        if _remove(entry, lock, dry_run=limits.dry_run):
            removed.append(entry)
            kept_bytes -= entry.size_bytes
        else:
            busy.append(entry)
    return Pruned(tuple(removed), tuple(busy), kept_bytes)


def _entries(home: Path) -> Iterator[tuple[CacheEntry, Path | None]]:
    """Yield each entry with the lock under which it is made, if any."""
    seen: set[Path] = set()
    locks: set[Path] = set()
    for shelf in _SHELVES:
        paths = set(home.glob(shelf.pattern)) - seen
        seen |= paths
        for path in sorted(paths):
            lock = None
            if shelf.lock:
                # An unfinished entry has the lock of the finished one.
                whole = path.with_name(_whole_name(path.name))
                lock = Path(os.path.normpath(
                    shelf.lock.format(path=whole, parent=whole.parent)
                ))
            if lock == path and shelf.kind is not CacheKind.LOCKS:
                continue
            if "{path}." in shelf.lock and path.suffix == _LOCK_SUFFIX:
                locks.add(path)
                continue
            kind = shelf.kind
            if shelf.has_newer(path):
                kind = CacheKind.OTHER
            yield from _entry(kind, path, lock)
    for path in sorted(locks):
        # The other locks are removed with their entries.
        if not path.with_suffix("").exists():
            yield from _entry(CacheKind.LOCKS, path, path)
    # The folders that have shelves, or folders of shelves.
    folders = {
        home / x
        for shelf in _SHELVES
        for x in PurePath(shelf.pattern).parents
        if "*" not in x.name
    }
    for folder in {x.parent for x in folders - {home}}:
        for path in sorted(folder.glob("*")):
            if path not in folders | seen:
                yield from _entry(CacheKind.OTHER, path, None)


def _entry(
    kind: CacheKind, path: Path, lock: Path | None
) -> Iterator[tuple[CacheEntry, Path | None]]:
    # Another process may have removed the entry meanwhile.
    with suppress(FileNotFoundError):
        used_s = path.lstat().st_mtime
        yield CacheEntry(kind, path, _size_bytes(path), used_s), lock


def _size_bytes(path: Path) -> int:
    blocks = path.lstat().st_blocks
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                blocks += os.lstat(os.path.join(folder, name)).st_blocks
    # POSIX does not define the unit; on Linux it is this (stat(2)).
    return blocks * 512


def _whole_name(name: str) -> str:
    """Return the name of an entry whose half may be called `name`."""
    if not name.startswith("."):
        return name
    return name[1:].rpartition(".")[0] or name


def _remove(entry: CacheEntry, lock: Path | None, *, dry_run: bool) -> bool:
    """Remove an entry unless it is used; tell whether it is gone."""
    path = entry.path
    # Nobody uses what is being pruned, and temporary folders are locked.
    hidden = path.name.startswith(".") and not (
        ".pruned-" in path.name or path.name.startswith(f".{PREFIX}")
    )
    if (hidden or entry.kind is CacheKind.LOGS) and (
        time.time() - entry.used_s < _REST_S
    ):
        return False
    doomed = path.with_name(f".{path.name}.pruned-{os.getpid()}")
    try:
        with ExitStack() as stack:
            if path != lock:
                if not stack.enter_context(unused(path)):
                    return False
                # The entry was used since it was listed.
                if path.lstat().st_mtime != entry.used_s:
                    return False
            # Whoever is making the entry holds the lock. A dry run makes
            # no lock where there is none.
            if (
                lock is not None
                and (lock.exists() or not dry_run)
                and not _taken(lock, stack)
            ):
                return False
            if dry_run:
                return True
            path.rename(doomed)
            if lock == path.with_name(path.name + _LOCK_SUFFIX):
                lock.unlink()
        remove(doomed)
    except OSError:
        # The entry is somebody else's, or the file system is read-only.
        return False
    return True


def _taken(lock: Path, stack: ExitStack) -> bool:
    """Hold a lock until the end of a stack, if it is free and can be held."""
    try:
        return stack.enter_context(exclusive_if_free(lock))
    except UsageError:
        # Its folder is somebody else's.
        return False
