# SPDX-License-Identifier: GPL-2.0-or-later
"""The sections of a document that are tables, for all renderers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from vfio_p2p.oracle import RULES
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report import versions
from vfio_p2p.report.change import doubt_of, fate_of, moved_of, ms_of
from vfio_p2p.report.document import Document
from vfio_p2p.report.groups import grouped
from vfio_p2p.report.p2p import RULE, P2pTime, p2p_times
from vfio_p2p.report.sections import (
    ChangeFate,
    Fate,
    FollowupTrial,
    JudgedChange,
    JudgedPatch,
    MutantTrial,
    VersionMatrix,
)
from vfio_p2p.report.spread import FEWEST, Outlier, outliers, spreads


@dataclass(frozen=True)
class SectionTable:
    """A section that is a table.

    :param name: A short name, e.g. ``mutants``.
    :param title: The title.
    :param heads: The titles of the columns.
    :param rows: The cells of each row.
    :param verdicts: The verdict on each row; empty if rows have none.
    :param remarks: What there is to say below the table.
    :param numbers: How many of the last columns are numbers.
    """

    name: str
    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    verdicts: tuple[Verdict, ...]
    remarks: tuple[str, ...] = ()
    numbers: int = 0


def section_tables(document: Document) -> Iterator[SectionTable]:
    """Make a table of each section that a document has.

    :param document: The document.
    """
    if document.change is not None and document.change.trials:
        yield change_table(document.change)
    if document.patches:
        yield patch_table(document.patches)
    if document.mutants:
        yield mutant_table(document.mutants, tuple(_remarks(document)))
    if document.followups:
        yield followup_table(document.followups)
    if document.versions:
        yield from version_tables(document.versions)
    if found := p2p_table(document):
        yield found
    if found := spread_table(document):
        yield found


def change_table(change: JudgedChange) -> SectionTable:
    """Make the table of a change: what it does in which scenario.

    Scenarios without a blackout in which all is as before only have their
    names below it.

    :param change: The change.
    """
    shown = [
        x
        for x in change.trials
        if x.fate is not ChangeFate.KEPT or x.a_ns is not None
    ]
    rest = [x.scenario for x in change.trials if x not in shown]
    remarks = [
        f"{x.scenario}: {x.detail}"
        for x in change.having(ChangeFate.NOT_JUDGED)
    ]
    if rest:
        remarks.append(f"as before, without a blackout: {', '.join(rest)}")
    if doubt := doubt_of(change):
        remarks.append(doubt)
    return SectionTable(
        "change",
        "The change, scenario by scenario",
        ("scenario", "with it", "A, ms", "B, ms", "moved"),
        tuple(
            (
                x.scenario, fate_of(x), ms_of(x.a_ns), ms_of(x.b_ns),
                moved_of(x),
            )
            for x in shown
        ),
        tuple(x.verdict for x in shown),
        tuple(remarks),
    )  # fmt: skip


def patch_table(patches: Sequence[JudgedPatch]) -> SectionTable:
    """The series judged patch by patch: patches down, rules across.

    :param patches: The rows.
    """
    titles = tuple(dict.fromkeys(x for row in patches for x in row.columns))
    return SectionTable(
        "patches",
        "The series, patch by patch",
        ("patch", *titles),
        tuple(
            (
                f"{row.patch} {row.subject}" if row.patch else "base",
                *(row.columns.get(title, "-") for title in titles),
            )
            for row in patches
        ),
        tuple(row.verdict for row in patches),
        (
            "STOP: STOP_COPY is left early, before the stream is complete, "
            "or late, in the cleanup. P2P: the P2P states are asked for. "
            "order: all prepares come before all mains, both passes in their "
            "order. arcs: all of them are legal.",
        ),
    )


def mutant_table(
    trials: Sequence[MutantTrial], remarks: tuple[str, ...] = ()
) -> SectionTable:
    """Make the table of mutants.

    :param trials: The mutants.
    :param remarks: What there is to say below the table.
    """
    return SectionTable(
        "mutants",
        "Mutants",
        ("mutant", "must trip", "in", "fate", ""),
        tuple(
            (x.name, x.trips, ", ".join(x.scenarios), str(x.fate), x.detail)
            for x in trials
        ),
        tuple(x.fate.verdict for x in trials),
        remarks,
    )


def followup_table(trials: Sequence[FollowupTrial]) -> SectionTable:
    """Make the table of follow-ups.

    :param trials: The trials.
    """
    return SectionTable(
        "followups",
        "Follow-ups",
        ("follow-up", "scenario", "without it", "with it"),
        tuple(
            (x.followup, x.scenario, x.without or "-", x.mended or "-")
            for x in trials
        ),
        tuple(x.verdict for x in trials),
        tuple(_followup_remarks(trials)),
    )


def _followup_remarks(trials: Sequence[FollowupTrial]) -> Iterator[str]:
    """Yield the details; what many follow-ups have in common comes once."""
    untried: dict[str, dict[str, None]] = {}
    for x in trials:
        if x.detail and not (x.without or x.mended):
            untried.setdefault(x.detail, {})[x.followup] = None
        elif x.detail:
            yield f"{x.followup}, {x.scenario}: {x.detail}"
    for detail, names in untried.items():
        yield f"{', '.join(names)}: {detail}"


def version_tables(matrix: VersionMatrix) -> Iterator[SectionTable]:
    """Make a table of each scenario: sources down, destinations across.

    :param matrix: The migrations between QEMUs.
    """
    for scenario in versions.scenarios_of(matrix):
        rows = tuple(versions.rows_of(matrix, scenario))
        yield SectionTable(
            "versions",
            f"Between releases, {scenario}",
            ("from, to", *(x.name for x in matrix.qemus)),
            tuple(cells for cells, _ in rows),
            tuple(verdict for _, verdict in rows),
            tuple(versions.remarks_of(matrix, scenario)),
        )


def p2p_table(document: Document) -> SectionTable | None:
    """Make the table of the time that devices spend in P2P arcs.

    :param document: The document.
    :return: None without such arcs, or where all times are a scenario's own.
    """
    times: dict[tuple[str, ...], list[P2pTime]] = {}
    failed = set()
    for run in document.runs:
        if run.exact:
            continue
        for time in p2p_times(run):
            key = (
                run.scenario, run.tree, f"{time.side}: {time.device}", time.arc
            )  # fmt: skip
            times.setdefault(key, []).append(time)
            if any(
                x.rule == RULE and time.device in x.devices
                for x in run.findings
            ):
                failed.add(key)
    if not times:
        return None
    return SectionTable(
        "p2p",
        "Time in P2P arcs",
        ("scenario", "tree", "device", "arc", "arc, ms", "then in P2P, ms"),
        tuple(
            (
                *key,
                _range_ms([x.arc_ns for x in every]),
                _range_ms(
                    [x.stay_ns for x in every if x.stay_ns is not None]
                ),
            )
            for key, every in times.items()
        ),
        tuple(
            Verdict.FAIL if key in failed else Verdict.PASS for key in times
        ),
        (
            "The arc is the way into the P2P state, from which on a device "
            "starts nothing new. The time after it ends with the next arc.",
        ),
        numbers=2,
    )


def spread_table(document: Document) -> SectionTable | None:
    """Make the table of how measured times spread over many runs.

    :param document: The document.
    :return: None where no tree has enough runs.
    """
    groups = [
        group
        for group in grouped(x for x in document.runs if not x.exact)
        if len(group.blackouts) >= FEWEST
    ]
    if not groups:
        return None
    rows = [
        (
            group.scenario,
            group.tree,
            spread.figure,
            str(spread.runs),
            *map(_ms, spread.quantiles_ns),
            _ms(spread.longest_ns),
        )
        for group in groups
        for spread in spreads(group)
    ]
    return SectionTable(
        "spread",
        "Times over many runs, in ms",
        (
            *("scenario", "tree", "figure", "runs", "median"),
            *("90 %", "99 %", "longest"),
        ),
        tuple(rows),
        (),
        tuple(
            f"{outlier.name} stands out: its blackout of "
            f"{_ms(outlier.blackout_ns)} ms is {_ms(outlier.more_ns)} ms "
            f"longer than the median{_mostly(outlier)}."
            for group in groups
            for outlier in outliers(group)
        ),
        numbers=5,
    )


def _mostly(outlier: Outlier) -> str:
    if not outlier.phase:
        return ""
    return f", and {outlier.phase} {_ms(outlier.phase_more_ns)} ms"


def _ms(time_ns: int | None) -> str:
    return "-" if time_ns is None else f"{time_ns / 1e6:.3f}"


def _range_ms(times_ns: Sequence[int]) -> str:
    if not times_ns:
        return "-"
    text = f"{median(times_ns) / 1e6:.3f}"
    if len(times_ns) > 1:
        text += f" (max {max(times_ns) / 1e6:.3f})"
    return text


def fates(trials: Sequence[MutantTrial]) -> str:
    """Say how many mutants met which fate.

    :param trials: The mutants.
    """
    found = [trial.fate for trial in trials]
    return ", ".join(
        f"{found.count(fate)} {fate}" for fate in Fate if fate in found
    )


def proof(document: Document) -> str:
    """Say whether every rule was seen to be broken by something.

    :param document: The document of 'validate --all'.
    """
    if not document.mutants:
        return "rules: not proven, without mutants of this base"
    if not document.unproven:
        return f"rules: {len(RULES)}, each broken by something"
    names = ", ".join(document.unproven)
    return f"rules: unproven, as nothing breaks them: {names}"


def _remarks(document: Document) -> Iterator[str]:
    if document.trees:
        yield proof(document)
        return
    for name, verdict in document.control.items():
        if verdict is not Verdict.PASS:
            yield (
                f"without a mutant, {name}: {verdict}, so that nothing is "
                "proved there"
            )
    if document.unproven:
        names = ", ".join(document.unproven)
        yield f"unproven, as nothing breaks them: {names}"
