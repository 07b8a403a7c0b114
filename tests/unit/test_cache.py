# SPDX-License-Identifier: GPL-2.0-or-later
"""Listing and pruning the cache."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vfio_p2p.machine.files import exclusive
from vfio_p2p.plans.cache import (
    KEEP_BYTES,
    CacheEntry,
    CacheKind,
    CacheLimits,
    cache_entries,
    prune,
)

DAY_S = 86400

# A file in an entry of each kind, and the path of the entry.
ENTRIES = {
    "builds/b1/qemu-system-x86_64": "builds/b1",
    "work/w1/tree/configure": "work/w1",
    "sources/s1/files.json": "sources/s1",
    "downloads/qemu_10.0.13.orig.tar.xz": "downloads/qemu_10.0.13.orig.tar.xz",
    "debs/busybox_1.deb": "debs/busybox_1.deb",
    "apt/a1/lock": "apt/a1",
    "testbed/kits/k1/packages.json": "testbed/kits/k1",
    "testbed/linux/l1/mtty.c": "testbed/linux/l1",
    "testbed/kernels/k1/vmlinux": "testbed/kernels/k1",
    "testbed/images/i1/vmlinuz": "testbed/images/i1",
    "testbed/snapshots/s1/ram": "testbed/snapshots/s1",
    "results/ab/abcd/manifest.json": "results/ab/abcd",
    "judgements/c1/d1.json": "judgements/c1",
    "abilities/q1.json": "abilities/q1.json",
    "logs/w1-b1.log": "logs/w1-b1.log",
    "testbed/p2psim.log": "testbed/p2psim.log",
    "bisect/x1/tree/file": "bisect/x1",
    "locks/f1": "locks/f1",
    "work/gone.lock": "work/gone.lock",
}
# Locks of entries, which are no entries.
LOCKS = (
    "builds/lock", "downloads/lock", "results/lock", "work/w1.lock",
    "sources/s1.lock", "testbed/kits/k1.lock", "testbed/images/i1.lock",
    "testbed/snapshots/s1.lock",
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A cache with an entry of each kind, none of them used today."""
    for name in (*ENTRIES, *LOCKS):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if "lock" in name else b"x" * 8192)
    for number, name in enumerate(ENTRIES.values(), 2):
        age(tmp_path / name, number * DAY_S)
    return tmp_path


def age(path: Path, age_s: float) -> None:
    then_s = time.time() - age_s
    os.utime(path, (then_s, then_s))


