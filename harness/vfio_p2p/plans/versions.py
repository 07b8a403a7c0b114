# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrate from each of several QEMUs to each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.choice import SEALED
from vfio_p2p.errors import UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.ends import (
    ChosenEnd,
    End,
    ReadyEnd,
    choose_ends,
    job_between,
    parse_end,
    ready_ends,
)
from vfio_p2p.plans.judging import versions as judging
from vfio_p2p.plans.judging.versions import PairRun
from vfio_p2p.plans.machines import (
    common_machine,
    pinned,
    with_machine,
)
from vfio_p2p.plans.matrix import Cell, CellResult
from vfio_p2p.plans.modes import check_fixed
from vfio_p2p.plans.runs import forget_reports, write_reports
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.plans.sources import choose
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.report.document import Document
from vfio_p2p.report.sections import JudgedTree
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import default_base
from vfio_p2p.side import Side
from vfio_p2p.verdict.assess import NOT_ALIKE, Assessment

SCENARIOS = ("one-device", "two-devices")

# Releases with upstream's series: the oldest and the newest that are known
# to work here, one built and one as it is.
_OTHERS = ("v10.2:stock", "debian:11.1")

_APART = Assessment(
    Verdict.SKIP,
    NOT_ALIKE,
    notes=("the two have no machine type pc-q35-VERSION in common",),
)


@dataclass(frozen=True)
class VersionsRequest:
    """A request to migrate between QEMUs of different releases.

    :param origin: The source of the variants that name no base.
    :param setting: Where and how the runs are made.
    :param names: The QEMUs, as `vfio_p2p.plans.ends.parse_end` reads them;
        empty means the usual ones.
    :param machine: The machine type of all runs.  None is the newest that
        the two QEMUs of a run have.
    """

    origin: Origin = Origin()
    setting: Setting = Setting()
    names: tuple[str, ...] = ()
    machine: str | None = None


def validate_versions(
    request: VersionsRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> Document:
    """Run one device and two devices from each QEMU to each QEMU.

    The bundles, ``report.json`` and ``junit.xml`` are left in the folder of
    the setting.

    :raise UsageError: When a name is wrong, or there are not two QEMUs.
    :raise InputError: When an option or the source is wrong.
    :raise BuildError: When a tree does not build.
    """
    setting = request.setting
    check_fixed("--versions", setting)
    if setting.at != SEALED:
        raise UsageError(
            "--versions judges in the sealed testbed",
            "Leave out --at. At a place of real devices, 'vfio-p2p run --to' "
            "makes one run.",
        )
    workshop.check(setting)
    chosen = choose_ends(
        _ends(request, reporter, workshop), setting, reporter, workshop
    )
    _check_names(chosen)
    forget_reports(setting.out)
    ready = ready_ends(chosen, reporter, workshop)
    scenarios = [load(name) for name in SCENARIOS]
    found = _run(ready, scenarios, request, reporter, workshop)
    document = judging.document(
        [
            JudgedTree(
                name=x.what.name,
                qemu=x.programs[Side.SOURCE].version,
                base=x.what.base,
                origin=x.what.origin,
            )
            for x in ready
        ],
        found,
    )
    write_reports(setting.out, document)
    return document


def _ends(
    request: VersionsRequest, reporter: Reporter, workshop: Workshop
) -> list[End]:
    """Name the QEMUs."""
    origin = request.origin
    if request.names:
        named = [parse_end(x, origin) for x in request.names]
        if not any(x.built and x.origin == origin for x in named) and (
            origin.base or origin.source
        ):
            raise UsageError(
                "--base and --source have no effect, since no variant is "
                "built from that source",
                "Leave them out, or name such a variant.",
            )
        return list(dict.fromkeys(named))
    own = choose(origin, reporter, workshop)
    found = [End(origin, name) for name in own.default_variants]
    if own.base.name != default_base().name:
        # A release of one's own joins the usual ones.
        usual = Origin(refresh=origin.refresh)
        found = [End(usual, "base"), End(usual, "patched"), found[-1]]
    others = [parse_end(x, Origin(refresh=origin.refresh)) for x in _OTHERS]
    found += [x for x in others if x.origin.base != own.base.name]
    return found


def _check_names(chosen: Sequence[ChosenEnd]) -> None:
    if len(chosen) < 2:
        raise UsageError(
            "--versions needs two QEMUs at least",
            "Name another one with --variant or --qemu.",
        )
    for name, count in Counter(x.name for x in chosen).items():
        if count > 1:
            raise UsageError(
                f"{count} of the QEMUs would be named {name!r}",
                "Name each QEMU once, and only one source of each base.",
            )


def _run(
    ready: Sequence[ReadyEnd],
    scenarios: Sequence[Scenario],
    request: VersionsRequest,
    reporter: Reporter,
    workshop: Workshop,
) -> list[PairRun]:
    """Make the runs of all ordered pairs."""
    setting = request.setting
    machines = {
        x.what.name: workshop.machines(x.programs[Side.SOURCE]) for x in ready
    }
    if request.machine:
        # A name that no QEMU has is a mistake of the user.
        pinned(scenarios[0], list(machines.values()), request.machine)
    cells: dict[tuple[str, str, str], Cell] = {}
    apart: dict[tuple[str, str, str], CellResult] = {}
    for scenario in scenarios:
        for first in ready:
            for second in ready:
                key = (first.what.name, second.what.name, scenario.name)
                both = [machines[x] for x in key[:2]]
                known = request.machine or common_machine(both)
                played = (
                    with_machine(scenario, known) if known else scenario
                )
                cell = Cell(
                    job_between(first, second, played, setting.seed),
                    prefix=first.what.prefix,
                    to_prefix=second.what.prefix,
                )
                if known:
                    cells[key] = cell
                else:
                    apart[key] = CellResult.without_run(cell, _APART)
    results = workshop.run(list(cells.values()), setting, reporter)
    made = apart | dict(zip(cells, results, strict=True))
    return [
        _pair(made[first.what.name, second.what.name, scenario.name],
              first, second)
        for scenario in scenarios
        for first in ready
        for second in ready
    ]  # fmt: skip


def _pair(
    result: CellResult, first: ReadyEnd, second: ReadyEnd
) -> PairRun:
    source, destination = first.what.name, second.what.name
    said = ""
    if result.bundle is not None:
        ended = open_bundle(result.bundle).manifest.result
        said = ended.message
    return PairRun(
        source,
        destination,
        replace(result.run, tree=f"{source} to {destination}"),
        said,
    )
