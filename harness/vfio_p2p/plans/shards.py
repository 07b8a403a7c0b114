# SPDX-License-Identifier: GPL-2.0-or-later
"""Divide the runs of a request among machines, and judge them together.

Each machine makes the runs of one shard, and builds only what these need; see
`ShardWorkshop`.  It judges nothing, since some verdicts need all runs: a rule
that nothing breaks, or a mutant and its control.  Then
`vfio_p2p.plans.collected` serves the runs of all shards to the same request,
which makes the document that one machine would have made.

A run's shard depends on the name of its bundle alone, so that a new scenario
moves no other run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.errors import BuildError, UsageError
from vfio_p2p.machine.files import write_whole
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.places import Job
from vfio_p2p.plans.around import Around, unbuilt
from vfio_p2p.plans.lacking import check_abilities
from vfio_p2p.plans.matrix import Cell, CellResult
from vfio_p2p.plans.runs import forget_reports
from vfio_p2p.plans.setting import Setting
from vfio_p2p.plans.workshop import Workshop
from vfio_p2p.progress import Progress, Reporter
from vfio_p2p.qemu import NO_CHECKS, Build, Checks, Source
from vfio_p2p.qemu.abilities import Abilities
from vfio_p2p.report.shard import MOST, SHARD, Listing, Unmade
from vfio_p2p.series import Variant
from vfio_p2p.verdict.assess import Assessment

_ELSEWHERE = Assessment(Verdict.SKIP, "of another shard")


@dataclass(frozen=True)
class Shard:
    """One of the parts that the runs of a request are divided into.

    :param number: Its number, from 1.
    :param count: How many there are.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read the name of a shard.

        :param text: ``I/N``.
        :raise UsageError: When there is no such shard.
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if found:
            shard = cls(int(found[1]), int(found[2]))
            if 1 <= shard.number <= shard.count <= MOST:
                return shard
        raise UsageError(
            f"no shard {text!r}",
            f"Give I/N, as in 1/4: I from 1 to N, and N up to {MOST}.",
        )

    def has(self, name: str) -> bool:
        """Return whether a run is of this shard.

        :param name: The name of its bundle.
        """
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.count == (
            self.number - 1
        )


