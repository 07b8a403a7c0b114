# SPDX-License-Identifier: GPL-2.0-or-later
"""Give damaged inputs to everything that reads what others hand over.

    tests/fuzz/fuzz.py --minutes 10 [--only log]
    tests/fuzz/fuzz.py replay log out/fuzz/log-0123456789ab

Whatever comes of an input has to be an answer or one of our errors that says
what to do, within the limits of limits.py.  Everything else is kept as a file
in out/fuzz, and makes the exit code 1.

There are two engines, and each has its share of the time: the mutator of
mutate.py, whose executions are a function of the seed and their number, and
atheris, which looks for inputs that reach new code.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "harness")]

# The package is imported later, so that atheris can watch it.
if TYPE_CHECKING:
    from targets import Target

    Load = Callable[[], Mapping[str, Target]]

KEPT = Path("out/fuzz")
ENGINES = ("mutator", "atheris")
# Of inputs whose failures are alike.
_MOST_KEPT = 3
_LONGEST_BYTES = 64 << 10
# A target that has so many kinds of failures need not be fuzzed on.
_MOST_FAILURES = 50


@dataclass
class Tally:
    """What came of the executions of one target.

    :param executions: How many have begun.
    :param cpu_s: What they took, with all that belongs to them.
    :param slowest_s: What the slowest took.
    :param peak_bytes: The most memory that the process had.
    :param outcomes: How often each outcome came.
    """

    executions: int = 0
    cpu_s: float = 0.0
    slowest_s: float = 0.0
    peak_bytes: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Add what another process did."""
        self.executions += other.executions
        self.cpu_s += other.cpu_s
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        self.outcomes = dict(
            Counter(self.outcomes) + Counter(other.outcomes)
        )


@dataclass(frozen=True)
class Order:
    """What is wanted of the workers.

    :param seed: Makes other inputs.
    :param executions: The most of each target; None is no limit.
    :param seconds: How long each target takes; None is no limit.
    :param jobs: The number of processes at a time.
    :param kept: The folder for inputs that failed.
    """

    seed: int
    executions: int | None
    seconds: float | None
    jobs: int
    kept: Path


