# SPDX-License-Identifier: GPL-2.0-or-later
"""Many sealed runs, as many at a time as there are cores, each judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.assess import Assessment, assess
from harness.bundle.read import Bundle, open_bundle
from harness.errors import HarnessError, InputError, UsageError
from harness.progress import Progress, silent
from harness.scenario.model import Scenario
from harness.testbed.load import Program
from harness.testbed.sealed import Testbed
from harness.verdict import Verdict


@dataclass(frozen=True)
class Cell:
    """One run to make.

    :param program: The QEMU under test.
    :param scenario: What is to happen to it.
    :param seed: Fixes the rest.
    :param suffix: Tells its bundle from one of another scenario that has
        the same name.
    """

    program: Program
    scenario: Scenario
    seed: int
    suffix: str = ""

    @property
    def name(self) -> str:
        """Name of its bundle."""
        name = f"{self.program.variant}-{self.scenario.name}{self.suffix}"
        return f"{name}-s{self.seed}"


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
    testbed: Testbed,
    cells: Sequence[Cell],
    out: Path,
    jobs: int,
    progress: Progress = silent,
    *,
    rerun: bool = False,
    record: Callable[[Bundle], None] = lambda bundle: None,
) -> list[Run]:
    """Run and judge every cell.

    :param testbed: Where they run.
    :param cells: What to run.
    :param out: Folder for the bundles.
    :param jobs: How many at a time.
    :param progress: Told when one is done.
    :param rerun: Run again what was run before.
    :param record: Given each bundle as soon as it is there.
    :return: One for each cell, in the same order; what the testbed could
        not run has the verdict ERROR.
    :raise InputError: When none of them could run, e.g. a full disk.
    """
    room = asyncio.Semaphore(jobs)
    done = 0

    async def one(cell: Cell) -> Run:
        nonlocal done
        async with room:
            run = await _run(testbed, cell, out, rerun, record)
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
    progress(0, len(cells), "sealed runs")
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(cell)) for cell in cells]
    except BaseExceptionGroup as several:
        bad_input, rest = several.split(InputError)
        if rest or not bad_input:
            raise
        # They all fail alike; the first says it. Not by except*: in
        # Python 3.11.2, that of Debian 12, what it raises is a group again.
        raise _first(bad_input) from None
    return [task.result() for task in tasks]


def _first(group: BaseExceptionGroup[InputError]) -> InputError:
    err = group.exceptions[0]
    while isinstance(err, BaseExceptionGroup):
        err = err.exceptions[0]
    return err


async def _run(
    testbed: Testbed,
    cell: Cell,
    out: Path,
    rerun: bool,
    record: Callable[[Bundle], None],
) -> Run:
    bundle = out / cell.name
    try:
        digest = await testbed.run(
            cell.program, cell.scenario, cell.seed, bundle, rerun=rerun
        )
        made = open_bundle(bundle)
        assessment = assess(made)
        record(made)
    except InputError:
        raise
    except OSError as err:
        raise InputError(
            f"{err.filename or bundle}: {err.strerror or err}",
            "check the path and its permissions",
        ) from err
    except HarnessError as err:
        notes = tuple(text for text in (err.what, err.hint) if text)
        assessment = Assessment(Verdict.ERROR, "not run", notes=notes)
        return Run(cell, assessment, None, "")
    return Run(cell, assessment, bundle, digest)
