# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands that tools/kills.py kills, and what it looks at."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "unit"))

from bundles import make_bundle
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.errors import BundleError
from vfio_p2p.paths import cache_dir

# What the commands need of a cache.  Locks are not shared.
SHARED = ("abilities", "builds", "downloads", "sources", "testbed")
HALF = re.compile(r"\.(partial|doomed|run)$|\.pruned-|^\.vfio-p2p|-p2p-tmp-")


def children(pid: int) -> dict[int, str]:
    """Return the command lines of a process's children."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            after = (folder / "stat").read_text().rpartition(")")[2]
            if int(after.split()[1]) == pid:
                words = (folder / "cmdline").read_bytes()
                found[int(folder.name)] = words.decode(errors="replace")
    return found


def ended_vms(pid: int, seen: set[int]) -> int:
    """Return how many VMs of the testbed a process had that have ended.

    :param seen: Those that were seen so far; it is updated.
    """
    now = {x for x, words in children(pid).items() if "mem-path" in words}
    seen |= now
    return len(seen - now)


class Case:
    """A command that is killed.

    :param work: Its folder, with a cache, a state and temporary files.
    """

    passes: tuple[int, ...] = (0,)
    runs = False

    def __init__(self, work: Path) -> None:
        self.work = work
        self.out = work / "out"
        self.cache = work / "cache" / "vfio-p2p"
        self.wrong: list[str] = []
        self.environment = {
            "XDG_CACHE_HOME": str(work / "cache"),
            "XDG_STATE_HOME": str(work / "state"),
            "TMPDIR": str(work / "tmp"),
        }
        for path in (self.out, *map(Path, self.environment.values())):
            path.mkdir()

    def once(self) -> None:
        """Make what all kills need."""
        for name in SHARED:
            shutil.copytree(
                cache_dir() / name, self.cache / name,
                copy_function=os.link, symlinks=True,
                ignore=shutil.ignore_patterns("lock", "*.lock"),
            )

    def before(self, number: int) -> None:
        """Make what one kill needs."""

    def argv(self, number: int) -> list[str]:
        """Return the arguments of the command that is killed."""
        raise NotImplementedError

    def again(self, number: int) -> list[str]:
        """Return those of the command that must succeed afterwards."""
        return self.argv(number)

    def fresh(self, number: int) -> bool:
        """Return whether the command has runs to make, not stored ones."""
        return self.runs and number % 4 != 2

    def check(self, number: int) -> None:
        """Look at what the killed command has left."""

    def after(self, number: int) -> None:
        """Look at what the command after it has left."""

    def start(self, argv: list[str]) -> subprocess.Popen[bytes]:
        """Start the tool in a session of its own."""
        with (self.work / "said").open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "vfio_p2p", *argv],
                cwd=self.work,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def whole(self, argv: list[str]) -> tuple[float, float, int]:
        """Let a command run to its end; it must succeed.

        :return: How long it took, and how much of it after its VMs, in
            seconds; and how many VMs it had.
        """
        began_s = last_s = time.monotonic()
        seen: set[int] = set()
        vms = 0
        process = self.start(argv)
        while process.poll() is None:
            if (ended := ended_vms(process.pid, seen)) > vms:
                vms, last_s = ended, time.monotonic()
            time.sleep(0.01)
        now_s = time.monotonic()
        if process.returncode not in self.passes:
            said = (self.work / "said").read_text(errors="replace")
            self.report(f"{argv}: {process.returncode}: {said}")
        return now_s - began_s, now_s - last_s, vms

    def report(self, what: str) -> None:
        """Take note of something that is wrong."""
        print(f"  wrong: {what}", flush=True)
        self.wrong.append(what)

    def seed(self, path: Path) -> int | None:
        """Return the seed of a bundle, which must be whole or absent."""
        try:
            return open_bundle(path).manifest.inputs.seed
        except BundleError as err:
            if path.exists():
                self.report(f"half a bundle: {err}")
            return None

    def left(self) -> Iterator[Path]:
        """Yield what is half, or forgotten."""
        yield from (self.work / "tmp").iterdir()
        for root, folders, files in os.walk(self.work):
            if root.endswith("/sources"):
                folders.clear()
            for name in (*folders, *files):
                if HALF.search(name):
                    yield Path(root, name)


class RunCase(Case):
    """A new seed each time, over the bundle before."""

    runs = True

    def argv(self, number: int) -> list[str]:
        seed = str(5000 + number * self.fresh(number))
        return ["run", "one-device", "--seed", seed, "--out", "out/one"]

    def again(self, number: int) -> list[str]:
        # A new run now and then.  What was stored is always served.
        new = self.seed(self.out / "one") == 5000 + number
        return self.argv(number if new or number % 8 == 0 else 2)

    def before(self, number: int) -> None:
        self.old = self.seed(self.out / "one")

    def check(self, number: int) -> None:
        found = self.seed(self.out / "one")
        new = 5000 + number * self.fresh(number)
        if found not in (self.old, new):
            self.report(f"the bundle was lost: {found}, was {self.old}")


class ValidateCase(Case):
    """Runs, most of them new, which also go into a history."""

    runs = True

    def argv(self, number: int) -> list[str]:
        seed = str(5000 + number * self.fresh(number))
        return ["validate", "--variant", "patched", "--scenario",
                "one-device", "--history", "history", "--seed", seed,
                "--out", "out"]

    def again(self, number: int) -> list[str]:
        return self.argv(2 if self.fresh(number) and number % 8 else number)

    def before(self, number: int) -> None:
        self.rows = self.recorded()

    def recorded(self) -> int:
        """Count the results of the history."""
        try:
            with closing(sqlite3.connect(self.work / "history")) as history:
                rows = history.execute("SELECT count(*) FROM result")
                return int(rows.fetchone()[0])
        except sqlite3.DatabaseError as err:
            if "no such table" not in str(err):
                self.report(f"history: {err}")
            return 0

    def check(self, number: int) -> None:
        said = (self.work / "said").read_text(errors="replace")
        told = re.findall(r"runs \[(\d+)/", said)
        rows = self.recorded()
        if rows < max(self.rows, *map(int, told), 0):
            self.report(f"{told} was reported, {rows} are recorded")
        for path in self.out.glob("[!.]*"):
            if path.is_dir():
                self.seed(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif not path.read_text().rstrip().endswith("</testsuites>"):
                self.report(f"half a report: {path}")


class CompareCase(ValidateCase):
    """Four results that are stored, into a folder with old ones or none."""

    # Two seeds cannot tell.
    passes = (0, 3)
    runs = False

    def argv(self, number: int) -> list[str]:
        return ["compare", "base", "patched", "--seeds", "2", "--seed",
                "5001", "--history", "history", "--out", "out"]

    def before(self, number: int) -> None:
        for path in self.work.glob("history*"):
            path.unlink()
        if number % 2:
            shutil.rmtree(self.out)
        super().before(number)

    def after(self, number: int) -> None:
        if self.recorded() != 4 or len(list(self.out.glob("*-s500?"))) != 4:
            self.report("there are not four results afterwards")


class ReportCase(Case):
    """HTML or JSON of many bundles, over that of others."""

    def once(self) -> None:
        for seed in range(25):
            make_bundle(self.work / "new" / f"b{seed}", seed=seed)
            make_bundle(self.work / "old" / f"b{seed}", seed=seed + seed // 24)
        self.texts = {}
        for what in ("new html", "old html", "new json", "old json"):
            self.whole(self.words(what, "text"))
            self.texts[what] = (self.work / "text").read_bytes()

    def words(self, what: str, out: str) -> list[str]:
        folder, kind = what.split()
        return ["report", folder, "--format", kind, "--out", out]

    def before(self, number: int) -> None:
        self.kind = ("html", "json")[number % 2]
        (self.out / self.kind).write_bytes(self.texts[f"old {self.kind}"])

    def argv(self, number: int) -> list[str]:
        return self.words(f"new {self.kind}", f"out/{self.kind}")

    def check(self, number: int) -> None:
        found = (self.out / self.kind).read_bytes()
        both = [self.texts[f"{x} {self.kind}"] for x in ("old", "new")]
        if found not in both:
            self.report("the report is neither the old nor the new one")


class PruneCase(Case):
    """Everything, in a cache of many entries."""

    def once(self) -> None:
        for seed in range(200):
            name = f"{seed:064}"
            make_bundle(self.work / "all" / name[-2:] / name, seed=seed)

    def before(self, number: int) -> None:
        shutil.rmtree(self.cache, ignore_errors=True)
        shutil.copytree(self.work / "all", self.cache / "results")

    def argv(self, number: int) -> list[str]:
        return ["cache", "prune", "--keep-bytes", "0"]

    def check(self, number: int) -> None:
        for path in (self.cache / "results").glob("*/[!.]*"):
            self.seed(path)

    def after(self, number: int) -> None:
        if found := list((self.cache / "results").glob("*/[!.]*")):
            self.report(f"not pruned: {found}")


CASES: dict[str, type[Case]] = {
    "run": RunCase, "validate": ValidateCase, "report": ReportCase,
    "compare": CompareCase, "prune": PruneCase,
}