class Worker:
    """Gives inputs to one target, in a process of its own.

    :param name: The name of the target.
    :param target: The target.
    :param order: What is wanted.
    :param first: The number of the first execution.
    :param until_s: When to end, by the monotonic clock.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        order: Order,
        engine: str,
        first: int = 0,
        until_s: float = float("inf"),
    ) -> None:
        self.name, self.target, self.order = name, target, order
        self.engine, self.first, self.until_s = engine, first, until_s
        self.folder = Path(tempfile.mkdtemp(dir=_memory()))
        self.input = self.folder / target.name
        # It outlives the process, which can be killed at any time.
        self._told = os.open(
            self.folder / "tally", os.O_RDWR | os.O_CREAT
        )
        self._tally = Tally()
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            self._work()

    def tally(self) -> Tally:
        """Return what it did, once it has ended, and remove its files."""
        text = os.pread(self._told, 1 << 20, 0).decode()
        os.close(self._told)
        if not text:
            return Tally()
        found: dict[str, Any] = json.JSONDecoder().raw_decode(text)[0]
        return Tally(**found)

    def _work(self) -> NoReturn:
        status = 2
        try:
            with (self.folder / "said").open("wb") as said:
                os.dup2(said.fileno(), 2)
            seeds_folder = self.folder / "seeds"
            seeds_folder.mkdir()
            # Whatever a target makes is gone in the end.
            tempfile.tempdir = str(self.folder)
            for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
                os.environ[name] = str(self.folder)
            seeds = self.target.seeds(seeds_folder)
            assert seeds, "there are no seeds"
            from limits import limit_memory

            limit_memory()
            if self.engine == "atheris":
                self._guided(seeds)
            else:
                self._mutated(seeds)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _mutated(self, seeds: Sequence[bytes]) -> None:
        number = self.first
        most = self.order.executions
        while time.monotonic() < self.until_s:
            if most is not None and number >= most:
                break
            draw = random.Random(f"{self.order.seed} {self.name} {number}")
            data = self.target.damage(
                draw, draw.choice(seeds), draw.choice(seeds)
            )
            self._execute(data)
            number += 1

    def _guided(self, seeds: Sequence[bytes]) -> None:
        import atheris

        corpus = self.folder / "corpus"
        corpus.mkdir()
        for number, data in enumerate(seeds):
            (corpus / str(number)).write_bytes(data)

        def damage(data: bytes, most: int, seed: int) -> bytes:
            draw = random.Random(seed)
            if draw.random() < 0.5:
                return bytes(atheris.Mutate(data, len(data)))
            return self.target.damage(draw, data, draw.choice(seeds))[:most]

        arguments = [
            "fuzz", f"-seed={self.order.seed + self.first + 1}",
            "-timeout=0", "-rss_limit_mb=0", f"-max_len={_LONGEST_BYTES}",
            "-verbosity=0", "-print_final_stats=0",
        ]  # fmt: skip
        if self.order.executions is not None:
            left = self.order.executions - self.first
            arguments.append(f"-runs={max(1, left)}")
        if self.order.seconds is not None:
            left_s = self.until_s - time.monotonic()
            arguments.append(f"-max_total_time={max(1, int(left_s))}")
        atheris.Setup(
            [*arguments, str(corpus)], self._execute, custom_mutator=damage
        )
        atheris.Fuzz()

    def _execute(self, data: bytes) -> None:
        import resource

        from limits import outcome_of

        self.input.write_bytes(data)
        tally = self._tally
        tally.executions += 1
        self._tell()
        begin_s = _cpu_s()
        outcome = outcome_of(self.target.run, self.input)
        end_s = _cpu_s()
        tally.slowest_s = max(tally.slowest_s, end_s - begin_s)
        tally.cpu_s = end_s
        tally.outcomes[outcome] = tally.outcomes.get(outcome, 0) + 1
        usage = resource.getrusage(resource.RUSAGE_SELF)
        tally.peak_bytes = usage.ru_maxrss << 10
        if outcome.startswith("failure"):
            keep(self.order.kept, self.name, data, outcome)
        self._tell()

    def _tell(self) -> None:
        os.pwrite(self._told, json.dumps(asdict(self._tally)).encode(), 0)


def _cpu_s() -> float:
    return sum(os.times()[:4])


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def keep(folder: Path, name: str, data: bytes, outcome: str) -> None:
    """Keep an input that failed, unless there are enough like it.

    :param folder: Where.
    :param name: The name of the target.
    :param data: The input.
    :param outcome: What came of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = hashlib.sha256(outcome.encode()).hexdigest()[:6]
    alike = f"{name}-{kind}-*"
    digest = hashlib.sha256(data).hexdigest()[:12]
    path = folder / alike.replace("*", digest)
    if path.exists() or len([*folder.glob(alike)]) >= _MOST_KEPT:
        return
    path.write_bytes(data)
    print(
        f"{outcome}\n  {sys.executable} {sys.argv[0]} replay {name} {path}",
        flush=True,
    )


def session(
    engine: str, load: Load, names: Sequence[str], order: Order
) -> int:
    """Let one engine give inputs to the targets; return the exit code."""
    if engine == "atheris":
        import atheris

        # It names each module; and it breaks this one, in which a generator
        # calls others.
        with (
            open(os.devnull, "w") as nothing,
            redirect_stderr(nothing),
            atheris.instrument_imports(
                include=["vfio_p2p"], exclude=["vfio_p2p.scenario.positions"]
            ),
        ):
            targets = load()
    else:
        targets = load()
    from limits import ended

    waiting = list(names or targets)
    tallies = {name: Tally() for name in waiting}
    running: dict[int, Worker] = {}
    while waiting or running:
        while waiting and len(running) < order.jobs:
            name = waiting.pop(0)
            until_s = float("inf")
            if order.seconds is not None:
                until_s = time.monotonic() + order.seconds
            worker = Worker(
                name, targets[name], order, engine, until_s=until_s
            )
            running[worker.pid] = worker
        pid, status = os.wait()
        if pid not in running:
            continue
        worker = running.pop(pid)
        tally = worker.tally()
        if status:
            # It is empty if the kernel ended the process.
            said = (worker.folder / "said").read_text(errors="replace")
            print(said, end="", flush=True)
        if status and not tally.executions:
            tally.outcomes["failure: it did not begin"] = 1
        elif status:
            outcome = ended(status)
            tally.outcomes[outcome] = 1
            data = worker.input.read_bytes()
            keep(order.kept, worker.name, data, outcome)
        whole = tallies[worker.name]
        whole.add(tally)
        shutil.rmtree(worker.folder, ignore_errors=True)
        if status and tally.executions and _wanted(whole, worker):
            # The executions behind the one that ended it.
            again = Worker(
                worker.name,
                worker.target,
                order,
                engine,
                whole.executions,
                worker.until_s,
            )
            running[again.pid] = again
        else:
            show(engine, worker.name, whole)
    every = [x for tally in tallies.values() for x in tally.outcomes]
    return int(any(x.startswith("failure") for x in every))


