# SPDX-License-Identifier: GPL-2.0-or-later
"""Choose a source, its base and variants, and build them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vfio_p2p.errors import BuildError, PatchError, SourceError
from vfio_p2p.plans.setting import Origin
from vfio_p2p.plans.workshop import Workshop
from vfio_p2p.progress import Reporter
from vfio_p2p.qemu import NO_CHECKS, Build, Checks, Source
from vfio_p2p.series import (
    Base,
    SeriesLevel,
    Variant,
    base_for,
    default_base,
    find_base,
    parse_variant,
    recognise,
    stock_base,
)
from vfio_p2p.variant import STOCK

# Mutants and follow-ups go on top of this tree.
TREE = "patched"

_DEFAULT_VARIANTS = ("base", TREE)


@dataclass(frozen=True)
class Chosen:
    """A source and the base whose patches go on top of it.

    :param base: The base.
    :param source: The source.
    """

    base: Base
    source: Source

    @property
    def default_variants(self) -> tuple[str, ...]:
        """The names of the variants for users who name none."""
        return (STOCK,) if self.base.as_it_is else _DEFAULT_VARIANTS


@dataclass(frozen=True)
class PatchedBuilds:
    """The builds of trees that have another patch on top.

    :param builds: The builds that were made, by the name of the patch.
    :param failed: Why the others have none, by the name of the patch.
    """

    builds: Mapping[str, Build]
    failed: Mapping[str, str]


def choose(
    origin: Origin, reporter: Reporter, workshop: Workshop
) -> Chosen:
    """Find the base and the source that a request means.

    :param origin: Names the base and the source.
    :param reporter: Told of the download, if there is one.
    :param workshop: Finds the source.
    :raise UsageError: When the base is unknown.
    :raise SourceError: When the source is not QEMU, or has no base.
    """
    base = find_base(origin.base) if origin.base else None
    source = workshop.find_source(
        origin.source,
        (base or default_base()).qemu,
        reporter.task("source"),
        refresh=origin.refresh,
    )
    return Chosen(base or _base_of(source), source)


def _base_of(source: Source) -> Base:
    """Find the base for a source; a QEMU that has the series needs none."""
    try:
        return base_for(source.version)
    except SourceError:
        if recognise(source) is not SeriesLevel.SERIES:
            raise
        return stock_base(source.version)


def choose_variants(
    chosen: Chosen, names: Iterable[str], workshop: Workshop
) -> list[Variant]:
    """Find variants, and see that each can be made of the source.

    :param chosen: The source and its base.
    :param names: The names of the variants.
    :param workshop: Tries the patches.
    :raise UsageError: When a name is unknown.
    :raise PatchError: When a patch does not apply.  That is found out here,
        before minutes are spent on building the others.
    """
    variants = [parse_variant(chosen.base, x) for x in dict.fromkeys(names)]
    for variant in variants:
        workshop.check_patches(chosen.source, variant.patches)
    return variants


def build_all(
    source: Source,
    variants: Sequence[Variant],
    reporter: Reporter,
    workshop: Workshop,
    checks: Checks = NO_CHECKS,
) -> list[Build]:
    """Build variants one after another, each from the one before.

    :param source: The source of all of them.
    :param variants: What is built.
    :param reporter: Told how far each build is.
    :param workshop: Builds them.
    :param checks: What the builds check.
    :raise BuildError: When one does not build.
    """
    builds = []
    for variant in variants:
        task = reporter.task(variant.name)
        made = workshop.build(source, variant, task, checks)
        task.end("was there already" if made.reused else "built")
        builds.append(made)
    return builds


def build_on_top(
    chosen: Chosen,
    names: Iterable[str],
    reporter: Reporter,
    workshop: Workshop,
) -> PatchedBuilds:
    """Build the tree with each patch on top that can be built.

    :param chosen: The source and its base.
    :param names: The names of the mutants or follow-ups.
    :param reporter: Told how far each build is.
    :param workshop: Builds them.
    :raise UsageError: When a name is unknown.
    """
    builds: dict[str, Build] = {}
    failed: dict[str, str] = {}
    for name in names:
        try:
            tree = parse_variant(chosen.base, f"{TREE}+{name}")
            (builds[name],) = build_all(
                chosen.source, [tree], reporter, workshop
            )
        except (BuildError, PatchError) as err:
            failed[name] = err.what
    return PatchedBuilds(builds, failed)
