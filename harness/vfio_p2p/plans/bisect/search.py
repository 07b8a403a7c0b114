# SPDX-License-Identifier: GPL-2.0-or-later
"""Search between a good and a bad commit for the one that changed a metric."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from vfio_p2p import resources
from vfio_p2p.errors import (
    BuildError,
    HarnessError,
    HostError,
    SourceError,
    UsageError,
)
from vfio_p2p.history.database import Entry
from vfio_p2p.machine.process import owned
from vfio_p2p.plans.bisect.step import (
    MARK,
    Failed,
    Measured,
    Message,
    Probe,
    Skipped,
    Tick,
    measure,
)
from vfio_p2p.plans.bisect.tree import (
    Checkout,
    ask,
    checkout,
    commit_of,
)
from vfio_p2p.progress import Progress
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series.git import git, git_environment, run_git


class Measure(Protocol):
    """A function that measures the commit that is checked out."""

    def __call__(
        self,
        tree: Path,
        home: Path,
        probe: Probe,
        scenario: Scenario,
        progress: Progress,
    ) -> Entry: ...


@dataclass(frozen=True)
class Steps:
    """How commits are measured: in this process, and by git.

    :param measure: Measures the commit that is checked out.
    :param script: The arguments of Python for the program that git runs;
        the folder with its input follows.
    """

    measure: Measure = measure
    # -P: Python must not take modules from QEMU's tree.
    script: tuple[str, ...] = ("-P", "-m", "vfio_p2p.plans.bisect")


@dataclass(frozen=True)
class Above:
    """A threshold over the good commit.

    :param amount: The amount in nanoseconds, or in percent of the value of
        the good commit.
    :param percent: Whether it is in percent.
    """

    amount: float
    percent: bool

    def limit_ns(self, good_ns: float) -> float:
        """Return the value at which bad begins.

        :param good_ns: The value of the good commit.
        """
        if self.percent:
            return good_ns * (1 + self.amount / 100)
        return good_ns + self.amount


@dataclass(frozen=True)
class MeasuredCommit:
    """A commit that was tested.

    :param commit: Its full hash.
    :param subject: The first line of its message.
    :param bad: Whether it is bad; None if that is unknown.
    :param value_ns: The metric; None if that is unknown.
    :param why: Why it is unknown.
    :param entry: All metrics.
    """

    commit: str
    subject: str
    bad: bool | None
    value_ns: int | None
    why: str = ""
    entry: Entry | None = None


@dataclass(frozen=True)
class Bisection:
    """The result of a search.

    :param scenario: The name of the scenario that was run.
    :param probe: What was measured of every commit.
    :param samples: The commits in the order of their tests; the good and
        the bad one come first.
    :param first: The first bad commit; None if the commits that are left
        cannot be tested.
    :param before: The commit to compare the first bad one with: the parent
        of that, if the parent can be run.
    :param candidates: The commits that may be the first bad one.
    """

    scenario: str
    probe: Probe
    samples: tuple[MeasuredCommit, ...]
    first: MeasuredCommit | None
    before: MeasuredCommit | None
    candidates: tuple[str, ...]


def settled(
    probe: Probe, good_ns: float, bad_ns: float, above: Above | None
) -> Probe:
    """Set the value at which bad begins.

    :param probe: The measurement.
    :param good_ns: The value of the good end, in nanoseconds.
    :param bad_ns: The value of the bad end.
    :param above: The threshold over the good end; None takes the midpoint.
    :raise UsageError: When the bad end is not bad by that.
    """
    rising = bad_ns > good_ns or above is not None
    limit_ns = (
        above.limit_ns(good_ns) if above else (good_ns + bad_ns) / 2
    )
    found = msgspec.structs.replace(probe, limit_ns=limit_ns, rising=rising)
    if not found.is_bad(bad_ns):
        raise UsageError(
            f"{probe.metric}: good {good_ns / 1e6:.3f} ms, bad "
            f"{bad_ns / 1e6:.3f} ms: there is no change to find",
            "Choose other ends, another scenario, or another --above.",
        )
    return found


@dataclass
class _Search:
    made: Checkout
    probe: Probe
    scenario: Scenario
    progress: Progress
    tell: Callable[[MeasuredCommit], None]
    steps: Steps
    samples: list[MeasuredCommit] = field(default_factory=list)

    def sample(self, commit: str) -> Entry:
        """Measure one commit, in this process."""
        self.made.go_to(commit)
        return self.steps.measure(
            self.made.tree,
            self.made.home,
            self.probe,
            self.scenario,
            self.progress,
        )

    def note(self, message: Measured | Skipped) -> MeasuredCommit:
        """Keep the result of a step."""
        if isinstance(message, Measured):
            entry = message.entry
            value_ns = self.value_ns(entry)
            found = MeasuredCommit(
                entry.qemu_revision,
                self.subject(entry.qemu_revision),
                self.probe.is_bad(value_ns),
                value_ns,
                entry=entry,
            )
        else:
            found = MeasuredCommit(
                message.commit,
                self.subject(message.commit),
                None,
                None,
                message.why,
            )
        self.samples.append(found)
        self.tell(found)
        return found

    def value_ns(self, entry: Entry) -> int:
        """Read the metric of a run that has it."""
        found = entry.metric(self.probe.metric)
        assert found is not None
        return found.value

    def subject(self, commit: str) -> str:
        """Read the first line of a commit's message."""
        return self.made.git("log", "-1", "--format=%s", commit)

    def settle(self, good: str, bad: str, above: Above | None) -> None:
        """Measure both ends, and set the value at which bad begins."""
        entries = [self.sample(good), self.sample(bad)]
        good_ns, bad_ns = map(self.value_ns, entries)
        self.probe = settled(self.probe, good_ns, bad_ns, above)
        for entry in entries:
            self.note(Measured(entry))

    def run(self, good: str, bad: str) -> MeasuredCommit | None:
        """Let git bisect; return the first bad commit, if it is known."""
        home = self.made.home
        (home / "probe.json").write_bytes(msgspec.json.encode(self.probe))
        (home / "scenario.json").write_bytes(self.scenario.to_json())
        self.made.git("bisect", "start", bad, good)
        script = [sys.executable, *self.steps.script, str(home)]
        if self.made.git("rev-list", "--count", f"{good}..{bad}") != "1":
            self._run_git(script)
        first = self.made.git("rev-parse", "refs/bisect/bad")
        known = [x for x in self.candidates() if x != first]
        if known:
            return None
        return next(x for x in self.samples if x.commit == first)

    def _run_git(self, script: list[str]) -> None:
        tail: deque[str] = deque(maxlen=5)
        here = str(resources.resource().parent)
        path = os.pathsep.join([here, *_python_path()])
        with owned(
            git(self.made.tree, "bisect", "run", *script),
            cwd=self.made.tree,
            env=git_environment() | {"PYTHONPATH": path},
        ) as process:
            assert process.stdout
            for line in process.stdout:
                if not line.startswith(MARK):
                    tail.append(line.decode(errors="replace").strip())
                    continue
                message = msgspec.json.decode(line[1:], type=Message)
                match message:
                    case Tick(done, total, text):
                        self.progress(done, total, text)
                    case Failed(what, hint, exit_code):
                        error = HarnessError(what, hint)
                        error.exit_code = exit_code
                        raise error
                    case Measured() | Skipped():
                        self.note(message)
            status = process.wait()
        # Status 2: all commits that are left have to be skipped.
        if status not in (0, 2):
            raise HostError(
                f"git bisect failed with status {status}", " / ".join(tail)
            )

    def candidates(self) -> tuple[str, ...]:
        """List the commits that may be the first bad one."""
        good = self.made.git(
            "for-each-ref", "--format=%(objectname)", "refs/bisect/good-*"
        )
        found = self.made.git(
            "rev-list", "refs/bisect/bad", "--not", *good.split()
        )
        return tuple(found.split())

    def before(self, first: str, good: str) -> MeasuredCommit:
        """Find the commit to compare the first bad one with."""
        known = {x.commit: x for x in self.samples}
        parent = self.made.git("rev-parse", f"{first}^")
        if parent not in known:
            # git inferred that the parent is good from one of its descendants.
            with suppress(BuildError, HostError, SourceError):
                return self.note(Measured(self.sample(parent)))
        found = known.get(parent)
        return found if found and found.entry else known[good]


