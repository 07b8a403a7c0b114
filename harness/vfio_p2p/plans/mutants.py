# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge this suite: every mutant must be caught by its rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vfio_p2p.errors import UsageError
from vfio_p2p.names import suggest
from vfio_p2p.oracle.rules import RULES
from vfio_p2p.plans.judging import mutants as judging
from vfio_p2p.plans.judging.mutants import MutantRuns
from vfio_p2p.plans.lacking import check_abilities
from vfio_p2p.plans.matrix import Cell, CellResult
from vfio_p2p.plans.modes import check_fixed
from vfio_p2p.plans.runs import (
    forget_reports,
    job_of,
    write_reports,
)
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.sources import (
    TREE,
    Chosen,
    PatchedBuilds,
    build_all,
    build_on_top,
    choose,
)
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.report.document import Document
from vfio_p2p.scenario.load import load, names
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Base, Mutant, load_mutants, parse_variant


@dataclass(frozen=True)
class MutantsRequest:
    """A request to judge mutants.

    :param origin: The source.
    :param setting: Where and how the runs are made.
    :param names: The names of the mutants; empty means all of the base.
    """

    origin: Origin = Origin()
    setting: Setting = Setting()
    names: tuple[str, ...] = ()


def validate_mutants(
    request: MutantsRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> Document:
    """Judge mutants, and the tree without any mutant as a control.

    If all mutants are judged, rules that nothing breaks are reported, too.
    The bundles, ``report.json`` and ``junit.xml`` are left in the folder of
    the setting.

    :raise UsageError: When a name is unknown, or there is nothing to judge.
    :raise BuildError: When the tree without a mutant does not build.
    """
    setting = request.setting
    check_fixed("--mutants", setting)
    workshop.check(setting)
    chosen = choose(request.origin, reporter, workshop)
    mutants = _wanted(chosen.base, request.names)
    forget_reports(setting.out)
    whole = not request.names
    scenarios = _scenarios(mutants, chosen.source.version, whole=whole)
    control = parse_variant(chosen.base, TREE)
    (plain,) = build_all(chosen.source, [control], reporter, workshop)
    built = build_mutants(chosen, mutants, reporter, workshop)
    tried = mutant_cells(
        mutants, built, scenarios, setting.seed, workshop
    )
    cells = [
        *(
            Cell(job_of(plain, scenario, setting.seed, workshop))
            for scenario in scenarios.values()
        ),
        *tried.values(),
    ]
    check_abilities([cell.job for cell in cells], workshop)
    results = workshop.run(cells, setting, reporter)
    controls = results[: len(scenarios)]
    document = judging.document(
        [result.run for result in controls],
        mutant_runs(
            mutants,
            built,
            dict(zip(tried, results[len(scenarios) :], strict=True)),
        ),
        qemu=plain.version,
        base=chosen.base.name,
        origin=chosen.source.origin,
        whole=whole,
    )
    write_reports(setting.out, document)
    return document


def _wanted(base: Base, wanted: Sequence[str]) -> list[Mutant]:
    every = load_mutants()
    known = {x.name: x for x in every if x.base == base.name}
    if not known:
        bases = ", ".join(dict.fromkeys(x.base for x in every))
        raise UsageError(
            f"{base.name} has no mutants",
            f"Choose a base that has some: {bases}.",
        )
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"{base.name} has no mutant {name!r}",
                suggest(name, known, "vfio-p2p series list"),
            )
    return [known[name] for name in dict.fromkeys(wanted or known)]


def _scenarios(
    mutants: Sequence[Mutant], version: str, *, whole: bool
) -> dict[str, Scenario]:
    """Load the scenarios of mutants, and those that prove other rules."""
    found = {
        name: load(name)
        for mutant in mutants
        if not mutant.waits_for
        for name in mutant.scenarios
    }
    if not found:
        raise UsageError(
            "every one of these mutants waits for something",
            "Choose others; 'vfio-p2p series list' lists them.",
        )
    if whole:
        every = {name: load(name) for name in names()}
        found |= proving(found, every, version)
    return found


def proving(
    known: Mapping[str, Scenario],
    every: Mapping[str, Scenario],
    version: str,
) -> dict[str, Scenario]:
    """Find scenarios that break a rule without any mutant.

    One scenario for each such rule is enough.

    :param known: The scenarios that are run in any case, by name.
    :param every: All scenarios, by name.
    :param version: The version of QEMU, for which scenarios must be.
    """
    broken = {x for run in known.values() for x in run.expect.patched.breaks}
    hidden = {x.name for x in RULES if not x.can_be_shown_by(version)}
    found = {}
    for name, scenario in every.items():
        breaks = {*scenario.expect.patched.breaks}
        if scenario.not_for(version) or breaks & hidden:
            continue
        if not breaks <= broken:
            broken |= breaks
            found[name] = scenario
    return found


def build_mutants(
    chosen: Chosen,
    mutants: Sequence[Mutant],
    reporter: Reporter,
    workshop: Workshop,
) -> PatchedBuilds:
    """Build all mutants that wait for nothing and can be built.

    :param chosen: The source and its base.
    :param mutants: The mutants.
    :param reporter: Told how far each build is.
    :param workshop: Builds them.
    """
    return build_on_top(
        chosen,
        [x.name for x in mutants if not x.waits_for],
        reporter,
        workshop,
    )


def mutant_cells(
    mutants: Sequence[Mutant],
    built: PatchedBuilds,
    scenarios: Mapping[str, Scenario],
    seed: int,
    workshop: Workshop,
    prefix: str = "",
) -> dict[tuple[str, str], Cell]:
    """List the runs of mutants, by mutant and scenario.

    :param mutants: The mutants.
    :param built: Their builds.
    :param scenarios: All scenarios that they need, by name.
    :param seed: The seed of the runs.
    :param workshop: Makes the builds known to the places.
    :param prefix: See `vfio_p2p.plans.matrix.Cell`.
    """
    return {
        (mutant.name, name): Cell(
            job_of(
                built.builds[mutant.name], scenarios[name], seed, workshop
            ),
            prefix,
        )
        for mutant in mutants
        if mutant.name in built.builds
        for name in mutant.scenarios
    }


def mutant_runs(
    mutants: Sequence[Mutant],
    built: PatchedBuilds,
    results: Mapping[tuple[str, str], CellResult],
) -> list[MutantRuns]:
    """Collect the results of each mutant.

    :param mutants: The mutants.
    :param built: Their builds.
    :param results: The results of `mutant_cells`, by the same keys.
    """
    return [
        MutantRuns(
            mutant,
            {
                scenario: result.assessment
                for (name, scenario), result in results.items()
                if name == mutant.name
            },
            built.failed.get(mutant.name, ""),
        )
        for mutant in mutants
    ]
