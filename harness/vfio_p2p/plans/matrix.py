# SPDX-License-Identifier: GPL-2.0-or-later
"""Many sealed runs, as many at a time as there are cores, each judged."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.bundle.read import Bundle
from vfio_p2p.bundle.write import check_replaceable
from vfio_p2p.errors import (
    BundleError,
    HarnessError,
    HistoryError,
    InputError,
    NoSpaceError,
    UsageError,
)
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.places import Job, Place
from vfio_p2p.progress import Progress, silent
from vfio_p2p.qemu.program import Program
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.verdict.assess import Assessment, assess


@dataclass(frozen=True)
class Cell:
    """One run to make.

    :param program: The QEMU under test.
    :param scenario: What is to happen to it.
    :param seed: Fixes the rest.
    :param prefix: Tells its bundle from one of another QEMU's tree that has
        the same name.
    :param suffix: Tells its bundle from one of another scenario that has
        the same name.
    """

    program: Program
    scenario: Scenario
    seed: int
    prefix: str = ""
    suffix: str = ""

    @property
    def name(self) -> str:
        """Name of its bundle."""
        tree = f"{self.prefix}{self.program.what.variant}"
        return f"{tree}-{self.scenario.name}{self.suffix}-s{self.seed}"

    @property
    def job(self) -> Job:
        """What a place is told."""
        return Job.of(self.program.what, self.scenario, self.seed)


@dataclass(frozen=True)
class Run:
    """One run made, and what came of it.

    :param cell: What was run.
    :param assessment: What came of it.
    :param bundle: Its bundle; None if the infrastructure failed.
    :param digest: The bundle's digest, empty without one.
    """

    cell: Cell
    assessment: Assessment
    bundle: Path | None
    digest: str


async def run_matrix(
    place: Place,
    cells: Sequence[Cell],
    out: Path,
    jobs: int,
    progress: Progress = silent,
    *,
    record: Callable[[Bundle, Verdict], None] = lambda bundle, verdict: None,
) -> list[Run]:
    """Run and judge every cell.

    :param place: Where they run.
    :param cells: What to run.
    :param out: Folder for the bundles.
    :param jobs: How many at a time.
    :param progress: Told when one is done.
    :param record: Given each bundle that was judged, as soon as it is
        there, and its verdict.
    :return: One for each cell, in the same order; what could not be run,
        not be judged or not be recorded, has the verdict ERROR.
    :raise InputError: When none of them could run, e.g. a full disk.
    :raise UsageError: When a bundle would replace something else.
    """
    room = asyncio.Semaphore(jobs)
    done = 0

    async def one(cell: Cell) -> Run:
        nonlocal done
        async with room:
            run = await _run(place, cell, out, record)
        done += 1
        progress(done, len(cells), "sealed runs")
        return run

    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"two runs would be named {name}",
                "give each variant, mutant and scenario a name of its own",
            )
        check_replaceable(out / name)
    progress(0, len(cells), "sealed runs")
    # The long ones first: none is left to end alone.
    order = sorted(range(len(cells)), key=lambda x: -_effort(cells[x]))
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {
                number: group.create_task(one(cells[number]))
                for number in order
            }
    except BaseExceptionGroup as several:
        bad_input, rest = several.split(InputError)
        if rest or not bad_input:
            raise
        # They all fail alike; the first says it. Not by except*: in
        # Python 3.11.2, that of Debian 12, what it raises is a group again.
        raise _first(bad_input) from None
    return [tasks[number].result() for number in range(len(cells))]


def _effort(cell: Cell) -> int:
    """A guess at how long a run takes, to be compared with others."""
    return len(cell.scenario.each_device()) * len(cell.scenario.steps)


def _first(group: BaseExceptionGroup[InputError]) -> InputError:
    err = group.exceptions[0]
    while isinstance(err, BaseExceptionGroup):
        err = err.exceptions[0]
    return err


async def _run(
    place: Place,
    cell: Cell,
    out: Path,
    record: Callable[[Bundle, Verdict], None],
) -> Run:
    bundle = out / cell.name
    try:
        made = await place.run(cell.job, bundle)
    except BundleError as err:
        # Bad input, but for the fact that it is our own.
        return Run(cell, _not_known("not run", err), None, "")
    except InputError:
        raise
    except OSError as err:
        raise InputError(
            f"{err.filename or bundle}: {err.strerror or err}",
            "check the path and its permissions",
        ) from err
    except Exception as err:
        return Run(cell, _not_known("not run", err), None, "")
    try:
        assessment = assess(made)
    except Exception as err:
        # Also of a log that cannot be read: it is of our own making.
        return Run(cell, _not_known("not judged", err), bundle, made.digest)
    try:
        record(made, assessment.verdict)
    except (HistoryError, NoSpaceError):
        # It would be the same for every other run.
        raise
    except Exception as err:
        return Run(cell, _not_known("not recorded", err), bundle, made.digest)
    return Run(cell, assessment, bundle, made.digest)


def _not_known(summary: str, err: Exception) -> Assessment:
    """Trouble with one run, which is no reason to stop the others."""
    if isinstance(err, HarnessError):
        notes = tuple(text for text in (err.what, err.hint) if text)
    else:
        where = traceback.extract_tb(err.__traceback__)[-1]
        notes = (
            f"a mistake of ours: {err!r}",
            f"in {where.filename}, line {where.lineno}; please report it",
        )
    return Assessment(Verdict.ERROR, summary, notes=notes)