def _python_path() -> list[str]:
    return [x for x in (os.environ.get("PYTHONPATH"),) if x]


def search(
    repository: Path,
    good: str,
    bad: str,
    probe: Probe,
    scenario: Scenario,
    progress: Progress,
    tell: Callable[[MeasuredCommit], None],
    above: Above | None = None,
    steps: Steps = Steps(),
) -> Bisection:
    """Find the commit that changed a metric.

    :param repository: A git repository of QEMU; it is left as it is.
    :param good: A commit.
    :param bad: A descendant of it.
    :param probe: What is measured.
    :param scenario: What is run.
    :param progress: Told how far a step is.
    :param tell: Told of each commit that was tested.
    :param above: The threshold over the good commit; None takes the midpoint
        between good and bad.
    :param steps: How commits are measured.
    :raise UsageError: When the two commits do not differ, or are unrelated.
    :raise SourceError: When the repository is not a git repository of QEMU.
    :raise BuildError: When the good or the bad commit does not build.
    """
    ask(repository, "rev-parse", "--git-dir")
    good, bad = (commit_of(repository, x) for x in (good, bad))
    related = run_git(repository, "merge-base", "--is-ancestor", good, bad)
    if related.returncode or good == bad:
        raise UsageError(
            f"{good[:12]} is no ancestor of {bad[:12]}",
            "Give a good commit that came before the bad one.",
        )

    def waiting() -> None:
        progress(0, 0, "waiting for another bisection of this repository")

    with checkout(repository, good, waiting) as made:
        found = _Search(
            made, probe, scenario, progress, tell, steps
        )
        found.settle(good, bad, above)
        first = found.run(good, bad)
        before = found.before(first.commit, good) if first else None
        return Bisection(
            scenario.name,
            found.probe,
            tuple(found.samples),
            first,
            before,
            found.candidates(),
        )
