# SPDX-License-Identifier: GPL-2.0-or-later
"""From a good and a bad commit to the one that made the difference."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

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
    Job,
    Measured,
    Message,
    Skipped,
    Tick,
    measure,
)
from vfio_p2p.plans.bisect.tree import (
    NO_HOOKS,
    Checkout,
    ask,
    checkout,
    commit_of,
)
from vfio_p2p.progress import Progress
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series.git import git_environment, run_git

# -P: what lies in QEMU's tree is no module of ours.
_SCRIPT = ("-P", "-m", "vfio_p2p.plans.bisect")


@dataclass(frozen=True)
class Above:
    """By how much a commit must exceed the good one to be bad.

    :param amount: In nanoseconds, or in percent of the good one's value.
    :param percent: Which of the two.
    """

    amount: float
    percent: bool

    def limit_ns(self, good_ns: float) -> float:
        """Where bad begins."""
        if self.percent:
            return good_ns * (1 + self.amount / 100)
        return good_ns + self.amount


@dataclass(frozen=True)
class Sample:
    """A commit that was looked at.

    :param commit: Its full name.
    :param subject: First line of its message.
    :param bad: Whether it is bad; None when that is not known.
    :param value_ns: The metric; None when that is not known.
    :param why: Why it is not known.
    :param entry: All that was measured.
    """

    commit: str
    subject: str
    bad: bool | None
    value_ns: int | None
    why: str = ""
    entry: Entry | None = None


@dataclass(frozen=True)
class Found:
    """What came of it.

    :param job: What every step was told.
    :param samples: What was looked at, in that order; first good and bad.
    :param first: The first bad commit; None if only commits are left that
        cannot be known.
    :param before: What to compare it with: its parent, if that can be run.
    :param candidates: Those that may be the first bad one.
    """

    job: Job
    samples: tuple[Sample, ...]
    first: Sample | None
    before: Sample | None
    candidates: tuple[str, ...]


@dataclass
class _Search:
    made: Checkout
    job: Job
    scenario: Scenario
    progress: Progress
    tell: Callable[[Sample], None]
    samples: list[Sample] = field(default_factory=list)

    def sample(self, commit: str) -> Entry:
        """Measure one commit, in this process."""
        self.made.go_to(commit)
        return measure(
            self.made.tree,
            self.made.home,
            self.job,
            self.scenario,
            self.progress,
        )

    def note(self, message: Measured | Skipped) -> Sample:
        """Keep what a step has found out."""
        if isinstance(message, Measured):
            entry = message.entry
            value_ns = self.value_ns(entry)
            found = Sample(
                entry.qemu_revision,
                self.subject(entry.qemu_revision),
                self.job.is_bad(value_ns),
                value_ns,
                entry=entry,
            )
        else:
            found = Sample(
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
        """The metric of a run that has it."""
        found = entry.metric(self.job.metric)
        assert found is not None
        return found.value

    def subject(self, commit: str) -> str:
        """First line of a commit's message."""
        return self.made.git("log", "-1", "--format=%s", commit)

    def settle(self, good: str, bad: str, above: Above | None) -> None:
        """Measure both ends, and say where bad begins."""
        entries = [self.sample(good), self.sample(bad)]
        good_ns, bad_ns = map(self.value_ns, entries)
        rising = bad_ns > good_ns or above is not None
        limit_ns = above.limit_ns(good_ns) if above else (
            good_ns + bad_ns
        ) / 2
        self.job = msgspec.structs.replace(
            self.job, limit_ns=limit_ns, rising=rising
        )
        if not self.job.is_bad(bad_ns):
            raise UsageError(
                f"{self.job.metric}: good {good_ns / 1e6:.3f} ms, bad "
                f"{bad_ns / 1e6:.3f} ms: there is nothing to be found",
                "choose other commits, another scenario, or another --above",
            )
        for entry in entries:
            self.note(Measured(entry))

    def run(self, good: str, bad: str) -> Sample | None:
        """Let git bisect; the first bad commit, if it can be told."""
        home = self.made.home
        (home / "job.json").write_bytes(msgspec.json.encode(self.job))
        (home / "scenario.json").write_bytes(self.scenario.to_json())
        self.made.git("bisect", "start", bad, good)
        script = [sys.executable, *_SCRIPT, str(home)]
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
            ["git", *NO_HOOKS, "bisect", "run", *script],
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
        # 2: all that are left are to be skipped.
        if status not in (0, 2):
            raise HostError(
                f"git bisect failed with status {status}", " / ".join(tail)
            )

    def candidates(self) -> tuple[str, ...]:
        """Commits that may be the first bad one."""
        good = self.made.git(
            "for-each-ref", "--format=%(objectname)", "refs/bisect/good-*"
        )
        found = self.made.git(
            "rev-list", "refs/bisect/bad", "--not", *good.split()
        )
        return tuple(found.split())

    def before(self, first: str, good: str) -> Sample:
        """What to compare the first bad commit with."""
        known = {x.commit: x for x in self.samples}
        parent = self.made.git("rev-parse", f"{first}^")
        if parent not in known:
            # git knew it to be good from one of its descendants.
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
    job: Job,
    scenario: Scenario,
    progress: Progress,
    tell: Callable[[Sample], None],
    above: Above | None = None,
) -> Found:
    """Find the commit that changed a metric.

    :param repository: A git repository of QEMU; it is left as it is.
    :param good: A commit.
    :param bad: A descendant of it.
    :param job: What to measure.
    :param scenario: What to run.
    :param progress: Told how far a step is.
    :param tell: Told of each commit that was looked at.
    :param above: What makes a commit bad; by default it is when it is
        nearer to the bad one.
    :raise UsageError: When the two do not differ, or are not related.
    :raise SourceError: When it is no git repository of QEMU.
    :raise BuildError: When one of the two does not build.
    """
    ask(repository, "rev-parse", "--git-dir")
    good, bad = (commit_of(repository, x) for x in (good, bad))
    related = run_git(repository, "merge-base", "--is-ancestor", good, bad)
    if related.returncode or good == bad:
        raise UsageError(
            f"{good[:12]} is no ancestor of {bad[:12]}",
            "the good commit is to be one that came before the bad one",
        )

    def waiting() -> None:
        progress(0, 0, "waiting for another bisection of this repository")

    with checkout(repository, good, waiting) as made:
        found = _Search(made, job, scenario, progress, tell)
        found.settle(good, bad, above)
        first = found.run(good, bad)
        before = found.before(first.commit, good) if first else None
        return Found(
            found.job,
            tuple(found.samples),
            first,
            before,
            found.candidates(),
        )
