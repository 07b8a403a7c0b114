# SPDX-License-Identifier: GPL-2.0-or-later
"""A workshop that builds and runs nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from builds import build_of, source_of
from bundles import make_bundle
from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.choice import PlaceChoice
from vfio_p2p.oracle import Finding
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.places import Place
from vfio_p2p.plans.matrix import Cell, CellResult
from vfio_p2p.plans.record import check_history
from vfio_p2p.plans.setting import Setting
from vfio_p2p.progress import Progress, Reporter
from vfio_p2p.qemu import NO_CHECKS, Build, Checks, Source
from vfio_p2p.qemu.abilities import Abilities
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Patch, Variant
from vfio_p2p.side import Side
from vfio_p2p.variant import binary_name, release_of
from vfio_p2p.verdict.assess import Assessment

PASS = Assessment(Verdict.PASS, "migrated")

_RELEASES = [
    *((7, 2), (8, 0), (8, 1), (8, 2), (9, 0), (9, 1), (9, 2)),
    *((10, 0), (10, 1), (10, 2), (11, 0), (11, 1)),
]

Judge = Callable[[Cell], Assessment]


def broken(*rules: str) -> tuple[Finding, ...]:
    """Return findings of these rules."""
    return tuple(
        Finding(rule, "It matters.", Side.SOURCE, "so", (), "x.log", ())
        for rule in rules
    )


def program_of(variant: str, version: str = "10.0.99") -> ProgramInput:
    """A program that nobody can run."""
    content = f"{variant} {version}".encode()
    return ProgramInput(
        variant=variant,
        build="1" * 32,
        version=version,
        sha256=hashlib.sha256(content).hexdigest(),
        libraries={},
    )


def bundle_of(cell: Cell, path: Path) -> None:
    """Make the bundle of a run in which all is well."""
    make_bundle(
        path,
        scenario=cell.job.scenario,
        variant=cell.variant,
        seed=cell.job.seed,
        version=cell.job.source.version,
        to=cell.job.destination
        if cell.job.destination != cell.job.source
        else None,
    )


@dataclass
class FakeWorkshop:
    """A fake of this machine, whose fields say what goes wrong.

    :param refuses: The errors of builds, by the patch on top of the tree;
        the empty name stands for the plain tree.
    :param unpatchable: The error of patches that do not apply.
    :param judge: Judges a run that leaves no bundle.
    :param make: Makes the bundle of a run; None leaves no bundle.
    :param release: The release of the source that is found by its path, and
        of the QEMU that is installed.
    :param newest: The newest release that Debian has.
    :param knows: What every QEMU knows; None asks none.
    :param tree: The folder of every source that is found.
    """

    refuses: dict[str, Exception] = field(default_factory=dict)
    unpatchable: Exception | None = None
    judge: Judge = lambda cell: PASS
    make: Callable[[Cell, Path], object] | None = None
    release: str = "10.0"
    newest: str = "11.1"
    knows: Abilities | None = None
    tree: Path = Path("/src")
    sought: list[Path | None] = field(default_factory=list)
    built: list[tuple[str, str]] = field(default_factory=list)
    ran: list[Cell] = field(default_factory=list)

    def find_source(
        self,
        path: Path | None,
        release: str,
        progress: Progress,
        *,
        refresh: bool = False,
    ) -> Source:
        """Return a tree without files."""
        self.sought.append(path)
        source = source_of(f"{self.release if path else release}.99")
        return replace(source, tree=self.tree)

    def check_patches(
        self, source: Source, patches: Sequence[Patch]
    ) -> None:
        """Accept all patches, unless told otherwise."""
        if self.unpatchable:
            raise self.unpatchable

    def build(
        self,
        source: Source,
        variant: Variant,
        progress: Progress,
        checks: Checks = NO_CHECKS,
    ) -> Build:
        """Return the description of a build that does not exist."""
        release = source.version.rpartition(".")[0]
        self.built.append((release, variant.name))
        if err := self.refuses.get(variant.name.partition("+")[2]):
            raise err
        version = f"QEMU {source.version}"
        return build_of(source, variant, version, Path("/qemu"))

    def program(self, build: Build) -> ProgramInput:
        """Return an invented identity of the build."""
        return program_of(build.variant, build.version)

    def place(self, where: PlaceChoice) -> Place:
        """Fail, since no test opens a place."""
        raise NotImplementedError

    def check(self, setting: Setting) -> None:
        """Check only the history; every place can be used."""
        check_history(setting.history)

    def installed(self, setting: Setting) -> Mapping[Side, ProgramInput]:
        """Say that the place has a QEMU of that version, on both sides."""
        check_history(setting.history)
        version = f"QEMU emulator version {self.release}.2 (here)"
        what = program_of("installed", version)
        return dict.fromkeys(Side, what)

    def examine(self, name: str, reporter: Reporter) -> ProgramInput:
        """Return an invented identity of a binary, which tells its name."""
        told = re.fullmatch(r"debian:(\d+\.\d+)", name)
        release = told[1] if told else self.release
        version = f"QEMU emulator version {release}.3 ({name})"
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        return program_of(binary_name(version, sha256), version)

    def newest_release(self, reporter: Reporter) -> str:
        """Return what the field says."""
        return self.newest

    def abilities(
        self, program: ProgramInput, types: Iterable[str]
    ) -> Abilities | None:
        """Return what a test says that every QEMU knows."""
        return self.knows

    def machines(self, what: ProgramInput) -> tuple[str, ...]:
        """Say that it has the q35 of each release since 7.2, up to its own."""
        number = release_of(what.version)
        assert number
        return (
            "q35",
            "none",
            *(
                f"pc-q35-{x[0]}.{x[1]}"
                for x in _RELEASES
                if x <= number
            ),
        )

    def prepare(
        self,
        setting: Setting,
        reporter: Reporter,
        scenarios: Sequence[Scenario],
    ) -> None:
        """Every place is ready."""

    def run(
        self, cells: Sequence[Cell], setting: Setting, reporter: Reporter
    ) -> list[CellResult]:
        """Make invented runs."""
        self.ran += cells
        return [self._run(cell, setting.out) for cell in cells]

    def _run(self, cell: Cell, out: Path) -> CellResult:
        if self.make is None:
            return CellResult.without_run(cell, self.judge(cell))
        path = out / cell.name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.make(cell, path)
        if not path.exists():
            return CellResult.without_run(cell, self.judge(cell))
        return CellResult.of_bundle(cell, open_bundle(path))

    @property
    def names(self) -> list[str]:
        """The names of all runs, in order."""
        return [cell.name for cell in self.ran]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The variant and scenario of all runs, in order."""
        return [(x.variant, x.job.scenario.name) for x in self.ran]
