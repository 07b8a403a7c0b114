# SPDX-License-Identifier: GPL-2.0-or-later
"""Build trees, run them, and write the report on their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vfio_p2p.errors import UsageError
from vfio_p2p.machine.files import write_whole
from vfio_p2p.places import Job
from vfio_p2p.plans.devices import check_qemu
from vfio_p2p.plans.installed import AsItIs, UnderTest
from vfio_p2p.plans.lacking import NO_FILES, check_abilities
from vfio_p2p.plans.matrix import Cell, CellResult
from vfio_p2p.plans.setting import Setting
from vfio_p2p.plans.sources import Chosen, build_all
from vfio_p2p.plans.workshop import Workshop
from vfio_p2p.progress import Reporter
from vfio_p2p.qemu import Build
from vfio_p2p.report.document import Document, to_json
from vfio_p2p.report.formats import render
from vfio_p2p.report.p2p import gated
from vfio_p2p.report.shard import SHARD
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Variant

JSON = "report.json"
JUNIT = "junit.xml"

NONE_AS_IT_IS: Mapping[str, AsItIs] = {}


@dataclass(frozen=True)
class Wanted:
    """One run of a tree that is yet to be built.

    :param variant: The tree.
    :param scenario: What happens in the run.
    :param seed: Its seed.
    :param suffix: See `vfio_p2p.plans.matrix.Cell`.
    :param file: The name or file of the scenario, for messages.
    """

    variant: Variant
    scenario: Scenario
    seed: int
    suffix: str = ""
    file: str = ""


@dataclass(frozen=True)
class TreeRuns:
    """The runs of trees of one source.

    :param results: One result for each run that was wanted, in that order.
    :param version: The version that QEMU reports.
    """

    results: tuple[CellResult, ...]
    version: str

    def gated(self, most_p2p_ms: float | None) -> TreeRuns:
        """Let runs fail whose devices were too slow into a P2P state.

        :param most_p2p_ms: How long such an arc may take, in milliseconds;
            None allows any time.
        """
        if most_p2p_ms is None:
            return self
        limit_ns = most_p2p_ms * 1e6
        return replace(
            self,
            results=tuple(
                replace(x, run=gated(x.run, limit_ns)) for x in self.results
            ),
        )


def job_of(
    build: Build, scenario: Scenario, seed: int, workshop: Workshop
) -> Job:
    """Make the job of one build on both sides.

    :param build: A build from the store.
    :param scenario: What happens in the run.
    :param seed: Its seed.
    :param workshop: Makes the build known to the places.
    """
    return Job.of(workshop.program(build), scenario, seed)


def jobs_of(
    chosen: Chosen | None,
    as_they_are: Mapping[str, AsItIs],
    wanted: Sequence[Wanted],
    reporter: Reporter,
    workshop: Workshop,
) -> list[Job]:
    """Build every tree, and make a job for each run.

    :param chosen: The source of the trees; None if nothing is built.
    :param as_they_are: The QEMUs that are not built, by their variants.
    :param wanted: The runs.
    :param reporter: Told how far each build is.
    :param workshop: Builds.
    :raise BuildError: When a tree does not build.
    :raise InputError: When a QEMU does not know what a scenario names.
    """
    builds: dict[str, Build] = {}
    if chosen is not None:
        trees = {
            x.variant.name: x.variant
            for x in wanted
            if x.variant.name not in as_they_are
        }
        for build in build_all(
            chosen.source, list(trees.values()), reporter, workshop
        ):
            builds[build.variant] = build
    jobs = [
        as_they_are[one.variant.name].job(one.scenario, one.seed)
        if one.variant.name in as_they_are
        else job_of(
            builds[one.variant.name], one.scenario, one.seed, workshop
        )
        for one in wanted
    ]
    files = {x.scenario.name: x.file for x in wanted if x.file}
    check_abilities(jobs, workshop, files)
    return jobs


def run_trees(
    chosen: Chosen | None,
    wanted: Sequence[Wanted],
    setting: Setting,
    reporter: Reporter,
    workshop: Workshop,
    as_they_are: Mapping[str, AsItIs] = NONE_AS_IT_IS,
) -> TreeRuns:
    """Build every tree and make every run, once `Workshop.check` passed.

    :param chosen: The source of the trees, and its base; None if nothing is
        built.
    :param wanted: The runs.
    :param setting: Where and how they are made.
    :param reporter: Told how far the work is.
    :param workshop: Builds and runs.
    :param as_they_are: The QEMUs that are not built, by their variants.
    :raise UsageError: When there is nothing to run.
    """
    if not wanted:
        raise UsageError(
            "there is nothing to run",
            "Name at least one variant and one scenario.",
        )
    if chosen is not None:
        check_qemu(setting.driver, chosen.source.version)
    jobs = jobs_of(chosen, as_they_are, wanted, reporter, workshop)
    cells = [
        Cell(job, suffix=one.suffix)
        for job, one in zip(jobs, wanted, strict=True)
    ]
    results = workshop.run(cells, setting, reporter)
    return TreeRuns(tuple(results), jobs[0].source.version)


def judge_trees(
    chosen: Chosen | None,
    trees: Sequence[tuple[Variant, Scenario]],
    setting: Setting,
    reporter: Reporter,
    workshop: Workshop,
    as_they_are: Mapping[str, AsItIs] = NONE_AS_IT_IS,
    files: Mapping[str, str] = NO_FILES,
) -> TreeRuns:
    """Run every tree with every seed of a setting.

    Parameters are those of `run_trees`, but for:

    :param trees: Which variant runs which scenario.
    :param files: The name or file of each scenario, by its name.
    """
    wanted = [
        Wanted(tree, scenario, seed, file=files.get(scenario.name, ""))
        for tree, scenario in trees
        for seed in setting.every_seed
    ]
    return run_trees(
        chosen, wanted, setting, reporter, workshop, as_they_are
    )


def document_of(subject: UnderTest, made: TreeRuns) -> Document:
    """Report on runs.

    :param subject: Their QEMUs.
    :param made: The runs.
    """
    return Document.of(
        tuple(result.run for result in made.results),
        qemu=made.version,
        base=subject.base,
        origin=subject.origin,
    )


def forget_reports(folder: Path) -> None:
    """Remove older reports, which are not to look like those of this run.

    :param folder: The folder that `write_reports` writes to.
    """
    for name in (JSON, JUNIT, SHARD):
        (folder / name).unlink(missing_ok=True)


def write_reports(folder: Path, document: Document) -> None:
    """Write a report for programs, and the same for JUnit.

    :param folder: The folder.
    :param document: The report.
    """
    write_whole(folder / JSON, to_json(document).encode())
    write_whole(folder / JUNIT, render("junit", document).encode())
