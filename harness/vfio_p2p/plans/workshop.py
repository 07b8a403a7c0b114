# SPDX-License-Identifier: GPL-2.0-or-later
"""The seam between the plans that build or run, and the machine.

A plan decides what is built and run.  A `Workshop` finds sources, builds
QEMU and runs jobs; `Local` is the real one.  Unit tests replace it as a whole
and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.bundle.write import claimed
from vfio_p2p.choice import PlaceChoice
from vfio_p2p.errors import UsageError
from vfio_p2p.places import (
    CachedPlace,
    EquippedPlace,
    Job,
    Place,
    open_place,
)
from vfio_p2p.plans.matrix import Cell, CellResult, run_matrix
from vfio_p2p.plans.record import check_history, recording
from vfio_p2p.plans.setting import Setting
from vfio_p2p.progress import Progress, Reporter
from vfio_p2p.qemu import NO_CHECKS, Build, Checks, Source, build, find_source
from vfio_p2p.qemu.abilities import Abilities, abilities_of
from vfio_p2p.qemu.binary import find_binary
from vfio_p2p.qemu.debian import debian_root, newest_release
from vfio_p2p.qemu.program import KnownPrograms, Program
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Changes, Patch, Variant, apply_patches
from vfio_p2p.side import Side
from vfio_p2p.variant import DEBIAN, INSTALLED, QEMU


class Workshop(Protocol):
    """Whatever touches a machine."""

    def find_source(
        self,
        path: Path | None,
        release: str,
        progress: Progress,
        *,
        refresh: bool = False,
    ) -> Source:
        """Find a QEMU source; see `vfio_p2p.qemu.find_source`."""

    def check_patches(
        self, source: Source, patches: Sequence[Patch]
    ) -> None:
        """See that patches apply, before minutes are spent on building.

        :raise PatchError: When one does not apply.
        """

    def build(
        self,
        source: Source,
        variant: Variant,
        progress: Progress,
        checks: Checks = NO_CHECKS,
    ) -> Build:
        """Build a variant; see `vfio_p2p.qemu.build`."""

    def program(self, build: Build) -> ProgramInput:
        """Make a build known to the places, for jobs to name it.

        :raise SourceError: When it does not run on this machine.
        """

    def place(self, where: PlaceChoice) -> Place:
        """Open a place that knows the programs, without a cache.

        :raise UsageError: When there is no such place.
        :raise ConfigError: When hosts.toml is wrong.
        """

    def check(self, setting: Setting) -> None:
        """See that runs of builds can be made and kept, before any is built.

        :raise InputError: When they cannot.
        """

    def installed(self, setting: Setting) -> Mapping[Side, ProgramInput]:
        """Do as `check` does, for the QEMUs that the place has itself.

        :return: The QEMU of each side, as jobs name it.
        :raise InputError: When it has none, or they cannot be used.
        :raise HostError: When a machine cannot be reached.
        """

    def examine(self, name: str, reporter: Reporter) -> ProgramInput:
        """Examine a QEMU that was built elsewhere, for jobs to name it.

        :param name: ``qemu:PATH`` or ``debian:VERSION``.
        :param reporter: Told of a download, and what is remarkable of it.
        :raise UsageError: When it cannot be used.
        """

    def newest_release(self, reporter: Reporter) -> str:
        """Look for the newest release of QEMU that Debian has built.

        :param reporter: Told of the look-up.
        :return: The release, e.g. ``11.1``.
        :raise HostError: When Debian's archive cannot be read.
        """

    def abilities(
        self, program: ProgramInput, types: Iterable[str]
    ) -> Abilities | None:
        """Ask a QEMU what it knows.

        :param program: The QEMU, as jobs name it.
        :param types: The types whose properties are wanted, besides vfio-pci.
        :return: None if it is not on this machine.
        :raise UsageError: When it does not answer.
        """

    def machines(self, what: ProgramInput) -> tuple[str, ...]:
        """Ask a QEMU for its machine types.

        :param what: A QEMU that `program` or `examine` made known.
        :raise UsageError: When it does not answer.
        """

    def prepare(
        self,
        setting: Setting,
        reporter: Reporter,
        scenarios: Sequence[Scenario],
    ) -> None:
        """Make the place ready; otherwise, `run` does so.

        :param scenarios: The scenarios that are going to run there.
        :raise HostError: When it cannot be made ready.
        """

    def run(
        self, cells: Sequence[Cell], setting: Setting, reporter: Reporter
    ) -> list[CellResult]:
        """Run and judge every cell.

        :return: One result for each cell, in the same order.
        """


class Local:
    """This machine, and the places that it can reach."""

    def __init__(self) -> None:
        self._programs = KnownPrograms()
        self._places: dict[PlaceChoice, Place] = {}
        # The digests of the scenarios that they are ready for.
        self._ready: dict[PlaceChoice, set[str]] = {}
        # Hundreds of runs share a few builds.
        self._built: dict[tuple[str, str], ProgramInput] = {}
        self._overlays: dict[tuple[str, tuple[str, ...]], Changes] = {}

    def find_source(
        self,
        path: Path | None,
        release: str,
        progress: Progress,
        *,
        refresh: bool = False,
    ) -> Source:
        """See `Workshop.find_source`."""
        return find_source(path, release, progress, refresh=refresh)

    def check_patches(
        self, source: Source, patches: Sequence[Patch]
    ) -> None:
        """See `Workshop.check_patches`."""
        self._overlay(source, patches)

    def _overlay(self, source: Source, patches: Sequence[Patch]) -> Changes:
        key = (source.key, tuple(x.sha256 for x in patches))
        if key not in self._overlays:
            self._overlays[key] = apply_patches(source, patches)
        return self._overlays[key]

    def build(
        self,
        source: Source,
        variant: Variant,
        progress: Progress,
        checks: Checks = NO_CHECKS,
    ) -> Build:
        """See `Workshop.build`."""
        overlay = self._overlay(source, variant.patches)
        return build(source, variant, progress, checks, overlay)

    def program(self, build: Build) -> ProgramInput:
        """See `Workshop.program`."""
        key = build.variant, build.key
        if key not in self._built:
            self._built[key] = self._programs.add(Program.of(build))
        return self._built[key]

    def place(self, where: PlaceChoice) -> Place:
        """See `Workshop.place`."""
        return open_place(where, self._programs)

    def check(self, setting: Setting) -> None:
        """See `Workshop.check`."""
        self.place(setting.where).check()
        check_history(setting.history)

    def installed(self, setting: Setting) -> Mapping[Side, ProgramInput]:
        """See `Workshop.installed`."""
        place = self.place(setting.where)
        if not isinstance(place, EquippedPlace):
            raise UsageError(
                f"the place {place.name!r} has no QEMU for the variant "
                f"{INSTALLED!r}",
                "Name a place of real devices whose hosts have the key "
                "'qemu', as in '--at NAME', or choose another variant.",
            )
        check_history(setting.history)
        return place.installed()

    def examine(self, name: str, reporter: Reporter) -> ProgramInput:
        """See `Workshop.examine`."""
        path = Path(name.removeprefix(QEMU))
        if name.startswith(DEBIAN):
            task = reporter.task(name)
            path = debian_root(name.removeprefix(DEBIAN), task)
            task.end("ready")
        program, remarks = find_binary(path)
        for remark in remarks:
            reporter.remark(remark)
        return self._programs.add(program)

    def newest_release(self, reporter: Reporter) -> str:
        """See `Workshop.newest_release`."""
        task = reporter.task("releases")
        found = newest_release(task)
        task.end(f"the newest is {found}")
        return found

    def abilities(
        self, program: ProgramInput, types: Iterable[str]
    ) -> Abilities | None:
        """See `Workshop.abilities`."""
        if program.variant == INSTALLED:
            return None
        found = self._programs.find(program)
        return abilities_of(found.argv, found.content, types)

    def machines(self, what: ProgramInput) -> tuple[str, ...]:
        """See `Workshop.machines`."""
        found = self._programs.find(what)
        return tuple(sorted(abilities_of(found.argv, found.content).machines))

    def prepare(
        self,
        setting: Setting,
        reporter: Reporter,
        scenarios: Sequence[Scenario],
    ) -> None:
        """See `Workshop.prepare`."""
        where = setting.where
        digests = {x.digest for x in scenarios}
        if where in self._ready and digests <= self._ready[where]:
            return
        if where not in self._places:
            self._places[where] = self.place(where)
        place = self._places[where]
        task = reporter.task(place.name)
        place.prepare(task, scenarios)
        task.end("ready")
        self._ready.setdefault(where, set()).update(digests)

    def run(
        self, cells: Sequence[Cell], setting: Setting, reporter: Reporter
    ) -> list[CellResult]:
        """See `Workshop.run`."""
        self.prepare(setting, reporter, [x.job.scenario for x in cells])
        place = self._places[setting.where]
        if place.exact:
            place = CachedPlace(place, rerun=setting.rerun)
        runs = reporter.task("runs")
        waiting = partial(runs, 0, 0, "waiting for another vfio-p2p")
        with (
            recording(setting.history, reporter) as record,
            claimed(setting.out, waiting),
        ):
            found = asyncio.run(
                run_matrix(
                    place,
                    cells,
                    setting.out,
                    setting.jobs,
                    runs,
                    record,
                    self._without_tls,
                )
            )
        runs.end("done")
        return found

    def _without_tls(self, job: Job) -> str:
        """Say if a QEMU cannot encrypt migrations, and its job asks for it."""
        if not job.scenario.migration.tls:
            return ""
        for program in (job.source, job.destination):
            known = self.abilities(program, ())
            if known is not None and not known.tls:
                return (
                    "it encrypts its migration, and "
                    f"{program.version} was built without GnuTLS"
                )
        return ""


LOCAL: Workshop = Local()
