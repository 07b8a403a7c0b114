# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMUs that a request is about: built, or run as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.errors import UsageError
from vfio_p2p.places import Job
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.sources import Chosen, choose, choose_variants
from vfio_p2p.plans.workshop import Workshop
from vfio_p2p.progress import Reporter
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Base, Variant, find_base, nearest_base
from vfio_p2p.side import Side
from vfio_p2p.variant import (
    DEBIAN,
    INSTALLED,
    QEMU,
    STOCK,
    has_series,
    is_as_it_is,
    is_built,
    is_named_binary,
    release_of,
)


@dataclass(frozen=True)
class AsItIs:
    """A QEMU that is run as it is, or one on each side.

    :param origin: Where it is from, for reports.
    :param programs: The QEMU of each side.
    :param base: The base whose expectations apply.
    """

    origin: str
    programs: Mapping[Side, ProgramInput]
    base: Base

    @property
    def variant(self) -> Variant:
        """The name that it has in bundles."""
        return Variant(self.programs[Side.SOURCE].variant, ())

    def job(self, scenario: Scenario, seed: int) -> Job:
        """Make a job for it.

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
    :param named: Their variants by the names that the request has for them.
    :param as_they_are: Those that are not built, by the name of the variant.
    """

    variants: tuple[Variant, ...]
    chosen: Chosen | None
    named: Mapping[str, Variant]
    as_they_are: Mapping[str, AsItIs] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The name of the base whose expectations apply, if it is one."""
        bases = {x.base.name for x in self.as_they_are.values()}
        if self.chosen:
            return self.chosen.base.name
        return bases.pop() if len(bases) == 1 else ""

    @property
    def origin(self) -> str:
        """Where the QEMUs are from, for reports."""
        found = [x.origin for x in self.as_they_are.values()]
        if self.chosen:
            found.insert(0, self.chosen.source.origin)
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
    base = find_base(origin.base) if origin.base else None
    if base is None or not base.binary or origin.source is not None:
        return _choose(origin, names, setting, reporter, workshop)
    meant = {x: _binary(base, x) for x in names or (STOCK,)}
    found = _choose(Origin(), meant.values(), setting, reporter, workshop)
    named = {name: found.named[x] for name, x in meant.items()}
    return replace(found, named=named)


def _binary(base: Base, name: str) -> str:
    """Return what a variant means on a base that Debian has no source of."""
    if name == STOCK:
        return f"{DEBIAN}{base.qemu}"
    if is_as_it_is(name) or is_named_binary(name):
        return name
    raise UsageError(
        f"the variant {name!r} of base {base.name} cannot be built, as "
        f"Debian has no source of QEMU {base.qemu}",
        f"Give a source of your own with '--source', or take {STOCK!r}, "
        "which is Debian's binary.",
    )


def _choose(
    origin: Origin,
    names: Iterable[str],
    setting: Setting,
    reporter: Reporter,
    workshop: Workshop,
) -> UnderTest:
    """Do as `choose_subject`, for a base whose source can be had."""
    wanted = tuple(dict.fromkeys(names))
    built = [x for x in wanted if is_built(x)]
    if wanted and not built:
        _check_unused(origin, wanted)
    if set(wanted) != {INSTALLED}:
        workshop.check(setting)
    ready = {
        name: _as_it_is(name, setting, reporter, workshop)
        for name in wanted
        if name not in built
    }
    as_they_are = {x.variant.name: x for x in ready.values()}
    if wanted and not built:
        variants = tuple(x.variant for x in as_they_are.values())
        named = {name: x.variant for name, x in ready.items()}
        return UnderTest(variants, None, named, as_they_are)
    chosen = choose(origin, reporter, workshop)
    trees = iter(
        choose_variants(chosen, built or chosen.default_variants, workshop)
    )
    named = {
        x: ready[x].variant if x in ready else next(trees) for x in wanted
    } or {x.name: x for x in trees}
    variants = tuple({x.name: x for x in named.values()}.values())
    return UnderTest(variants, chosen, named, as_they_are)


def _as_it_is(
    name: str, setting: Setting, reporter: Reporter, workshop: Workshop
) -> AsItIs:
    """Examine a QEMU that is not built.

    :raise UsageError: When there is none, or it cannot be used.
    """
    if name == INSTALLED:
        origin = f"installed at {setting.at}"
        programs = workshop.installed(setting)
    else:
        origin = name.removeprefix(QEMU)
        program = workshop.examine(name, reporter)
        programs = dict.fromkeys(Side, program)
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
    return AsItIs(origin, programs, base)


def _check_unused(origin: Origin, variants: Sequence[str]) -> None:
    """Refuse options about building if nothing is built."""
    given = [
        f"--{name}"
        for name in ("base", "source", "refresh")
        if getattr(origin, name)
    ]
    if given:
        raise UsageError(
            f"{', '.join(given)}: this has no effect on the variant "
            f"{variants[0]!r}, which is not built",
            "Leave it out, or name a variant to be built.",
        )
