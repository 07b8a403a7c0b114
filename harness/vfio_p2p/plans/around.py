# SPDX-License-Identifier: GPL-2.0-or-later
"""A workshop that leaves everything to another one, to be built upon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.choice import PlaceChoice
from vfio_p2p.places import Place
from vfio_p2p.plans.matrix import Cell, CellResult
from vfio_p2p.plans.setting import Setting
from vfio_p2p.plans.workshop import Workshop
from vfio_p2p.progress import Progress, Reporter
from vfio_p2p.qemu import NO_CHECKS, Build, Checks, Source
from vfio_p2p.qemu.abilities import Abilities
from vfio_p2p.qemu.job import BuildJob
from vfio_p2p.qemu.recipe import Toolchain
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Patch, Variant
from vfio_p2p.side import Side

_NO_TOOLS = Toolchain("", "", "")


class Around:
    """A workshop that does what another one does; see `Workshop`.

    :param inner: The other one.
    """

    def __init__(self, inner: Workshop) -> None:
        self.inner = inner

    def find_source(
        self,
        path: Path | None,
        release: str,
        progress: Progress,
        *,
        refresh: bool = False,
    ) -> Source:
        """See `Workshop.find_source`."""
        return self.inner.find_source(
            path, release, progress, refresh=refresh
        )

    def check_patches(
        self, source: Source, patches: Sequence[Patch]
    ) -> None:
        """See `Workshop.check_patches`."""
        self.inner.check_patches(source, patches)

    def build(
        self,
        source: Source,
        variant: Variant,
        progress: Progress,
        checks: Checks = NO_CHECKS,
    ) -> Build:
        """See `Workshop.build`."""
        return self.inner.build(source, variant, progress, checks)

    def program(self, build: Build) -> ProgramInput:
        """See `Workshop.program`."""
        return self.inner.program(build)

    def place(self, where: PlaceChoice) -> Place:
        """See `Workshop.place`."""
        return self.inner.place(where)

    def check(self, setting: Setting) -> None:
        """See `Workshop.check`."""
        self.inner.check(setting)

    def installed(self, setting: Setting) -> Mapping[Side, ProgramInput]:
        """See `Workshop.installed`."""
        return self.inner.installed(setting)

    def examine(self, name: str, reporter: Reporter) -> ProgramInput:
        """See `Workshop.examine`."""
        return self.inner.examine(name, reporter)

    def newest_release(self, reporter: Reporter) -> str:
        """See `Workshop.newest_release`."""
        return self.inner.newest_release(reporter)

    def abilities(
        self, program: ProgramInput, types: Iterable[str]
    ) -> Abilities | None:
        """See `Workshop.abilities`."""
        return self.inner.abilities(program, types)

    def machines(self, what: ProgramInput) -> tuple[str, ...]:
        """See `Workshop.machines`."""
        return self.inner.machines(what)

    def prepare(
        self,
        setting: Setting,
        reporter: Reporter,
        scenarios: Sequence[Scenario],
    ) -> None:
        """See `Workshop.prepare`."""
        self.inner.prepare(setting, reporter, scenarios)

    def run(
        self, cells: Sequence[Cell], setting: Setting, reporter: Reporter
    ) -> list[CellResult]:
        """See `Workshop.run`."""
        return self.inner.run(cells, setting, reporter)


def unbuilt(source: Source, variant: Variant) -> Build:
    """Describe a build that is not made, and that no place can run.

    :param source: The source.
    :param variant: The variant.
    """
    return Build(
        variant=variant.name,
        key="",
        directory=Path(),
        path=Path(),
        version=f"QEMU emulator version {source.version}",
        sha256="",
        reused=True,
        job=BuildJob(source, {}, (), b"", _NO_TOOLS),
        patches=variant.patches,
    )