def _wanted(tally: Tally, worker: Worker) -> bool:
    """Whether a worker that was ended is to go on."""
    most = worker.order.executions
    failures = sum(
        n for x, n in tally.outcomes.items() if x.startswith("failure")
    )
    return (
        failures < _MOST_FAILURES
        and time.monotonic() < worker.until_s
        and (most is None or tally.executions < most)
    )


def show(engine: str, name: str, tally: Tally) -> None:
    """Print what came of a target's executions."""
    rate = tally.executions / (tally.cpu_s or 1)
    print(
        f"{name} ({engine}): {tally.executions} executions, {rate:.0f} per "
        f"second of CPU time, the slowest {tally.slowest_s:.2f} s, at most "
        f"{tally.peak_bytes / 1e6:.0f} MB"
    )
    for outcome, count in sorted(tally.outcomes.items()):
        print(f"{count:10} {outcome}")
    sys.stdout.flush()


def replay(arguments: Sequence[str], load: Load) -> int:
    """Give one file to a target, and show what comes of it."""
    if len(arguments) != 2:
        raise SystemExit("Usage: fuzz.py replay TARGET FILE")
    name, path = arguments
    target = load()[name]
    from limits import FAILURE, limit_memory, outcome_of

    limit_memory()
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        # Some ways in depend on how a file is called.
        copy = Path(folder, target.name)
        shutil.copyfile(path, copy)
        begin_s = _cpu_s()
        outcome = outcome_of(target.run, copy, show=True)
        print(f"{outcome}, {_cpu_s() - begin_s:.2f} s")
    return int(outcome.startswith(FAILURE))


def _targets() -> Mapping[str, Target]:
    from targets import TARGETS

    return TARGETS


def main(
    argv: Sequence[str] | None = None, load: Load = _targets
) -> int:
    """Fuzz the targets, or replay one input; return the exit code.

    :param argv: The arguments.
    :param load: Imports the targets.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["replay"]:
        return replay(arguments[1:], load)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--minutes", type=float, help="for all targets and engines together"
    )
    parser.add_argument(
        "--executions",
        type=int,
        help="of each target by each engine; 1000 if no time is given",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", metavar="TARGET", action="append", default=[]
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        help="only this one; by default both, if atheris is installed",
    )
    parser.add_argument("--keep", type=Path, default=KEPT, metavar="DIR")
    args = parser.parse_args(arguments)
    engines = [args.engine] if args.engine else list(ENGINES)
    if not args.engine and importlib.util.find_spec("atheris") is None:
        print("atheris is not installed; the mutator has all of the time")
        engines = ["mutator"]
    seconds = None
    if args.minutes is not None:
        count = len(engines) * len(args.only or _names(load))
        seconds = args.minutes * 60 * args.jobs / count
    elif args.executions is None:
        args.executions = 1000
    order = Order(args.seed, args.executions, seconds, args.jobs, args.keep)
    codes = [
        _apart(lambda x=x: session(x, load, args.only, order))  # type: ignore[misc]
        for x in engines
    ]
    return max(codes)


def _names(load: Load) -> Sequence[str]:
    """Return the names of the targets, and import nothing."""
    reader, writer = os.pipe()

    def tell() -> int:
        os.write(writer, "\n".join(load()).encode())
        return 0

    if _apart(tell):
        raise SystemExit("the targets cannot be imported")
    os.close(writer)
    with open(reader) as file:
        return file.read().splitlines()


def _apart(work: Callable[[], int]) -> int:
    """Do something in another process; return its exit code."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        code = 2
        try:
            code = work()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
