# SPDX-License-Identifier: GPL-2.0-or-later
"""Sealed runs are exact, and errors differ from a broken series."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

from avocado import Test
from testbed import SEED, program, run
from vfio_p2p.downtime.compare import Change, RunSample, compare
from vfio_p2p.errors import TestbedError
from vfio_p2p.machine.temporary import PREFIX
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.paths import cache_dir
from vfio_p2p.places.sealed.image import get_image
from vfio_p2p.qemu.program import Program
from vfio_p2p.scenario.model import (
    Device,
    Limits,
    Outcome,
    Scenario,
)
from vfio_p2p.verdict.assess import assess
from vfio_p2p.verdict.reading import read_run

_COMMENT = """\
From: Nobody <nobody@example.org>
Subject: [PATCH] vfio/migration: Say something

Nothing changes.

Signed-off-by: Nobody <nobody@example.org>
---
--- a/hw/vfio/migration.c
+++ b/hw/vfio/migration.c
@@ -1139,2 +1139,4 @@
     migrate_del_blocker(&vbasedev->migration_blocker);
 }
+
+/* Nothing that a compiler could see. */
"""


class Exact(Test):
    """A run is a function of its inputs."""

    timeout = 900

    def test_same_seed_same_bytes_on_a_busy_machine(self) -> None:
        qemu = program("patched")
        first = run(qemu, "two-devices", Path(self.workdir, "1"))
        busy = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in range(3)
        ]
        try:
            path = Path(self.workdir, "2")
            second = run(qemu, "two-devices", path, rerun=True)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        self.assertEqual(first.digest, second.digest)
        self.assertEqual(first.files, second.files)
        self.assertGreater(len(first.files["source/trace.log"]), 1000)

    def test_a_tree_built_twice_is_one_and_the_same(self) -> None:
        patch = Path(self.workdir, "comment.patch")
        patch.write_text(_COMMENT)
        trees = [program(x) for x in ("base", f"base+{patch}")]
        self.assertNotEqual(trees[0].what.build, trees[1].what.build)
        self.assertEqual(
            *(sha256(x.binary.read_bytes()).hexdigest() for x in trees)
        )
        runs = [
            run(tree, "one-device", Path(self.workdir, str(number)))
            for number, tree in enumerate(trees)
        ]
        self.assertEqual(runs[0].manifest.files, runs[1].manifest.files)
        samples = [RunSample(SEED, read_run(x).breakdown) for x in runs]
        found = compare(samples[:1], samples[1:])
        self.assertEqual(
            {row.change for row in found.rows}, {Change.IDENTICAL}
        )

    def test_another_seed_is_another_sample(self) -> None:
        qemu = program("patched")
        first = run(qemu, "two-devices", Path(self.workdir, "1"), seed=1)
        second = run(qemu, "two-devices", Path(self.workdir, "2"), seed=2)
        self.assertNotEqual(first.digest, second.digest)
        self.assertNotEqual(
            first.files["source/trace.log"],
            second.files["source/trace.log"],
        )


class Trouble(Test):
    """Errors of the infrastructure are not blamed on the series."""

    timeout = 900

    def test_qemu_that_dies_at_start_is_an_error(self) -> None:
        qemu = Program.at(
            Path("/bin/false"), variant="patched", version="none"
        )
        bundle = run(qemu, "two-devices", Path(self.workdir, "b"))
        self.assertEqual(bundle.manifest.result.outcome, Outcome.REFUSED)
        self.assertEqual(assess(bundle).verdict, Verdict.ERROR)

    def test_migration_that_takes_too_long_is_an_error(self) -> None:
        scenario = Scenario(
            name="slow",
            devices=(
                Device(),
                Device(latency_us={"RUNNING>PRE_COPY": 5_000_000}),
            ),
            limits=Limits(migrate_s=1),
        )
        bundle = run(program("patched"), scenario, Path(self.workdir, "b"))
        result = bundle.manifest.result
        self.assertEqual(result.outcome, Outcome.TIMEOUT)
        self.assertEqual(result.step, "migration")
        self.assertEqual(assess(bundle).verdict, Verdict.ERROR)

    def test_outer_timeout_leaves_nothing(self) -> None:
        path = Path(self.workdir, "b")
        with self.assertRaisesRegex(TestbedError, "within 1 s"):
            run(program("patched"), "two-devices", path, limit_s=1, rerun=True)
        self.assertEqual(list(Path(self.workdir).iterdir()), [])
        self.assertEqual(_children(os.getpid()), [])

    def test_kill_leaves_nothing(self) -> None:
        program("patched")
        out = Path(self.workdir, "out")
        harness = subprocess.Popen(
            [
                *(sys.executable, "-m", "vfio_p2p", "validate"),
                *("--scenario", "two-devices", "--variant", "patched"),
                *("--rerun", "--out", str(out)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        outer: list[int] = []
        while not outer:
            self.assertIsNone(harness.poll(), "it ended by itself")
            outer = [x for x in _children(harness.pid) if _is_sealed(x)]
            time.sleep(0.05)
        self.assertTrue(list(out.glob(f".{PREFIX}*")))
        harness.send_signal(signal.SIGKILL)
        harness.wait()
        while any(_is_sealed(pid) for pid in outer):
            time.sleep(0.05)        # avocado's time limit ends this
        whole = [x for x in out.iterdir() if not x.name.startswith(".")]
        self.assertEqual(whole, [])


class Resumed(Test):
    """Finished runs are not repeated."""

    timeout = 900

    def test_a_killed_matrix_goes_on_where_it_was(self) -> None:
        program("patched")
        get_image()
        # The cache has all builds, and no results.
        cache = Path(self.workdir, "vfio-p2p")
        cache.mkdir()
        for path in cache_dir().iterdir():
            if path.name != "results":
                (cache / path.name).symlink_to(path)
        killed = self._start()
        while not self._results():
            self.assertIsNone(killed.poll(), "it ended by itself")
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        before = self._results()
        self.assertLess(len(before), 3)
        self.assertEqual(self._start().wait(), 0)
        after = self._results()
        self.assertEqual(len(after), 3)
        self.assertEqual(before, {x: after[x] for x in before})

    def _start(self) -> subprocess.Popen[bytes]:
        scenarios = ("boot-and-quit", "stop-and-cont", "one-device")
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "vfio_p2p", "validate"),
                *("--variant", "patched", "--jobs", "1"),
                *(f"--scenario={name}" for name in scenarios),
                *("--out", str(Path(self.workdir, "out"))),
            ],
            env=os.environ | {"XDG_CACHE_HOME": self.workdir},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _results(self) -> dict[str, int]:
        """Return when each result in the cache was made."""
        return {
            path.name: (path / "manifest.json").stat().st_mtime_ns
            for path in Path(self.workdir).glob("vfio-p2p/results/*/*")
            if not path.name.startswith(".")
        }


def _is_sealed(pid: int) -> bool:
    """Tell whether a process runs an outer VM, not ``qemu --version``."""
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"-icount" in command.split(b"\0")
    return False


def _children(parent: int) -> list[int]:
    children = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and fields[0] not in "ZX":
                children.append(int(status.parent.name))
    return children
