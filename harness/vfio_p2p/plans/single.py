# SPDX-License-Identifier: GPL-2.0-or-later
"""Run one scenario with one tree, and keep its bundle."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.bundle.write import check_replaceable, claimed, pack
from vfio_p2p.errors import HostError, SkipError
from vfio_p2p.machine.files import publishing, remove_tree
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.devices import check_qemu, load_for
from vfio_p2p.plans.installed import choose_subject
from vfio_p2p.plans.matrix import Cell, CellResult
from vfio_p2p.plans.runs import Wanted, jobs_of
from vfio_p2p.plans.setting import OUT, Origin, Setting
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.report.document import Document
from vfio_p2p.report.p2p import gated


@dataclass(frozen=True)
class RunRequest:
    """A request to run one scenario on one tree.

    :param scenario: The name or file of the scenario.
    :param origin: The source.
    :param setting: Where and how the run is made; its folder is not used.
    :param variant: The name of the tree.
    :param bundle: The folder or zip file for the bundle; None puts it into
        the folder ``out``, under the usual name.
    :param most_p2p_ms: How long an arc into a P2P state may take, in
        milliseconds; None allows any time.
    """

    scenario: str
    origin: Origin = Origin()
    setting: Setting = Setting()
    variant: str = "patched"
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
    subject = choose_subject(
        request.origin, [request.variant], setting, reporter, workshop
    )
    (variant,) = subject.variants
    if subject.chosen:
        check_qemu(setting.driver, subject.chosen.source.version)
    usual = f"{variant.name}-{scenario.name}-s{setting.seed}"
    out = request.bundle or OUT / usual
    check_replaceable(out)
    (job,) = jobs_of(
        subject.chosen,
        subject.as_they_are,
        [Wanted(variant, scenario, setting.seed, file=request.scenario)],
        reporter,
        workshop,
    )
    cell = Cell(job)
    workshop.prepare(setting, reporter)
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
        qemu=job.source.version,
        base=subject.base,
        origin=subject.origin,
    )


def _run(
    cell: Cell,
    out: Path,
    setting: Setting,
    reporter: Reporter,
    workshop: Workshop,
) -> CellResult:
    """Make the run under its usual name, and then move its bundle."""
    private = out.with_name(f".{out.name}.run")
    remove_tree(private)
    made = private / cell.name
    alone = replace(setting, out=private, jobs=1)
    try:
        (result,) = workshop.run([cell], alone, reporter)
    finally:
        # The bundle is kept even after an error: a run that differs from an
        # earlier one has to be examined.
        try:
            if made.exists():
                _move(made, out)
        finally:
            remove_tree(private)
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
        shutil.copytree(made, partial, dirs_exist_ok=True)
