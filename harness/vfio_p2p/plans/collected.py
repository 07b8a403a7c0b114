# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge the runs of all shards of a request; see `vfio_p2p.plans.shards`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vfio_p2p.bundle.manifest import AppliedPatch, ProgramInput
from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.bundle.write import writing
from vfio_p2p.errors import BuildError, InputError
from vfio_p2p.machine.files import copy_files
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.around import Around, unbuilt
from vfio_p2p.plans.matrix import Cell, CellResult, judged
from vfio_p2p.plans.setting import Setting
from vfio_p2p.plans.shards import placeholder
from vfio_p2p.plans.workshop import Workshop
from vfio_p2p.progress import Progress, Reporter
from vfio_p2p.qemu import NO_CHECKS, Build, Checks, Source
from vfio_p2p.qemu.abilities import Abilities
from vfio_p2p.report.shard import Unmade, read_listing
from vfio_p2p.series import Patch, Variant
from vfio_p2p.verdict.assess import Assessment


class CollectedWorkshop(Around):
    """Serves runs that shards have made; it builds and runs nothing.

    :param inner: Finds sources.
    :param folders: What the shards have left.
    :raise InputError: When a folder is no shard's, two folders are of one
        shard, or they are not of one request.
    """

    def __init__(self, inner: Workshop, folders: Sequence[Path]) -> None:
        super().__init__(inner)
        self._missing = ""
        self._bundles: dict[str, Bundle] = {}
        self._unmade: dict[str, Unmade] = {}
        numbers: dict[int, Path] = {}
        counts = set()
        for folder in folders:
            listing = read_listing(folder)
            counts.add(listing.count)
            if listing.number in numbers or len(counts) > 1:
                raise InputError(
                    f"{folder}: shard {listing.number}/{listing.count} does "
                    f"not go with {next(iter(numbers.values()))}",
                    "Give each shard of one request once.",
                )
            numbers[listing.number] = folder
            self._unmade |= listing.unmade
            for name in listing.runs:
                if name not in listing.unmade:
                    self._bundles[name] = open_bundle(folder / name)
        lacking = sorted({*range(1, max(counts) + 1)} - {*numbers})
        if lacking:
            self._missing = ", ".join(
                f"{number}/{max(counts)}" for number in lacking[:9]
            )
        self._programs = _programs(self._bundles.values())
        _check_testbeds(self._bundles.values())

    def build(
        self,
        source: Source,
        variant: Variant,
        progress: Progress,
        checks: Checks = NO_CHECKS,
    ) -> Build:
        """Describe what a shard has built.

        :raise BuildError: When the shard could not build it.
        """
        self.inner.check_patches(source, variant.patches)
        found = unbuilt(source, variant)
        key = placeholder(found).sha256
        for unmade in self._unmade.values():
            if unmade.not_built == key:
                raise BuildError("; ".join(unmade.notes), Path(unmade.log))
        program = self.program(found)
        return replace(found, version=program.version, key=program.build)

    def program(self, build: Build) -> ProgramInput:
        """Name what a shard has built; see `Workshop.program`."""
        key = _Key.of_build(build)
        return self._programs.get(key) or placeholder(build)

    def check(self, setting: Setting) -> None:
        """Check nothing: no place is used."""

    def abilities(
        self, program: ProgramInput, types: Iterable[str]
    ) -> Abilities | None:
        """Return None: the shards have asked already."""
        return None

    def run(
        self, cells: Sequence[Cell], setting: Setting, reporter: Reporter
    ) -> list[CellResult]:
        """Judge the runs of the shards, and copy their bundles."""
        runs = reporter.task("runs")
        found = []
        for number, cell in enumerate(cells, 1):
            found.append(self._result(cell, setting.out))
            runs(number, len(cells), "collected runs")
        runs.end("done")
        return found

    def _result(self, cell: Cell, out: Path) -> CellResult:
        if unmade := self._unmade.get(cell.name):
            if unmade.scenario != cell.job.scenario.digest:
                raise _another(cell.name)
            return CellResult.without_run(
                cell,
                Assessment(
                    unmade.verdict, unmade.summary, notes=unmade.notes
                ),
            )
        bundle = self._bundles.get(cell.name)
        if bundle is None:
            why = "no shard has made it"
            if self._missing:
                why += f"; missing: {self._missing}"
            return CellResult.without_run(
                cell, Assessment(Verdict.ERROR, "not run", notes=(why,))
            )
        inputs = bundle.manifest.inputs
        if inputs != cell.job.inputs(inputs.place):
            raise _another(str(bundle.path))
        path = out / cell.name
        if path.absolute() != bundle.path.absolute():
            with writing(path) as partial:
                copy_files(bundle.path, partial)
        return judged(cell, open_bundle(path))


def _another(name: str) -> InputError:
    return InputError(
        f"{name} is not the run that this request means",
        "Give the same options, the same source and the same version of "
        "vfio-p2p as for the shards.",
    )


@dataclass(frozen=True)
class _Key:
    """What tells one tree from another one, before it is built."""

    variant: str
    source: str
    patches: tuple[tuple[str, str], ...]

    @classmethod
    def of_build(cls, build: Build) -> _Key:
        return cls(
            build.variant,
            build.job.source.key,
            _patches(build.patches),
        )


def _patches(
    patches: Iterable[Patch | AppliedPatch],
) -> tuple[tuple[str, str], ...]:
    return tuple((x.name, x.sha256) for x in patches)


def _programs(bundles: Iterable[Bundle]) -> dict[_Key, ProgramInput]:
    """Find the builds that the shards have made.

    :raise InputError: When two shards have built a tree differently.
    """
    found: dict[_Key, tuple[ProgramInput, Path]] = {}
    for bundle in bundles:
        inputs = bundle.manifest.inputs
        for what in (inputs.source, inputs.destination):
            if what.made_of is None:
                continue
            key = _Key(
                what.variant,
                what.made_of.source,
                _patches(what.made_of.patches),
            )
            known, path = found.setdefault(key, (what, bundle.path))
            if known != what:
                raise InputError(
                    f"{path} and {bundle.path} have different builds of "
                    f"{what.variant}",
                    "Make all shards with the same compiler and libraries.",
                )
    return {key: what for key, (what, _) in found.items()}


def _check_testbeds(bundles: Iterable[Bundle]) -> None:
    """See that all sealed runs were made in the same testbeds.

    :raise InputError: When they were not, so that they cannot be compared.
    """
    found: dict[tuple[str, str], tuple[str, Path]] = {}
    for bundle in bundles:
        place = bundle.manifest.inputs.place
        if not isinstance(place, SealedProvenance):
            continue
        kind = place.driver, place.kernel_kind
        known, path = found.setdefault(kind, (place.testbed, bundle.path))
        if known != place.testbed:
            raise InputError(
                f"{path} and {bundle.path} are of different testbeds",
                "Make all shards with the same version of vfio-p2p, and on "
                "machines with the same release of Debian.",
            )
