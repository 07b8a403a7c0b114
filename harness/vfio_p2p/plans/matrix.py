# SPDX-License-Identifier: GPL-2.0-or-later
"""Run many jobs at a place, several at a time, and judge each run."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vfio_p2p.bundle.manifest import variant_of, version_of
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
from vfio_p2p.plans.record import Record, keep_nothing
from vfio_p2p.progress import Progress, silent
from vfio_p2p.report.run import Run
from vfio_p2p.report.runs import failed_run, run_of
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.scenario.profile import latencies
from vfio_p2p.scenario.step import Wait
from vfio_p2p.tells import Tells
from vfio_p2p.verdict.assess import Assessment, assess
from vfio_p2p.verdict.reading import read_run

# Says why a job is not run; an empty text means that it can be.
Refuse = Callable[[Job], str]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One run to be made.

    :param job: What is run.
    :param prefix: Distinguishes its bundle from that of a variant with the
        same name of another QEMU.
    :param to_prefix: The same for the destination's variant.
    :param suffix: Distinguishes its bundle from that of another scenario
        with the same name.
    """

    job: Job
    prefix: str = ""
    to_prefix: str = ""
    suffix: str = ""

    @property
    def variant(self) -> str:
        """The name of the source's tree."""
        return self.job.source.variant

    @property
    def name(self) -> str:
        """The name of its bundle."""
        job = self.job
        tree = f"{self.prefix}{self.variant}"
        if job.source != job.destination:
            tree += f"-to-{self.to_prefix}{job.destination.variant}"
        return f"{tree}-{job.scenario.name}{self.suffix}-s{job.seed}"


@dataclass(frozen=True)
class CellResult:
    """One run that was made, and the verdict on it.

    :param cell: What was run.
    :param assessment: The verdict.
    :param run: The run as reports show it.
    :param bundle: The path of the bundle; None when the infrastructure
        failed.
    """

    cell: Cell
    assessment: Assessment
    run: Run
    bundle: Path | None = None

    @classmethod
    def of_bundle(cls, cell: Cell, bundle: Bundle) -> CellResult:
        """Judge the bundle of a cell.

        :param cell: What was run.
        :param bundle: What the run left.
        """
        reading = read_run(bundle)
        found = assess(bundle, run=reading)
        run = run_of(bundle, found, reading=reading)
        return cls(cell, found, run, bundle.path)

    @classmethod
    def without_run(
        cls, cell: Cell, found: Assessment, bundle: Bundle | None = None
    ) -> CellResult:
        """Make the result of a cell that could not be run or judged.

        :param cell: What was to be run.
        :param found: The reason.
        :param bundle: What the run left, if it left anything.
        """
        job = cell.job
        run = failed_run(
            variant_of(job.source, job.destination),
            job.scenario.name,
            job.seed,
            found,
            latencies=latencies(job.scenario),
            qemu=version_of(job.source, job.destination),
            machine=job.scenario.machine,
        )
        if bundle is None:
            return cls(cell, found, run)
        run = msgspec.structs.replace(
            run, bundle=str(bundle.path), digest=bundle.digest
        )
        return cls(cell, found, run, bundle.path)


def _refuse_nothing(_: Job) -> str:
    return ""


async def run_matrix(
    place: Place,
    cells: Sequence[Cell],
    out: Path,
    jobs: int,
    progress: Progress = silent,
    record: Record = keep_nothing,
    refuse: Refuse = _refuse_nothing,
) -> list[CellResult]:
    """Run and judge every cell.

    :param place: Where they run.
    :param cells: What is run.
    :param out: The folder for the bundles.
    :param jobs: How many run at a time, if the place takes as many.
    :param progress: Told when a run is done.
    :param record: Given each bundle that was judged, as soon as it is there,
        and its verdict.
    :param refuse: Says what the QEMUs of a job cannot do.
    :return: One result for each cell, in the same order.  A cell that could
        not be run, judged or recorded has the verdict ERROR.
    :raise InputError: When none of them could run, e.g. on a full disk.
    :raise UsageError: When a bundle would replace something else.
    """
    if place.capacity is not None:
        jobs = min(jobs, place.capacity)
    room = asyncio.Semaphore(jobs)
    what = f"{place.name} runs"
    done = 0

    async def one(cell: Cell) -> CellResult:
        nonlocal done
        async with room:
            if why := _refusal(place, cell.job) or refuse(cell.job):
                result = CellResult.without_run(cell, _skipped(why))
            else:
                result = await _run(place, cell, out, record)
        done += 1
        progress(done, len(cells), what)
        return result

    _check_names(cells, out)
    progress(0, len(cells), what)
    try:
        async with place.opened(), asyncio.TaskGroup() as group:
            tasks = {
                number: group.create_task(one(cells[number]))
                for number in _order(cells, exact=place.exact)
            }
    except BaseExceptionGroup as several:
        bad_input, rest = several.split(InputError)
        if rest or not bad_input:
            raise
        # All of them have the same cause, so the first one is raised.
        # "except*" cannot do this: in Python 3.11.2, that of Debian 12, it
        # raises a group again.
        raise _first(bad_input) from None
    return [tasks[number].result() for number in range(len(cells))]


