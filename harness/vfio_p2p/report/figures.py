# SPDX-License-Identifier: GPL-2.0-or-later
"""What the reports for people count: groups of runs, phases, commands."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from vfio_p2p.devices import Driver
from vfio_p2p.downtime import (
    BlackoutPhase,
    Breakdown,
    CriticalLink,
    Interval,
    PhaseName,
)
from vfio_p2p.downtime.compare import Comparison, RunSample, compare
from vfio_p2p.downtime.metrics import PHASE
from vfio_p2p.downtime.stats import Effect
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.report.document import Document, Finding, GuestGap, Run
from vfio_p2p.report.model import ranges
from vfio_p2p.scenario.profile import MODEL
from vfio_p2p.timeline import Blackout

TOTAL = "blackout"
# Other figures for the same; they begin and end elsewhere.
QMP = "QMP downtime"
RESUME = "STOP to RESUME"
GUEST = "guest-visible gap"
# With the blackout they add up to it.
GUEST_REST = "  rest of a period"
GUEST_STOP = "  stopping vCPU"
GUEST_AFTER = "  to first beat"

_OF_GUEST: Mapping[str, Callable[[GuestGap], int]] = {
    GUEST: lambda gap: gap.duration_ns,
    GUEST_REST: lambda gap: gap.rest_ns,
    GUEST_STOP: lambda gap: gap.pause_ns + gap.stop_request_ns,
    GUEST_AFTER: lambda gap: gap.after_ns,
}
_BESIDE = (QMP, RESUME, *_OF_GUEST)
_ORDER = {str(name): place for place, name in enumerate(PhaseName)}


@dataclass(frozen=True)
class Group:
    """The runs of one scenario with one tree.

    :param tree: Name of the tree.
    :param scenario: Name of the scenario.
    :param runs: The runs, at least one.
    """

    tree: str
    scenario: str
    runs: tuple[Run, ...]

    @property
    def verdict(self) -> Verdict:
        """Verdict over its runs."""
        return worst(run.verdict for run in self.runs)

    @property
    def counts(self) -> str:
        """How many runs came to which verdict."""
        found = Counter(run.verdict for run in self.runs)
        return ", ".join(f"{n} {name}" for name, n in found.most_common())

    @property
    def outcomes(self) -> str:
        """How the runs ended."""
        return ", ".join(dict.fromkeys(run.summary for run in self.runs))

    @property
    def seeds(self) -> str:
        """The seeds, e.g. ``1-10, 42``."""
        return ranges([run.seed for run in self.runs])

    @property
    def blackouts(self) -> tuple[int, ...]:
        """All blackouts, nanoseconds."""
        return tuple(
            run.blackout_ns
            for run in self.runs
            if run.blackout_ns is not None
        )

    @property
    def middle_ns(self) -> float | None:
        """Median of the blackouts, nanoseconds."""
        return _median(self.blackouts)

    @property
    def qmp_downtime_ms(self) -> float | None:
        """Median of what QMP says."""
        return _median(
            [
                run.qmp_downtime_ms
                for run in self.runs
                if run.qmp_downtime_ms is not None
            ]
        )

    @property
    def middle(self) -> Run | None:
        """The run with the median blackout, the lower of two."""
        known = sorted(
            (run for run in self.runs if run.blackout_ns is not None),
            key=lambda run: (run.blackout_ns, run.seed),
        )
        return known[(len(known) - 1) // 2] if known else None

    def durations(self, phase: str) -> list[int]:
        """A phase of every run that has it, nanoseconds.

        :param phase: Its name, `TOTAL`, or that of another figure.
        """
        return [
            duration_ns
            for run in self.runs
            if (duration_ns := _duration_ns(run, phase)) is not None
        ]


@dataclass(frozen=True)
class Row:
    """One phase of several groups.

    :param name: The phase, or `TOTAL`.
    :param medians: One for each group, nanoseconds; None where no run has
        it.
    :param effect: Second group less first; None unless they are compared.
    """

    name: str
    medians: tuple[float | None, ...]
    effect: Effect | None = None


@dataclass(frozen=True)
class Table:
    """The phases of one scenario.

    :param scenario: Its name.
    :param groups: Those of its groups that have a blackout.
    :param rows: The phases, and `TOTAL` as the last.
    :param beside: Other figures that the runs have for it.
    :param comparison: Of two groups; None of any other number, or without
        phases that are known.
    """

    scenario: str
    groups: tuple[Group, ...]
    rows: tuple[Row, ...]
    beside: tuple[Row, ...]
    comparison: Comparison | None

    @property
    def unseen(self) -> tuple[str, ...]:
        """What the logs cannot tell, and why."""
        return tuple(
            dict.fromkeys(
                f"{x.what}: {x.why}"
                + (f" (its time is in {x.within})" if x.within else "")
                for group in self.groups
                for run in group.runs
                for x in run.not_observable
            )
        )


def groups(document: Document) -> tuple[Group, ...]:
    """All groups, scenario by scenario.

    :param document: The report.
    """
    found: dict[tuple[str, str], list[Run]] = {}
    for run in document.runs:
        found.setdefault((run.scenario, run.tree), []).append(run)
    return tuple(
        Group(tree, scenario, tuple(found[scenario, tree]))
        for scenario in document.scenarios
        for tree in document.trees
        if (scenario, tree) in found
    )


def tables(document: Document) -> tuple[Table, ...]:
    """The phases, scenario by scenario, where there was a blackout.

    :param document: The report.
    """
    every = groups(document)
    found = []
    for scenario in document.scenarios:
        having = tuple(
            x for x in every if x.scenario == scenario and x.blackouts
        )
        if having:
            found.append(_table(scenario, having))
    return tuple(found)


def _table(scenario: str, having: tuple[Group, ...]) -> Table:
    compared = _compared(*having) if len(having) == 2 else None
    if compared is not None:
        parts = [x for x in compared.rows[1:] if x.name.startswith(PHASE)]
        rows = [
            Row(x.name.removeprefix(PHASE), (x.a_ns, x.b_ns), x.effect)
            for x in (*parts, compared.rows[0])
        ]
    else:
        names = {
            part.name
            for group in having
            for run in group.runs
            for part in run.phases
        }
        known = sorted(names, key=lambda x: (_ORDER.get(x, len(_ORDER)), x))
        rows = [_row(name, having) for name in (*known, TOTAL)]
    beside = [_row(name, having) for name in _BESIDE]
    return Table(
        scenario,
        having,
        tuple(rows),
        tuple(row for row in beside if any(row.medians)),
        compared,
    )


def _row(name: str, having: Sequence[Group]) -> Row:
    return Row(name, tuple(_median(x.durations(name)) for x in having))


def _compared(first: Group, second: Group) -> Comparison | None:
    samples = [
        [
            RunSample(run.seed, parts, run.bundle)
            for run in group.runs
            if (parts := _breakdown(run)) is not None
        ]
        for group in (first, second)
    ]
    found = compare(*samples)
    return found if found.rows else None


def _breakdown(run: Run) -> Breakdown | None:
    """The blackout of a run; None if it is not known, or no such thing."""
    try:
        path = tuple(
            CriticalLink(
                PhaseName(x.phase),
                Interval(
                    x.side, x.device, x.activity, PhaseName(x.phase),
                    x.start_ns, x.end_ns,
                )
                if x.device
                else None,
                x.start_ns,
                x.end_ns,
            )
            for x in run.critical_path
        )
        return Breakdown(
            Blackout(run.blackout_ns, True, "", 0),
            phases=tuple(
                BlackoutPhase(PhaseName(x.name), x.start_ns, x.end_ns)
                for x in run.phases
            ),
            intervals=tuple(x.interval for x in path if x.interval),
            critical_path=path,
        )
    except ValueError:
        # A report can be anybody's.
        return None


def _duration_ns(run: Run, phase: str) -> int | None:
    if phase == TOTAL:
        return run.blackout_ns
    if phase == RESUME:
        return run.stop_to_resume_ns
    if phase == QMP:
        known = run.qmp_downtime_ms
        return None if known is None else known * 10**6
    if phase in _OF_GUEST:
        return _OF_GUEST[phase](run.guest_gap) if run.guest_gap else None
    return next(
        (x.duration_ns for x in run.phases if x.name == phase), None
    )


@dataclass(frozen=True)
class Broken:
    """One finding, and the runs that it was made in.

    :param finding: As in the first of them.
    :param runs: Numbers of the runs in the document, 0 is the first.
    :param known: Whether their scenario expects it.
    """

    finding: Finding
    runs: tuple[int, ...]
    known: bool = False


def broken(document: Document) -> tuple[Broken, ...]:
    """All findings, those that say the same only once; known ones last.

    :param document: The report.
    """
    found = _alike((run.tree, run.findings) for run in document.runs)
    known = _alike((run.tree, run.known) for run in document.runs)
    return tuple(
        Broken(finding, tuple(numbers), expected)
        for expected, every in ((False, found), (True, known))
        for finding, numbers in every
    )


def _alike(
    runs: Iterable[tuple[str, Sequence[Finding]]],
) -> Iterable[tuple[Finding, Iterable[int]]]:
    """Findings of runs by what they say, with the numbers of the runs."""
    found: dict[tuple[str, ...], tuple[Finding, dict[int, None]]] = {}
    for number, (tree, findings) in enumerate(runs):
        for finding in findings:
            key = (tree, finding.rule, finding.side, finding.message)
            found.setdefault(key, (finding, {}))[1][number] = None
    return found.values()


def commands(document: Document) -> tuple[str, ...]:
    """What runs it again: one line for each group, for a shell.

    That is with Debian's QEMU of its version; see `exact_command`.

    :param document: The report.
    """
    seeds: dict[str, list[int]] = {}
    for run in document.runs:
        base = _base(run) or document.base
        command = shlex.join(
            [
                "vfio-p2p", "run", *_scenario(run),
                "--variant", run.variant,
                *(("--base", base) if base else ()), "--seed",
            ]
        )
        seeds.setdefault(command, []).append(run.seed)
    return tuple(_for_each(command, found) for command, found in seeds.items())


def exact_command(document: Document) -> str:
    """What makes a run again to the byte; empty if no bundle tells.

    :param document: The report.
    """
    bundles = [
        run.bundle
        for run in document.runs
        if run.bundle and run.inputs and run.inputs.source.made_of
    ]
    if not bundles:
        return ""
    bundle = shlex.quote(bundles[0]) if len(bundles) == 1 else "BUNDLE"
    return f"vfio-p2p reproduce {bundle}"


def _base(run: Run) -> str:
    """The base for the QEMU of a run: its release; empty if not known."""
    version = run.inputs.source.version if run.inputs else ""
    found = re.search(r"[0-9]+\.[0-9]+", version)
    return f"v{found[0]}" if found else ""


def _scenario(run: Run) -> tuple[str, ...]:
    """A scenario of other devices or latencies has another name."""
    driver = run.inputs.place.driver if run.inputs else Driver.P2PSIM
    if driver != Driver.P2PSIM:
        name = run.scenario.removesuffix(f"-{driver}")
        return (name, "--device", driver)
    found = re.fullmatch(rf"profile (\S+), {MODEL}", run.latencies)
    if found is None or not run.scenario.endswith(f"-{found[1]}"):
        return (run.scenario,)
    name = run.scenario.removesuffix(f"-{found[1]}")
    return (name, "--profile", found[1])


def latencies(document: Document) -> tuple[str, ...]:
    """Of which model the latencies are, and in which scenarios.

    :param document: The report.
    """
    found: dict[str, dict[str, None]] = {}
    for run in document.runs:
        if run.latencies:
            found.setdefault(run.latencies, {})[run.scenario] = None
    return tuple(
        f"{text}, in {', '.join(names)}" for text, names in found.items()
    )


def _for_each(command: str, found: list[int]) -> str:
    seeds = sorted(set(found))
    if len(seeds) == 1:
        return f"{command} {seeds[0]}"
    words = " ".join(map(str, seeds))
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        words = f"$(seq {seeds[0]} {seeds[-1]})"
    return f"for n in {words}; do {command} $n; done"


def quartiles(values: Sequence[int]) -> tuple[float, float, float]:
    """First quartile, median and third quartile.

    :param values: At least one.
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ms(time_ns: float) -> str:
    """A time in milliseconds: to the microsecond, as QEMU's logs are, or
    to the nanosecond if it was measured so.

    :param time_ns: In nanoseconds.
    """
    exact = isinstance(time_ns, int) and time_ns % 1000
    return f"{time_ns / 1e6:.{6 if exact else 3}f}"


def _median(values: Sequence[int]) -> float | None:
    return median(values) if values else None
