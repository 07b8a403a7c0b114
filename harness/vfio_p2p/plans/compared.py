# SPDX-License-Identifier: GPL-2.0-or-later
"""The runs of A or of B, from a folder or made for the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vfio_p2p.bundle.provenance import SealedProvenance
from vfio_p2p.downtime.compare import RunSample
from vfio_p2p.downtime.logs import read_host_run
from vfio_p2p.errors import UsageError
from vfio_p2p.names import suggest
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.devices import load_for
from vfio_p2p.plans.judgements import BundleJudgement, judgements_in
from vfio_p2p.plans.setting import Setting
from vfio_p2p.progress import Reporter
from vfio_p2p.report.collect import has_only_logs, is_run, runs_in
from vfio_p2p.report.run import Run
from vfio_p2p.report.runs import HOST_LOGS, run_of_logs
from vfio_p2p.report.sections import ComparedRuns
from vfio_p2p.variant import is_tree, tree_names

_SHOWN = 12


@dataclass(frozen=True)
class JudgedRun:
    """A run that may be a sample.

    :param kind: What is equal in all runs that may be samples of one set.
    :param run: The run, as reports show it.
    :param sample: What is compared; None if the run was left out.
    :param wrong: What is wrong with it.
    :param left_out: Why it was left out; empty if it was not.
    :param testbed: The beginning of the digest of its testbed; empty if it
        was not sealed.
    """

    kind: tuple[str, ...]
    run: Run
    sample: RunSample | None
    wrong: tuple[str, ...]
    left_out: str
    testbed: str


@dataclass(frozen=True)
class Operand:
    """A or B, as it was asked for.

    :param text: The name of a variant, or a folder.
    :param scenario: The scenario that goes with it, if one was named.
    """

    text: str
    scenario: str | None

    @property
    def is_tree(self) -> bool:
        """Whether it is to be built and run; otherwise it is a folder."""
        return is_tree(self.text)


@dataclass(frozen=True)
class ComparedSide:
    """The runs of A or of B.

    :param what: The variant or folder that was asked for.
    :param runs: All of them, as reports show them.
    :param samples: Those that can be compared.
    :param testbed: The testbed in which they were made; empty if they were
        not sealed.
    :param notes: What is wrong with the runs.
    :param whole: Whether no run was left out.
    """

    what: ComparedRuns
    runs: tuple[Run, ...]
    samples: tuple[RunSample, ...]
    testbed: str = ""
    notes: tuple[str, ...] = ()
    whole: bool = True

    @property
    def sealed(self) -> bool:
        """Whether they were made in the testbed."""
        return bool(self.testbed)

    def named(self, letter: str) -> tuple[Run, ...]:
        """Return the runs, all with the name of one tree.

        :param letter: A or B.
        """
        tree = f"{letter} ({self.what.name})"
        return tuple(
            msgspec.structs.replace(run, tree=tree) for run in self.runs
        )


def runs_of_folder(
    side: Operand, setting: Setting, reporter: Reporter
) -> ComparedSide:
    """Read the runs of a folder.

    :param side: Names the folder.
    :param setting: Adapts the scenario that the side names.
    :param reporter: Told what devices leave out of it.
    :raise UsageError: When there are none, or they are of several kinds.
    :raise BundleError: When one is damaged or newer than this program.
    :raise TraceError: When a log is not a trace.
    """
    folder = Path(side.text)
    if not folder.exists():
        raise UsageError(
            f"{side.text} is neither a variant nor a folder of bundles",
            f"{suggest(side.text, tree_names())} Add +NAME for a mutant, or "
            "give a folder of bundles or logs.",
        )
    paths = [folder]
    if folder.is_dir() and not is_run(folder):
        paths = runs_in(folder)
    logs = [path for path in paths if has_only_logs(path)]
    if logs and logs == paths and side.scenario is None:
        return _of_logs(side, logs)
    if logs:
        raise UsageError(
            f"{logs[0]} has the logs of a run, but is no bundle",
            "Keep such runs apart from bundles, and name no scenario.",
        )
    wanted = None
    if side.scenario is not None:
        wanted = load_for(side.scenario, setting, reporter).name
    found = [
        judged(x)
        for x in judgements_in(paths)
        if wanted in (None, x.run.scenario)
    ]
    if not found:
        raise UsageError(
            f"{side.text} has no such bundles",
            "Give the folder that has them, and the name of their scenario.",
        )
    kinds = sorted({x.kind for x in found})
    if len(kinds) > 1:
        differ = [x for x in zip(*kinds, strict=True) if len(set(x)) > 1]
        raise UsageError(
            f"{side.text}: bundles of more than one kind: "
            + ", ".join(map(" ".join, zip(*differ, strict=True))),
            "Keep bundles of each kind apart, or give --scenario.",
        )
    return of_runs(side, found)


def _kind(run: Run, testbed: str) -> tuple[str, ...]:
    """Return what is equal in all runs that may be samples of one set."""
    inputs = run.inputs
    assert inputs
    # An installed QEMU was not built here.
    builds = dict.fromkeys(
        (x.build or x.sha256)[:_SHOWN]
        for x in (inputs.source, inputs.destination)
    )
    return (
        inputs.variant,
        run.scenario,
        f"({inputs.scenario[:_SHOWN]})",
        inputs.version,
        f"(build {' to '.join(builds)})",
        f"in the testbed {testbed}" if testbed else "measured",
    )


def judged(judgement: BundleJudgement) -> JudgedRun:
    """Take from the judgement on a bundle what a comparison needs.

    :param judgement: What the bundle came to.
    """
    run = judgement.run
    assert run.inputs
    assert judgement.breakdown
    testbed = ""
    if isinstance(run.inputs.place, SealedProvenance):
        testbed = run.inputs.place.testbed[:_SHOWN]
    name = Path(run.bundle).name
    wrong = [f"breaks the rule {x.rule}" for x in run.findings]
    if run.verdict is Verdict.INCONCLUSIVE:
        wrong.append(f"is inconclusive: {'; '.join(run.notes)}")
    why = ""
    if run.verdict is Verdict.ERROR or run.blackout_ns is None:
        why = "no blackout"
        if run.verdict is Verdict.ERROR:
            why = "in error"
        why += f": {'; '.join((run.summary, *run.notes))}"
    return JudgedRun(
        kind=_kind(run, testbed),
        run=run,
        sample=None
        if why
        else RunSample(
            run.seed if run.exact else None, judgement.breakdown, name
        ),
        wrong=tuple(dict.fromkeys(wrong)),
        left_out=f"{name} is left out, {why}" if why else "",
        testbed=testbed,
    )


def of_runs(side: Operand, runs: Sequence[JudgedRun]) -> ComparedSide:
    """Put the runs of one side together.

    :param side: What was asked for.
    :param runs: The runs, at least one.
    """
    wrong: dict[str, list[str]] = {}
    for one in runs:
        for text in one.wrong:
            wrong.setdefault(text, []).append(str(one.run.seed))
    left_out = [x.left_out for x in runs if x.left_out]
    first = runs[0].run
    return ComparedSide(
        what=ComparedRuns(
            name=side.text
            if side.is_tree
            else f"{first.variant} in {side.text}",
            qemu=first.qemu,
            scenario=first.scenario,
            latencies=first.latencies,
        ),
        runs=tuple(x.run for x in runs),
        samples=tuple(x.sample for x in runs if x.sample),
        notes=(
            *(f"{x} (seeds {', '.join(y)})" for x, y in wrong.items()),
            *left_out,
        ),
        whole=not left_out,
        testbed=runs[0].testbed,
    )


def _of_logs(side: Operand, folders: Sequence[Path]) -> ComparedSide:
    hosts = [read_host_run(folder) for folder in folders]
    runs = tuple(map(run_of_logs, folders, hosts))
    versions = dict.fromkeys(run.qemu.removeprefix("QEMU ") for run in runs)
    return ComparedSide(
        what=ComparedRuns(
            name=side.text,
            qemu=f"QEMU {', '.join(versions)}",
            scenario=HOST_LOGS,
        ),
        runs=runs,
        samples=tuple(host.sample for host in hosts),
    )