def _order(cells: Sequence[Cell], *, exact: bool) -> list[int]:
    """Return the numbers of the cells in the order in which to run them."""
    numbers = range(len(cells))
    if exact:
        # The long runs go first, so that none is left to end alone.
        return sorted(numbers, key=lambda x: -_effort(cells[x]))
    # Where times are measured, the kinds of runs take turns, so that a
    # machine that gets slower does so for all of them.
    return sorted(numbers, key=lambda x: cells[x].job.seed)


def _refusal(place: Place, job: Job) -> str:
    """Say why a job is not run; empty if it can be."""
    for program in (job.source, job.destination):
        if why := job.scenario.not_for(program.version):
            return why
        if program.tells is not Tells.LOG and _waits_for_a_line(job.scenario):
            return (
                f"it waits for a line of the log, and {program.version} was "
                "built without the trace backend 'log'"
            )
    return place.refusal(job.scenario)


def _waits_for_a_line(scenario: Scenario) -> bool:
    return any(isinstance(x, Wait) and x.trace for x in scenario.steps)


def _skipped(why: str) -> Assessment:
    """Make the verdict on a run that is not made."""
    return Assessment(Verdict.SKIP, "skipped", notes=(f"not run: {why}",))


def _check_names(cells: Sequence[Cell], out: Path) -> None:
    names: set[str] = set()
    for cell in cells:
        if cell.name in names:
            raise UsageError(
                f"two runs would be named {cell.name}",
                "Give each variant, mutant and scenario a name of its own.",
            )
        names.add(cell.name)
        check_replaceable(out / cell.name)


def _effort(cell: Cell) -> int:
    """Guess how long a run takes, to be compared with others."""
    scenario = cell.job.scenario
    return len(scenario.each_device()) * len(scenario.steps)


def _first(group: BaseExceptionGroup[InputError]) -> InputError:
    err = group.exceptions[0]
    while isinstance(err, BaseExceptionGroup):
        err = err.exceptions[0]
    return err


async def _run(
    place: Place, cell: Cell, out: Path, record: Record
) -> CellResult:
    path = out / cell.name
    try:
        bundle = await place.run(cell.job, path)
    except BundleError as err:
        # This is bad input, but vfio-p2p has made it itself.
        return CellResult.without_run(cell, _unknown("not run", err))
    except InputError:
        raise
    except OSError as err:
        raise InputError(
            f"{err.filename or path}: {err.strerror or err}",
            "Check the path and its permissions.",
        ) from err
    except Exception as err:
        return CellResult.without_run(cell, _unknown("not run", err))
    result = judged(cell, bundle)
    try:
        record(bundle, result.assessment.verdict)
    except (HistoryError, NoSpaceError):
        # Every other run would meet the same error.
        raise
    except Exception as err:
        found = _unknown("not recorded", err)
        return CellResult.without_run(cell, found, bundle)
    return result


def judged(cell: Cell, bundle: Bundle) -> CellResult:
    """Judge the bundle of a cell; an error is a verdict as well.

    :param cell: What was run.
    :param bundle: What the run left.
    """
    try:
        return CellResult.of_bundle(cell, bundle)
    except Exception as err:
        # This includes unreadable logs, since vfio-p2p has made them itself.
        found = _unknown("not judged", err)
        return CellResult.without_run(cell, found, bundle)


def _unknown(summary: str, err: Exception) -> Assessment:
    """Turn an error of one run into a verdict, so that others go on."""
    if isinstance(err, HarnessError):
        notes = tuple(text for text in (err.what, err.hint) if text)
    else:
        where = traceback.extract_tb(err.__traceback__)[-1]
        notes = (
            f"a mistake in vfio-p2p: {err!r}",
            f"in {where.filename}, line {where.lineno}; please report it",
        )
        _LOG.error("%s", summary, exc_info=err)
    return Assessment(Verdict.ERROR, summary, notes=notes)
