# SPDX-License-Identifier: GPL-2.0-or-later
"""A snapshot of the testbed's VM is a function of what it is made from."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from avocado import Test
from testbed import program
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.choice import VmKernel
from vfio_p2p.errors import TestbedError
from vfio_p2p.paths import cache_dir
from vfio_p2p.places import Job
from vfio_p2p.places.sealed.image import Image, get_image
from vfio_p2p.places.sealed.outer import RAM, Outer, get_outer
from vfio_p2p.places.sealed.place import SealedPlace, Testbed
from vfio_p2p.places.sealed.snapshot import (
    Snapshot,
    get_snapshot,
    memory_digest,
)
from vfio_p2p.qemu.program import KnownPrograms
from vfio_p2p.scenario.load import load

_SEED = 7
_BUSY = "while True: pass"
_MAKE = """
from vfio_p2p.places.sealed.image import get_image
from vfio_p2p.places.sealed.outer import get_outer
from vfio_p2p.places.sealed.snapshot import get_snapshot
image = get_image()
get_snapshot(image, get_outer(image.kit))
"""


@contextmanager
def other_cache() -> Iterator[Path]:
    """Use a cache without snapshots; it has the parts of the usual one."""
    usual = cache_dir()
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory(dir=usual.parent) as name:
        for part in ("kits", "images"):
            target = Path(name, usual.name, "testbed", part)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(usual / "testbed" / part)
        os.environ["XDG_CACHE_HOME"] = name
        try:
            yield Path(name, usual.name)
        finally:
            del os.environ["XDG_CACHE_HOME"]
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before


def users(folder: Path) -> list[int]:
    """Return the processes whose arguments name a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in words:
            found.append(int(process.name))
    return found


class SnapshotTest(Test):
    """The snapshot, by itself and under runs."""

    timeout = 1800

    def setUp(self) -> None:
        """Find the parts that all of the tests need."""
        self.image: Image = get_image()
        self.outer: Outer = get_outer(self.image.kit)
        self.snapshot: Snapshot = get_snapshot(self.image, self.outer)
        self.qemu = program("patched")

    def played(self, snapshot: Snapshot | None, name: str) -> Bundle:
        """Run a job, without the cache of runs."""
        place = SealedPlace(
            self.image.driver,
            KnownPrograms([self.qemu]),
            testbeds={
                VmKernel.DEBIAN: Testbed(self.image, self.outer, snapshot)
            },
        )
        job = Job.of(self.qemu.what, load("two-devices"), _SEED)
        return asyncio.run(place.run(job, Path(self.outputdir, name)))

    def test_two_snapshots_are_the_same(self) -> None:
        with other_cache():
            other = get_snapshot(self.image, self.outer)
            self.assertNotEqual(other.path, self.snapshot.path)
            self.assertEqual(other.files[RAM], self.snapshot.files[RAM])
            self.assertEqual(other.digest, self.snapshot.digest)
            again = self.played(other, "other")
        first = self.played(self.snapshot, "usual")
        self.assertEqual(first.manifest.files, again.manifest.files)
        self.assertEqual(first.digest, again.digest)

    def test_many_runs_are_the_same(self) -> None:
        """Alone, beside busy loops, and from snapshots made again."""
        runs = int(self.params.get("runs", default=4))
        digests = set()
        with other_cache():
            for number in range(runs):
                loops = [
                    subprocess.Popen([sys.executable, "-c", _BUSY])
                    for _ in range(number % 2 * 3)
                ]
                snapshot = self.snapshot
                if number % 10 == 3:
                    snapshot = get_snapshot(self.image, self.outer)
                    self.assertNotEqual(snapshot.path, self.snapshot.path)
                try:
                    digests.add(self.played(snapshot, "again").digest)
                finally:
                    for loop in loops:
                        loop.kill()
                        loop.wait()
                if snapshot is not self.snapshot:
                    snapshot.ram.unlink()
        self.assertEqual(len(digests), 1)

    def test_a_run_leaves_the_snapshot_as_it_is(self) -> None:
        before = memory_digest(self.snapshot.ram)
        self.played(self.snapshot, "one")
        self.assertEqual(memory_digest(self.snapshot.ram), before)
        self.assertEqual(before, self.snapshot.files[RAM])

    def test_a_booted_run_is_of_another_testbed(self) -> None:
        for snapshot, digest in (
            (self.snapshot, self.snapshot.digest),
            (None, ""),
        ):
            place = self.played(snapshot, "one").manifest.inputs.place
            assert isinstance(place, SealedProvenance)
            self.assertEqual(place.snapshot, digest)

    def test_a_changed_snapshot_is_made_again(self) -> None:
        with other_cache():
            snapshot = get_snapshot(self.image, self.outer)
            with snapshot.ram.open("r+b") as file:
                file.seek(256 << 20)
                file.write(b"x")
            with self.assertRaises(TestbedError) as caught:
                self.played(snapshot, "changed")
            self.assertIn("changed", caught.exception.what)
            again = get_snapshot(self.image, self.outer)
            self.assertEqual(again.files[RAM], self.snapshot.files[RAM])
            snapshot.ram.unlink()
            again = get_snapshot(self.image, self.outer)
            self.assertEqual(again.files[RAM], self.snapshot.files[RAM])
            (snapshot.path / "state").write_bytes(b"x")
            again = get_snapshot(self.image, self.outer)
            self.assertEqual(again.digest, self.snapshot.digest)

    def test_killed_while_it_is_made(self) -> None:
        kills = int(self.params.get("kills", default=4))
        random = Random(1)
        with other_cache() as cache:
            took_s = None
            for number in range(kills + 1):
                began_s = time.monotonic()
                process = subprocess.Popen([sys.executable, "-c", _MAKE])
                if number == 0:
                    while not users(cache) and process.poll() is None:
                        time.sleep(0.05)
                    self.assertEqual(process.wait(), 0)
                    took_s = time.monotonic() - began_s
                    (made,) = cache.glob("testbed/snapshots/*/ram")
                else:
                    assert took_s
                    try:
                        process.wait(random.uniform(0, took_s))
                    except subprocess.TimeoutExpired:
                        process.send_signal(signal.SIGKILL)
                        process.wait()
                limit_s = time.monotonic() + 60
                while users(cache) and time.monotonic() < limit_s:
                    time.sleep(0.05)
                self.assertEqual(users(cache), [])
                if made.exists():
                    self.assertEqual(
                        memory_digest(made), self.snapshot.files[RAM]
                    )
                    made.unlink()
            get_snapshot(self.image, self.outer)
            left = [x.name for x in cache.glob("testbed/snapshots/.*")]
            self.assertEqual(left, [])
