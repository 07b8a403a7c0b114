# SPDX-License-Identifier: GPL-2.0-or-later
"""Build variants of a QEMU source into the store."""

from __future__ import annotations

from dataclasses import dataclass

from vfio_p2p.plans.setting import Origin
from vfio_p2p.plans.sources import Chosen, build_all, choose, choose_variants
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.qemu import NO_CHECKS, Build, Checks


@dataclass(frozen=True)
class BuildRequest:
    """A request to build variants.

    :param origin: The source.
    :param variants: The names of the variants; empty means base and patched,
        unless there are mutants.
    :param mutants: Names or files of patches; each goes on top of the whole
        series.
    :param checks: What the builds check.
    """

    origin: Origin = Origin()
    variants: tuple[str, ...] = ()
    mutants: tuple[str, ...] = ()
    checks: Checks = NO_CHECKS


@dataclass(frozen=True)
class Built:
    """The builds, and their source.

    :param chosen: The source and its base.
    :param builds: The builds, in the order of the request.
    """

    chosen: Chosen
    builds: tuple[Build, ...]


def build_variants(
    request: BuildRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> Built:
    """Build the variants of a request, or find them in the store.

    :raise UsageError: When a name is unknown.
    :raise PatchError: When a patch does not apply.
    :raise BuildError: When one does not build.
    """
    chosen = choose(request.origin, reporter, workshop)
    default = () if request.mutants else chosen.default_variants
    names = [*(request.variants or default)]
    names += [f"patched+{x}" for x in request.mutants]
    variants = choose_variants(chosen, names, workshop)
    builds = build_all(
        chosen.source, variants, reporter, workshop, request.checks
    )
    return Built(chosen, tuple(builds))