@contextmanager
def used_by_another(home: Path, kept: Iterable[str]) -> Iterator[None]:
    """Let another process use some entries."""
    with subprocess.Popen(
        [sys.executable, "-c", USER, *kept],
        cwd=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as user:
        assert user.stdout
        user.stdout.readline()
        yield
        user.communicate()


def names(entries: Iterable[CacheEntry], home: Path) -> list[str]:
    return [str(x.path.relative_to(home)) for x in entries]


def test_entries_are_listed_least_recently_used_first(home: Path) -> None:
    entries = cache_entries(home)
    assert names(entries, home) == list(ENTRIES.values())[::-1]
    assert {x.kind for x in entries} == set(CacheKind) - {CacheKind.OTHER}
    build = next(x for x in entries if x.kind is CacheKind.BUILDS)
    assert 8192 <= build.size_bytes < 1 << 20
    assert time.time() - build.used_s == pytest.approx(2 * DAY_S, abs=600)


def test_an_empty_cache(tmp_path: Path) -> None:
    assert cache_entries(tmp_path / "none") == ()
    assert prune(CacheLimits(keep_bytes=0), home=tmp_path).removed == ()


def test_everything_that_is_not_used_can_be_pruned(home: Path) -> None:
    done = prune(CacheLimits(keep_bytes=-1), home=home)
    assert names(done.removed, home) == list(ENTRIES.values())[::-1]
    assert (done.busy, done.kept_bytes) == ((), 0)
    left = [x for x in home.rglob("*") if not x.is_dir()]
    assert {x.name for x in left} == {"lock"}


def test_the_least_recently_used_entries_are_pruned(home: Path) -> None:
    entries = cache_entries(home)
    keep_bytes = sum(x.size_bytes for x in entries[5:]) + 1
    done = prune(CacheLimits(keep_bytes=keep_bytes), home=home)
    assert done.removed == entries[:5]
    assert cache_entries(home) == entries[5:]
    assert done.kept_bytes == keep_bytes - 1


def test_old_entries_are_pruned(home: Path) -> None:
    done = prune(CacheLimits(older_than_s=18.5 * DAY_S), home=home)
    assert names(done.removed, home) == ["work/gone.lock", "locks/f1"]
    # Both limits hold.
    done = prune(
        CacheLimits(older_than_s=17.5 * DAY_S, keep_bytes=KEEP_BYTES),
        home=home,
    )
    assert names(done.removed, home) == ["bisect/x1"]


def test_the_default_limit(home: Path) -> None:
    assert CacheLimits().room_bytes == KEEP_BYTES == 20 << 30
    assert CacheLimits(dry_run=True).room_bytes == KEEP_BYTES
    assert CacheLimits(older_than_s=1).room_bytes is None
    assert CacheLimits(older_than_s=1, keep_bytes=0).room_bytes == 0
    assert prune(home=home).removed == ()


def test_a_dry_run_changes_nothing(home: Path) -> None:
    before = sorted((x, x.lstat().st_mtime) for x in home.rglob("*"))
    done = prune(CacheLimits(keep_bytes=-1, dry_run=True), home=home)
    assert names(done.removed, home) == list(ENTRIES.values())[::-1]
    assert sorted((x, x.lstat().st_mtime) for x in home.rglob("*")) == before


USER = """\
import sys
from pathlib import Path
from vfio_p2p.machine.files import used
for name in sys.argv[1:]:
    assert used(Path(name))
print(flush=True)
sys.stdin.read()
"""


def test_an_entry_that_a_process_uses_stays(home: Path) -> None:
    kept = ["builds/b1", "downloads/qemu_10.0.13.orig.tar.xz", "apt/a1"]
    with used_by_another(home, kept):
        done = prune(CacheLimits(keep_bytes=-1), home=home)
    assert sorted(names(done.busy, home)) == sorted(kept)
    assert sorted(names(cache_entries(home), home)) == sorted(kept)
    done = prune(CacheLimits(keep_bytes=-1), home=home)
    assert sorted(names(done.removed, home)) == sorted(kept)


@pytest.mark.parametrize(
    ("lock", "name"),
    [
        ("builds/lock", "builds/b1"),
        ("work/w1.lock", "work/w1"),
        ("apt/a1/lock", "apt/a1"),
        ("testbed/kits/k1.lock", "testbed/kits/k1"),
        ("results/lock", "results/ab/abcd"),
        ("bisect/x1.lock", "bisect/x1"),
        ("locks/f1", "locks/f1"),
    ],
)
def test_an_entry_that_is_being_made_stays(
    home: Path, lock: str, name: str
) -> None:
    with (home / lock).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = prune(CacheLimits(keep_bytes=-1), home=home)
    assert names(done.busy, home) == [name]
    assert (home / name).exists()


def test_an_entry_used_since_it_was_listed_stays(
    home: Path,
) -> None:
    def touching(done: int, total: int, text: str) -> None:
        os.utime(home / "builds" / "b1")

    done = prune(
        CacheLimits(keep_bytes=-1), home=home, progress=touching
    )
    assert names(done.busy, home) == ["builds/b1"]


def test_a_pruned_lock_is_made_again(
    home: Path,
) -> None:
    lock = home / "work" / "w1.lock"
    prune(CacheLimits(keep_bytes=-1), home=home)
    assert not lock.exists()
    with exclusive(lock):
        assert lock.exists()


def test_leftovers_of_a_kill_are_pruned(home: Path) -> None:
    left = ["builds/.b2.partial", "debs/.download-x", "work/.w1.doomed"]
    for name in left:
        (home / name).mkdir()
        (home / name / "file").touch()
    # The process may still run.
    done = prune(CacheLimits(keep_bytes=-1), home=home)
    assert sorted(names(done.busy, home)) == left
    for name in left:
        age(home / name, DAY_S)
    done = prune(CacheLimits(keep_bytes=-1), home=home)
    assert sorted(names(done.removed, home)) == left


def test_what_a_kill_of_pruning_has_left_is_pruned_at_once(
    home: Path,
) -> None:
    left = ["builds/.b2.pruned-17", "results/ab/.vfio-p2p-tmp-x"]
    for name in left:
        (home / name).mkdir()
    # A process that lives has locked its temporary folder.
    with used_by_another(home, left[1:]):
        done = prune(CacheLimits(keep_bytes=-1), home=home)
    assert names(done.busy, home) == left[1:]
    assert left[0] in names(done.removed, home)
    done = prune(CacheLimits(keep_bytes=-1), home=home)
    assert left[1:] == names(done.removed, home)


MARKS = {
    "builds/b1/build.json": 1,
    "work/w1/tree.json": 0,
    "sources/s1/files.json": 0,
    "testbed/kits/k1/packages.json": 0,
    "testbed/images/i1/image.json": 0,
    "results/ab/abcd/manifest.json": 3,
    "abilities/q1.json": 2,
}


@pytest.mark.parametrize("name", MARKS)
def test_what_a_newer_version_has_made_stays(home: Path, name: str) -> None:
    entry = next(x for x in ENTRIES.values() if name.startswith(x))
    mark = home / name
    mark.write_text(f'{{"format": {MARKS[name] + 1}, "other": []}}')
    age(home / entry, 99 * DAY_S)
    others = [x for x in cache_entries(home) if x.kind is CacheKind.OTHER]
    assert names(others, home) == [entry]
    done = prune(CacheLimits(keep_bytes=-1, older_than_s=0), home=home)
    assert mark.exists()
    assert entry not in [*names(done.removed, home), *names(done.busy, home)]
    mark.write_text(f'{{"format": {MARKS[name]}, "other": []}}')
    age(home / entry, 99 * DAY_S)
    done = prune(CacheLimits(keep_bytes=-1), home=home)
    assert entry in names(done.removed, home)


def test_a_log_that_may_still_be_written_stays(home: Path) -> None:
    age(home / "logs" / "w1-b1.log", 60)
    done = prune(CacheLimits(keep_bytes=-1), home=home)
    assert names(done.busy, home) == ["logs/w1-b1.log"]


def test_files_of_an_unknown_kind_stay(home: Path) -> None:
    for name in "notes", "testbed/new":
        (home / name).write_text("x")
        age(home / name, 99 * DAY_S)
    others = [x for x in cache_entries(home) if x.kind is CacheKind.OTHER]
    assert sorted(names(others, home)) == ["notes", "testbed/new"]
    done = prune(CacheLimits(older_than_s=0, keep_bytes=-1), home=home)
    assert done.busy == ()
    assert cache_entries(home) == tuple(others)
