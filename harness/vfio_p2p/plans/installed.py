# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMUs that a request is about: built, or installed on hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.errors import UsageError
from vfio_p2p.places import Job
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.sources import Chosen, choose, choose_variants
from vfio_p2p.plans.workshop import Workshop
from vfio_p2p.progress import Reporter
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Base, Variant, nearest_base
from vfio_p2p.side import Side
from vfio_p2p.variant import INSTALLED, has_series, release_of


@dataclass(frozen=True)
class Installed:
    """The QEMUs that the hosts of a place have themselves.

    :param place: The name of the place.
    :param programs: The QEMU of each side.
    :param base: The base whose expectations apply.
    """

    place: str
    programs: Mapping[Side, ProgramInput]
    base: Base

    @property
    def origin(self) -> str:
        """Where they are from, for reports."""
        return f"installed at {self.place}"

    def job(self, scenario: Scenario, seed: int) -> Job:
        """Make a job for them.

        :param scenario: What happens in the run.
        :param seed: Its seed.
        """
        return Job.of(
            self.programs[Side.SOURCE],
            scenario,
            seed,
            destination=self.programs[Side.DESTINATION],
        )


@dataclass(frozen=True)
class UnderTest:
    """The QEMUs that a request is about.

    :param variants: Their variants, each one once.
    :param chosen: The source of those that are built; None if none is.
    :param installed: Those that are installed on hosts, if one is meant.
    """

    variants: tuple[Variant, ...]
    chosen: Chosen | None
    installed: Installed | None = None

    @property
    def base(self) -> str:
        """The name of the base whose expectations apply."""
        told = self.chosen or self.installed
        return told.base.name if told else ""

    @property
    def origin(self) -> str:
        """Where the QEMUs are from, for reports."""
        found = []
        if self.chosen:
            found.append(self.chosen.source.origin)
        if self.installed:
            found.append(self.installed.origin)
        return ", ".join(found)


def choose_subject(
    origin: Origin,
    names: Iterable[str],
    setting: Setting,
    reporter: Reporter,
    workshop: Workshop,
) -> UnderTest:
    """Find the QEMUs that a request means, and see that they can be run.

    Nothing has been built when this returns.

    :param origin: Names the source of those that are built.
    :param names: The names of the variants; empty means the usual ones.
    :param setting: Where they run.
    :param reporter: Told of the download of the source, if there is one.
    :param workshop: Finds them.
    :raise UsageError: When a name is unknown, or a QEMU cannot be used.
    :raise InputError: When the place cannot be used.
    """
    wanted = tuple(dict.fromkeys(names))
    built = [name for name in wanted if name != INSTALLED]
    if wanted and not built:
        _check_unused(origin)
    if not wanted or built:
        workshop.check(setting)
    installed = None
    if INSTALLED in wanted:
        installed = find_installed(setting, reporter, workshop)
        if not built:
            return UnderTest((Variant(INSTALLED, ()),), None, installed)
    chosen = choose(origin, reporter, workshop)
    trees = iter(
        choose_variants(chosen, built or chosen.default_variants, workshop)
    )
    variants = (
        *(
            Variant(INSTALLED, ()) if name == INSTALLED else next(trees)
            for name in wanted
        ),
        *trees,
    )
    return UnderTest(variants, chosen, installed)


def find_installed(
    setting: Setting, reporter: Reporter, workshop: Workshop
) -> Installed:
    """Examine the QEMUs that the hosts of a place have themselves.

    :param setting: Names the place.
    :param reporter: Told what is expected of a release that no base is for.
    :param workshop: Reaches the hosts.
    :raise UsageError: When there are none, or they cannot be used.
    """
    programs = workshop.installed(setting)
    version = programs[Side.SOURCE].version
    number = release_of(version)
    # Those of older releases are refused when they are examined.
    assert number
    release = ".".join(map(str, number))
    base = nearest_base(release)
    if not base.covers(release):
        what = "with" if has_series(version) else "without"
        reporter.remark(
            f"{version}: there is no base for QEMU {release}, so what is "
            f"expected is that of base {base.name} {what} the series"
        )
    return Installed(setting.at, programs, base)


def _check_unused(origin: Origin) -> None:
    """Refuse options about building if nothing is built."""
    given = [
        f"--{name}"
        for name in ("base", "source", "refresh")
        if getattr(origin, name)
    ]
    if given:
        raise UsageError(
            f"{', '.join(given)}: this has no effect on the variant "
            f"{INSTALLED!r}, which is not built",
            "Leave it out, or name a variant to be built.",
        )
