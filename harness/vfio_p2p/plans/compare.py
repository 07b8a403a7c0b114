# SPDX-License-Identifier: GPL-2.0-or-later
"""Compare A with B: which is slower, by how much, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.downtime.compare import (
    RELEVANT,
    Change,
    Comparison,
    compare,
)
from vfio_p2p.errors import HostError, UsageError
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.plans.compared import (
    ComparedSide,
    JudgedRun,
    Operand,
    judged,
    of_runs,
    runs_of_folder,
)
from vfio_p2p.plans.devices import load_for
from vfio_p2p.plans.installed import choose_subject
from vfio_p2p.plans.judgements import BundleJudgement
from vfio_p2p.plans.runs import Wanted, run_trees
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.report.comparison import compared_sets
from vfio_p2p.report.document import Document

SEEDS = 10
SCENARIO = "one-device"

Percents = tuple[float, float]

# The options whose names differ from those of the fields.
_OPTIONS = {"driver": "device"}
_ACROSS = "A and B were made in different testbeds, which also differ in time"


@dataclass(frozen=True)
class CompareRequest:
    """A request to compare A with B, and the limits of the difference.

    :param a: The name of a variant, or a folder of bundles or logs.
    :param b: The same for B.
    :param origin: The source of variants.
    :param setting: Where and how variants are run.
    :param scenario: The name or file of the scenario.  Of a folder, only
        bundles of that name are taken.  None is one device for variants, and
        all bundles for folders.
    :param scenario_b: The scenario of B, if it is another one.
    :param unpaired: Whether runs with the same seed are independent samples.
    :param across: Whether runs of different testbeds are compared, too.
    :param fail_above: B fails if it is slower by more percent than this.
    :param expect: B fails if its difference in percent is not in this range.
    """

    a: str
    b: str
    origin: Origin = Origin()
    setting: Setting = Setting(seeds=SEEDS)
    scenario: str | None = None
    scenario_b: str | None = None
    unpaired: bool = False
    across: bool = False
    fail_above: float | None = None
    expect: Percents | None = None


def compare_runs(
    request: CompareRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> Document:
    """Compare the blackouts of two sets of runs, phase by phase.

    :return: A report with a comparison.  Without a gate its verdict is PASS
        if there is an answer, and INCONCLUSIVE if these runs cannot tell.
    :raise UsageError: When the two have nothing in common.
    :raise InputError: When a name, an option or a file is wrong.
    :raise HostError: When a run could not be made.
    """
    sides = (
        Operand(request.a, request.scenario),
        Operand(request.b, request.scenario_b or request.scenario),
    )
    # Folders are read first, since faults in them show soon.
    found = {
        side: runs_of_folder(side, request.setting, reporter)
        for side in sides
        if not side.is_tree
    }
    whole = len(found) == len(set(sides))
    if not all(x.sealed for x in found.values()) and (
        not whole or any(x.sealed for x in found.values())
    ):
        raise UsageError(
            "sealed runs and runs of real hosts cannot be compared",
            "Compare logs with logs, and bundles with bundles or variants.",
        )
    if whole:
        _check_unused(request)
    else:
        found |= _made(sides, request, reporter, workshop)
    a, b = (found[side] for side in sides)
    if a.testbed != b.testbed and not request.across:
        raise UsageError(
            f"A was made in the testbed {a.testbed}, and B in {b.testbed}: "
            "their times differ, whatever the QEMU is",
            "Make both in one testbed, or compare them all the same with "
            "--across-testbeds.",
        )
    return _document(a, b, request)


def _document(
    a: ComparedSide, b: ComparedSide, request: CompareRequest
) -> Document:
    comparison = compare(
        a.samples,
        b.samples,
        pairs=False if request.unpaired else None,
        relevant=request.fail_above or RELEVANT,
    )
    notes = tuple(
        f"{x}: {y}" for x, z in (("A", a), ("B", b)) for y in z.notes
    )
    if a.testbed != b.testbed:
        notes = (_ACROSS, *notes)
    comparison = replace(comparison, notes=(*notes, *comparison.notes))
    verdict = _verdict(comparison, request)
    if not (a.whole and b.whole):
        verdict = worst([verdict, Verdict.INCONCLUSIVE])
    return Document.of(
        (*a.named("A"), *b.named("B")),
        qemu=a.what.qemu if a.what.qemu == b.what.qemu else "",
        verdict=verdict,
        comparison=compared_sets(a.what, b.what, comparison),
    )


def _check_unused(request: CompareRequest) -> None:
    """Refuse options about running if nothing is run."""
    kept = set()
    if request.scenario or request.scenario_b:
        # The driver and the profile are part of the scenario's name.
        kept = {"driver", "profile"}
    usual = CompareRequest("", "")
    unused = [
        f"--{_OPTIONS.get(field.name, field.name)}"
        for given, default in (
            (request.origin, usual.origin),
            (request.setting, usual.setting),
        )
        for field in fields(default)
        if field.name not in kept
        and getattr(given, field.name) != getattr(default, field.name)
    ]
    if unused:
        raise UsageError(
            f"{', '.join(unused)}: these options have no effect, because A "
            "and B are existing runs",
            "Leave them out, or name a variant to be run.",
        )


def _made(
    sides: Sequence[Operand],
    request: CompareRequest,
    reporter: Reporter,
    workshop: Workshop,
) -> dict[Operand, ComparedSide]:
    """Build the trees and run them, A and B in turn."""
    # Bad input is found before anything is built.
    setting = request.setting
    scenarios = {
        x: load_for(x.scenario or SCENARIO, setting, reporter)
        for x in sides
        if x.is_tree
    }
    setting.check()
    names = dict.fromkeys(side.text for side in scenarios)
    subject = choose_subject(
        request.origin, names, setting, reporter, workshop
    )
    trees = {side: subject.named[side.text] for side in scenarios}
    # With another name, timers would fire at other times in the testbed, so
    # two different scenarios may share a name.
    alike = len({x.name for x in scenarios.values()}) == 1
    differ = len({x.digest for x in scenarios.values()}) > 1
    wanted = {
        (side, seed): Wanted(
            trees[side],
            scenarios[side],
            seed,
            "-b" if alike and differ and side == sides[1] else "",
            side.scenario or SCENARIO,
        )
        for seed in setting.every_seed
        for side in scenarios
    }
    made = run_trees(
        subject.chosen,
        list(wanted.values()),
        setting,
        reporter,
        workshop,
        subject.as_they_are,
    )
    found: dict[Operand, list[JudgedRun]] = {x: [] for x in scenarios}
    for (side, seed), one in zip(wanted, made.results, strict=True):
        if one.bundle is None:
            why = "; ".join(one.assessment.notes)
            raise HostError(
                f"{side.text}, seed {seed}: {why}",
                "Finished runs are kept; the same command resumes there.",
            )
        judgement = BundleJudgement.of(
            open_bundle(one.bundle), one.assessment
        )
        found[side].append(judged(judgement))
    return {side: of_runs(side, x) for side, x in found.items()}


def _verdict(found: Comparison, request: CompareRequest) -> Verdict:
    gates = []
    if request.fail_above is not None:
        gates.append(found.gate(float("-inf"), request.fail_above))
    if request.expect is not None:
        gates.append(found.gate(*request.expect))
    if not gates:
        unclear = found.change is Change.UNCLEAR and not found.where
        return Verdict.INCONCLUSIVE if unclear else Verdict.PASS
    return worst(gates)
