# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge follow-up patches for defects that the suite shows in QEMU itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.choice import SEALED
from vfio_p2p.devices import Driver
from vfio_p2p.errors import UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.devices import as_driven
from vfio_p2p.plans.judging import followups as judging
from vfio_p2p.plans.judging.followups import FollowupRuns, NotJudged
from vfio_p2p.plans.matrix import CellResult
from vfio_p2p.plans.modes import ModeRequest, check_fixed
from vfio_p2p.plans.runs import (
    TreeRuns,
    forget_reports,
    judge_trees,
    write_reports,
)
from vfio_p2p.plans.setting import Setting
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
from vfio_p2p.report.run import Run
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Followup, load_followups, parse_variant
from vfio_p2p.verdict.assess import Assessment, assess


def validate_followups(
    request: ModeRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
    *,
    followups: Sequence[Followup] | None = None,
    load_scenario: Callable[[str], Scenario] = load,
) -> Document:
    """Judge the follow-ups of a base.

    Each defect must reproduce without its patch and disappear with it.  At a
    place of real devices, only the defects that they show are judged; the
    testbed has virtual functions for these.  The bundles, ``report.json`` and
    ``junit.xml`` are left in the folder of the setting.

    :param followups: The follow-ups of all bases; None takes those that come
        with the tool.
    :param load_scenario: Reads a scenario by its name.
    :raise UsageError: When the base has no follow-ups.
    :raise BuildError: When the tree without a follow-up does not build.
    """
    setting = request.setting
    check_fixed("--followups", setting)
    workshop.check(setting)
    chosen = choose(request.origin, reporter, workshop)
    every = load_followups() if followups is None else followups
    wanted = [x for x in every if x.base == chosen.base.name]
    if not wanted:
        raise UsageError(
            f"{chosen.base.name} has no follow-ups",
            "'vfio-p2p series list' lists all follow-ups with their bases.",
        )
    forget_reports(setting.out)
    trials: list[FollowupRuns | NotJudged] = []
    runs: list[Run] = []
    version = ""
    for devices, driver in _drivers(setting.at):
        judged = [x for x in wanted if x.devices == devices]
        if driver is None:
            trials += _not_judged(judged)
        elif judged:
            scenarios = {
                name: as_driven(load_scenario(name), driver)
                for x in judged
                for name in (*x.fixes, *x.keeps)
            }
            built, made = _make(
                chosen,
                judged,
                scenarios,
                replace(setting, driver=driver),
                reporter,
                workshop,
            )
            trials += _trials(judged, scenarios, built, made)
            runs += [result.run for result in made.results]
            version = made.version
    document = judging.document(
        trials,
        qemu=version,
        base=chosen.base.name,
        origin=chosen.source.origin,
        runs=runs,
    )
    write_reports(setting.out, document)
    return document


def _drivers(at: str) -> tuple[tuple[str, Driver | None], ...]:
    """Return the devices of follow-ups, and whose they are at a place.

    A place of real devices has those of hosts.toml whatever is said here.
    """
    if at == SEALED:
        return (("simulated", Driver.P2PSIM), ("real", Driver.P2PVF))
    return (("simulated", None), ("real", Driver.P2PSIM))


def _make(
    chosen: Chosen,
    followups: Sequence[Followup],
    scenarios: Mapping[str, Scenario],
    setting: Setting,
    reporter: Reporter,
    workshop: Workshop,
) -> tuple[PatchedBuilds, TreeRuns]:
    """Build each tree, and make each run."""
    control = parse_variant(chosen.base, TREE)
    build_all(chosen.source, [control], reporter, workshop)
    built = build_on_top(
        chosen, [x.name for x in followups], reporter, workshop
    )
    trees = {
        name: parse_variant(chosen.base, build.variant)
        for name, build in built.builds.items()
    }
    made = judge_trees(
        chosen,
        [(control, scenario) for scenario in scenarios.values()]
        + [
            (trees[x.name], scenarios[name])
            for x in followups
            if x.name in trees
            for name in (*x.fixes, *x.keeps)
        ],
        setting,
        reporter,
        workshop,
    )
    return built, made


def _not_judged(followups: Iterable[Followup]) -> Iterator[NotJudged]:
    for x in followups:
        for name in (*x.fixes, *x.keeps):
            yield NotJudged(
                x,
                name,
                "not judged here: simulated devices show the defect: leave "
                "out --at",
            )


def _trials(
    followups: Sequence[Followup],
    scenarios: Mapping[str, Scenario],
    built: PatchedBuilds,
    made: TreeRuns,
) -> list[FollowupRuns]:
    results = {
        (x.cell.variant, x.cell.job.scenario.name): x for x in made.results
    }
    trials = []
    for x in followups:
        for name in (*x.fixes, *x.keeps):
            played = scenarios[name].name
            plain = results[TREE, played]
            build = built.builds.get(x.name)
            trials.append(
                FollowupRuns(
                    followup=x,
                    scenario=name,
                    control=plain.assessment,
                    without=_without(plain, x) if name in x.fixes else None,
                    mended=results[build.variant, played].assessment
                    if build
                    else None,
                    not_built=built.failed.get(x.name, ""),
                )
            )
    return trials


def _without(result: CellResult, followup: Followup) -> Assessment:
    """Judge a run without the follow-up as if the tree had it."""
    # A run that could not be judged may have left a bundle, too.
    if result.bundle is None or result.assessment.verdict is Verdict.ERROR:
        return result.assessment
    return assess(open_bundle(result.bundle), followup.name)
