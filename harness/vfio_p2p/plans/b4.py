# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge one patch that replaces a patch of the project's series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vfio_p2p.errors import BuildError, PatchError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.devices import load_for
from vfio_p2p.plans.judging.patches import SCENARIOS
from vfio_p2p.plans.matrix import CellResult
from vfio_p2p.plans.runs import judge_trees
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.sources import Chosen, choose
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Patch, Variant
from vfio_p2p.trace import printable

Status = Literal["pass", "warn", "fail"]

_STATUS: dict[Verdict, Status] = {
    Verdict.PASS: "pass",
    Verdict.FAIL: "fail",
}


@dataclass(frozen=True)
class PatchRequest:
    """The patch, and where it is tried.

    :param patch: The patch, as a mail or as ``git format-patch`` writes it.
    :param origin: The source.
    :param setting: Where and how the runs are made.
    """

    patch: bytes
    origin: Origin = Origin()
    setting: Setting = Setting()


@dataclass(frozen=True)
class Check:
    """One result in the form that b4 reads.

    :param status: The status of the check.
    :param summary: One line.
    :param details: Lines that explain it; may be empty.
    """

    status: Status
    summary: str
    details: str = ""


def check_patch(
    request: PatchRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> tuple[Check, ...]:
    """Judge a patch that replaces the project's patch of the same subject.

    The patch is applied on top of the project's patches that precede it.

    :raise InputError: When an option or the source is wrong.
    """
    # Wrong options are found before anything is built.
    request.setting.check()
    scenarios = [
        load_for(name, request.setting, reporter) for name in SCENARIOS
    ]
    patch = Patch("stdin", request.patch)
    chosen = choose(request.origin, reporter, workshop)
    subjects = [known.subject for known in chosen.base.patches]
    if patch.subject not in subjects:
        return (
            Check("warn", "not a patch of the series: nothing to check"),
        )
    workshop.check(request.setting)
    number = subjects.index(patch.subject) + 1
    before = chosen.base.pre + chosen.base.patches[: number - 1]
    # The patches before it are ours, so it is not to blame if they fail.
    workshop.check_patches(chosen.source, before)
    tree = Variant(f"patch-{number}", (*before, patch))
    return _judge(
        chosen, tree, scenarios, request.setting, reporter, workshop
    )


def _judge(
    chosen: Chosen,
    tree: Variant,
    scenarios: Sequence[Scenario],
    setting: Setting,
    reporter: Reporter,
    workshop: Workshop,
) -> tuple[Check, ...]:
    try:
        workshop.check_patches(chosen.source, tree.patches)
        made = judge_trees(
            chosen,
            [(tree, scenario) for scenario in scenarios],
            setting,
            reporter,
            workshop,
        )
    except PatchError as err:
        return (Check("fail", "does not apply", err.what),)
    except BuildError as err:
        return (Check("fail", err.what, err.tail),)
    return tuple(map(_of_run, made.results))


def _of_run(result: CellResult) -> Check:
    found = result.assessment
    details = [
        line
        for finding in found.findings
        for line in (
            f"{finding.rule}: {printable(finding.message)}",
            *finding.lines(),
        )
    ]
    return Check(
        # An unknown result is neither a reason to reject a patch nor a pass.
        _STATUS.get(found.verdict, "warn"),
        f"{result.cell.job.scenario.name}: {found.verdict}, {found.summary}",
        "\n".join([*details, *map(printable, found.notes)]),
    )