class ShardWorkshop(Around):
    """Makes the runs of one shard, and builds only what these need.

    It says of the other runs that they were not made, so its results do not
    make a verdict.

    :param inner: The workshop that builds and runs.
    :param shard: The shard.
    :param reporter: Told of all work that is really done.
    """

    def __init__(
        self, inner: Workshop, shard: Shard, reporter: Reporter
    ) -> None:
        super().__init__(inner)
        self._shard = shard
        self._reporter = reporter
        # By the digests of placeholders.
        self._later: dict[str, tuple[Source, Variant, Checks]] = {}
        self._built: dict[str, ProgramInput] = {}
        self._failed: dict[str, BuildError] = {}
        # The digests of what could not be built, by the names of runs.
        self._not_built: dict[str, str] = {}
        #: The results of the shard's runs.
        self.made: list[CellResult] = []
        #: The number of all runs.
        self.count = 0

    def find_source(
        self,
        path: Path | None,
        release: str,
        progress: Progress,
        *,
        refresh: bool = False,
    ) -> Source:
        """See `Workshop.find_source`."""
        task = self._reporter.task("source")
        found = self.inner.find_source(path, release, task, refresh=refresh)
        task.end(found.origin)
        return found

    def build(
        self,
        source: Source,
        variant: Variant,
        progress: Progress,
        checks: Checks = NO_CHECKS,
    ) -> Build:
        """See that the patches apply; `run` builds.

        :raise PatchError: When they do not.
        """
        self.inner.check_patches(source, variant.patches)
        found = unbuilt(source, variant)
        self._later[placeholder(found).sha256] = source, variant, checks
        return found

    def program(self, build: Build) -> ProgramInput:
        """Name what is not built yet."""
        return placeholder(build)

    def abilities(
        self, program: ProgramInput, types: Iterable[str]
    ) -> Abilities | None:
        """Ask a QEMU that is there; see `Workshop.abilities`."""
        if program.sha256 in self._later:
            return None
        return self.inner.abilities(program, types)

    def run(
        self, cells: Sequence[Cell], setting: Setting, reporter: Reporter
    ) -> list[CellResult]:
        """Make the runs of the shard; see `Workshop.run`.

        A tree that does not build makes its own runs errors.
        """
        self.count += len(cells)
        mine = []
        made: list[CellResult] = []
        for cell in cells:
            if not self._shard.has(cell.name):
                continue
            try:
                mine.append(replace(cell, job=self._real(cell.job)))
            except BuildError as err:
                found = Assessment(
                    Verdict.ERROR, "not built", notes=(err.what,)
                )
                made.append(CellResult.without_run(cell, found))
                programs = cell.job.source, cell.job.destination
                self._not_built[cell.name] = next(
                    x.sha256 for x in programs if x.sha256 in self._failed
                )
        if mine:
            check_abilities([cell.job for cell in mine], self.inner)
            made += self.inner.run(mine, setting, self._reporter)
        self.made += made
        known = {result.cell.name: result for result in made}
        return [
            known.get(cell.name) or CellResult.without_run(cell, _ELSEWHERE)
            for cell in cells
        ]

    def _real(self, job: Job) -> Job:
        """Build what a job names."""
        source, destination = map(
            self._real_program, (job.source, job.destination)
        )
        return msgspec.structs.replace(
            job, source=source, destination=destination
        )

    def _real_program(self, what: ProgramInput) -> ProgramInput:
        key = what.sha256
        if key not in self._later:
            return what
        if key in self._failed:
            raise self._failed[key]
        if key not in self._built:
            source, variant, checks = self._later[key]
            task = self._reporter.task(variant.name)
            try:
                build = self.inner.build(source, variant, task, checks)
            except BuildError as err:
                task.end("did not build")
                self._failed[key] = err
                raise
            task.end("was there already" if build.reused else "built")
            self._built[key] = self.inner.program(build)
        return self._built[key]

    def write(self, folder: Path) -> None:
        """List the runs of the shard, beside their bundles.

        :param folder: The folder of the bundles.
        """
        found = Listing(
            number=self._shard.number,
            count=self._shard.count,
            runs=tuple(result.cell.name for result in self.made),
            unmade={
                result.cell.name: self._unmade(result)
                for result in self.made
                if result.bundle is None
            },
        )
        write_whole(folder / SHARD, found.to_json())

    def _unmade(self, result: CellResult) -> Unmade:
        found = result.assessment
        skipped = found.verdict is Verdict.SKIP
        key = self._not_built.get(result.cell.name, "")
        return Unmade(
            verdict=Verdict.SKIP if skipped else Verdict.ERROR,
            summary=found.summary,
            notes=found.notes,
            scenario=result.cell.job.scenario.digest,
            not_built=key,
            log=str(self._failed[key].log) if key else "",
        )


@dataclass(frozen=True)
class MadeShard:
    """The runs of a shard.

    :param count: The number of runs of all shards.
    :param runs: The names of those of this shard.
    :param failed: Why some of them were not made, by their names.
    """

    count: int
    runs: tuple[str, ...]
    failed: Mapping[str, str]


def make_shard(
    shard: Shard,
    plan: Callable[[Workshop], object],
    out: Path,
    reporter: Reporter,
    workshop: Workshop,
) -> MadeShard:
    """Make the runs of a shard, and list them beside their bundles.

    :param shard: The shard.
    :param plan: Makes and judges all runs of a request.
    :param out: The folder of the bundles.
    :param reporter: Told how far the work is.
    :param workshop: Builds and runs.
    :raise InputError: When an option or the source is wrong.
    """
    # Nobody must take the listing of an earlier call for this one's.
    (out / SHARD).unlink(missing_ok=True)
    around = ShardWorkshop(workshop, shard, reporter)
    plan(around)
    # The plan's report is about all runs, most of which were not made.
    forget_reports(out)
    around.write(out)
    return MadeShard(
        around.count,
        tuple(result.cell.name for result in around.made),
        {
            result.cell.name: "; ".join(result.assessment.notes)
            for result in around.made
            if result.assessment.verdict is Verdict.ERROR
        },
    )


def placeholder(build: Build) -> ProgramInput:
    """Give a build that was not made a name that no other one has.

    :param build: What `unbuilt` has described.
    """
    parts = [
        build.variant,
        build.job.source.key,
        *(patch.sha256 for patch in build.patches),
    ]
    return ProgramInput(
        variant=build.variant,
        build="",
        version=build.version,
        sha256=hashlib.sha256("\n".join(parts).encode()).hexdigest(),
        libraries={},
    )
