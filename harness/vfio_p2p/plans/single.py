# SPDX-License-Identifier: GPL-2.0-or-later
"""Run one scenario with one QEMU or two, and keep its bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from vfio_p2p.bundle.manifest import version_of
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.bundle.write import check_replaceable, claimed, pack
from vfio_p2p.errors import HostError, SkipError, UsageError
from vfio_p2p.machine.files import copy_files, publishing
from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.devices import load_for
from vfio_p2p.plans.ends import (
    End,
    ReadyEnd,
    choose_ends,
    job_between,
    parse_end,
    ready_ends,
)
from vfio_p2p.plans.lacking import check_abilities
from vfio_p2p.plans.machines import pinned, with_machine
from vfio_p2p.plans.matrix import Cell, CellResult
from vfio_p2p.plans.setting import OUT, Origin, Setting
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.report.document import Document, common
from vfio_p2p.report.p2p import gated
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.side import Side
from vfio_p2p.variant import INSTALLED


@dataclass(frozen=True)
class RunRequest:
    """A request to run one scenario on one tree, or between two QEMUs.

    :param scenario: The name or file of the scenario.
    :param origin: The source.
    :param setting: Where and how the run is made; its folder is not used.
    :param variant: The name of the tree.
    :param to: The QEMU of the destination, if it is another one; see
        `vfio_p2p.plans.ends.parse_end`.
    :param to_source: The source of the destination's QEMU, if it is another
        one.
    :param machine: The machine type of the guest.  None is that of the
        scenario or, if that names none and the QEMUs differ, the newest that
        both have.
    :param bundle: The folder or zip file for the bundle; None puts it into
        the folder ``out``, under the usual name.
    :param most_p2p_ms: How long an arc into a P2P state may take, in
        milliseconds; None allows any time.
    """

    scenario: str
    origin: Origin = Origin()
    setting: Setting = Setting()
    variant: str = "patched"
    to: str | None = None
    to_source: Path | None = None
    machine: str | None = None
    bundle: Path | None = None
    most_p2p_ms: float | None = None


def run_one(
    request: RunRequest,
    reporter: Reporter = SILENT,
    workshop: Workshop = LOCAL,
) -> Document:
    """Make one run.

    :return: A report on it; its only run names the bundle and its digest.
    :raise InputError: When a name, an option or a file is wrong.
    :raise BuildError: When the tree does not build.
    :raise HostError: When the run could not be made.
    :raise SkipError: When the scenario is not for this QEMU, or the place
        cannot play it.
    """
    setting = request.setting
    scenario = load_for(request.scenario, setting, reporter)
    setting.check()
    chosen = choose_ends(
        _ends(request), setting, reporter, workshop
    )
    first, last = chosen[0], chosen[-1]
    names = dict.fromkeys([first.variant.name])
    if first.end != last.end:
        names |= {"to": None, last.variant.name: None}
    usual = f"{'-'.join(names)}-{scenario.name}-s{setting.seed}"
    out = request.bundle or OUT / usual
    check_replaceable(out)
    ready = ready_ends(chosen, reporter, workshop)
    scenario = _with_machine(scenario, ready, request.machine, workshop)
    job = job_between(ready[0], ready[-1], scenario, setting.seed)
    check_abilities([job], workshop, {scenario.name: request.scenario})
    cell = Cell(job)
    workshop.prepare(setting, reporter, [scenario])
    waiting = partial(
        reporter.task("run"), 0, 0, "waiting for another vfio-p2p"
    )
    with claimed(out.parent, waiting):
        result = _run(cell, out, setting, reporter, workshop)
    run = msgspec.structs.replace(result.run, bundle=str(out))
    if request.most_p2p_ms is not None:
        run = gated(run, request.most_p2p_ms * 1e6)
    return Document.of(
        (run,),
        qemu=version_of(job.source, job.destination),
        base=common(x.base for x in chosen),
        origin=common(x.origin for x in chosen),
    )


def _ends(request: RunRequest) -> list[End]:
    """Name the QEMUs: one for both sides, or that of each side."""
    if request.to is None:
        if request.to_source:
            raise UsageError(
                "--to-source has no effect without --to",
                "Say with --to which variant of it is the destination.",
            )
        return [End(request.origin, request.variant)]
    return [
        End(request.origin, request.variant),
        parse_end(request.to, request.origin, request.to_source),
    ]


def _with_machine(
    scenario: Scenario,
    ready: Sequence[ReadyEnd],
    wanted: str | None,
    workshop: Workshop,
) -> Scenario:
    """Give a scenario the machine type that its two QEMUs need."""
    if wanted is None and (len(ready) == 1 or scenario.machine):
        return scenario
    if any(x.what.variant.name == INSTALLED for x in ready):
        # Only the hosts could ask it.
        if wanted is None:
            raise UsageError(
                f"the machine types of the variant {INSTALLED!r} are not "
                "known here",
                "Name one that both QEMUs have, with --machine M.",
            )
        return with_machine(scenario, wanted)
    programs = (
        ready[0].programs[Side.SOURCE],
        ready[-1].programs[Side.DESTINATION],
    )
    return pinned(scenario, [workshop.machines(x) for x in programs], wanted)


def _run(
    cell: Cell,
    out: Path,
    setting: Setting,
    reporter: Reporter,
    workshop: Workshop,
) -> CellResult:
    """Make the run under its usual name, and then move its bundle."""
    with temporary_folder(out.parent) as private:
        made = private / cell.name
        alone = replace(setting, out=private, jobs=1)
        try:
            (result,) = workshop.run([cell], alone, reporter)
        finally:
            # The bundle is kept even after an error: a run that differs from
            # an earlier one has to be examined.
            if made.exists():
                _move(made, out)
    if result.bundle is None:
        what, *hints = result.assessment.notes
        if result.assessment.verdict is Verdict.SKIP:
            raise SkipError(
                f"{cell.job.scenario.name} was {what}",
                "Choose another QEMU, place or scenario.",
            )
        hint = " ".join(hints).replace(str(made), str(out))
        raise HostError(what, hint)
    return result


def _move(made: Path, out: Path) -> None:
    # Building takes minutes, in which the path may have come into use.
    check_replaceable(out)
    if out.suffix == ".zip":
        pack(open_bundle(made), out)
        return
    with publishing(out) as partial:
        copy_files(made, partial)
