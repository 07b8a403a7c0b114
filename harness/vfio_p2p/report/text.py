# SPDX-License-Identifier: GPL-2.0-or-later
"""The report for a terminal.

The commands that judge something print this text.  Only long names and
lines of logs make a line longer than 79 characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from textwrap import wrap

from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report import change, demo
from vfio_p2p.report.comparison import comparison_lines
from vfio_p2p.report.document import Document
from vfio_p2p.report.figures import (
    GUEST,
    bound_text,
    durations,
    gap_bound_text,
)
from vfio_p2p.report.groups import RunGroup, grouped, ranges
from vfio_p2p.report.run import Run
from vfio_p2p.report.section_tables import (
    SectionTable,
    change_table,
    fates,
    mutant_table,
    patch_table,
    proof,
    section_tables,
    version_tables,
)
from vfio_p2p.report.sections import Fate, VersionMatrix
from vfio_p2p.report.setup import remarks_of
from vfio_p2p.report.tables import table_lines
from vfio_p2p.report.versions import machines_of
from vfio_p2p.trace import printable

_SUBJECT_WIDTH = 31
_LEGEND_WIDTH = 76

# In the order of the closing line.
_WORDS = {
    Verdict.PASS: "passed",
    Verdict.FAIL: "failed",
    Verdict.INCONCLUSIVE: "inconclusive",
    Verdict.SKIP: "skipped",
    Verdict.ERROR: "in error",
}

def render(document: Document) -> str:
    """Render the sections that a document has, and its verdict.

    :param document: The document.
    """
    lines: list[str] = []
    for section in _sections(document):
        if lines and lines[-1]:
            lines.append("")
        lines += section
    return "\n".join([*lines, *_closing(document)]) + "\n"


def _sections(document: Document) -> Iterator[list[str]]:
    if document.comparison is not None:
        yield [*comparison_lines(document.comparison), ""]
    if document.change is not None:
        yield [*_change(document), ""]
    if document.patches:
        yield [*_patches(document), ""]
    if document.versions:
        yield [*_versions(document, document.versions), ""]
    elif document.trees:
        yield _trees(document)
    elif document.picture:
        yield [*demo.lines(document.runs), ""]
    elif not _has_own_runs(document):
        yield [*_runs(document), ""]
    for found in section_tables(document):
        if found.name in ("patches", "versions", "change"):
            continue
        if found.numbers:
            yield [f"{found.title}:", *_plain(found), ""]
        elif found.name != "mutants" or not document.trees:
            yield _section(document, found)


def _has_own_runs(document: Document) -> bool:
    """Whether a section stands for the runs, which are then not listed."""
    return bool(
        document.comparison
        or document.mutants
        or document.followups
        or document.change
    )


def _closing(document: Document) -> Iterator[str]:
    counts = ""
    if document.mutants and not document.trees:
        counts = fates(document.mutants)
    elif document.change is not None:
        counts = change.counts_of(document.change)
    elif not (
        document.trees or document.picture or _has_own_runs(document)
    ):
        counts = _verdicts(document.runs)
    yield f"verdict: {document.verdict}" + (f" ({counts})" if counts else "")
    if document.picture:
        yield f"picture: {printable(document.picture)}"


def _verdicts(runs: Sequence[Run]) -> str:
    found = Counter(run.verdict for run in runs)
    return ", ".join(
        f"{found[verdict]} {word}"
        for verdict, word in _WORDS.items()
        if found[verdict] or verdict in (Verdict.PASS, Verdict.FAIL)
    )


def _title(qemu: str, base: str) -> list[str]:
    title = ", ".join(filter(None, [qemu, f"base {base}" if base else ""]))
    return [printable(title)] if title else []


def _runs(document: Document) -> list[str]:
    """All runs; those that differ only in their seed share a line."""
    groups = grouped(document.runs)
    return [
        *_title(document.qemu, document.base),
        *_table(groups),
        *_traffic(groups),
        *(line for group in groups for line in _details(group)),
        *_measured(document.runs),
        *_latencies(document.runs),
        *_machines(document.runs),
    ]


def _table(groups: Sequence[RunGroup]) -> list[str]:
    names = ["variant", "scenario", "verdict", "outcome"]
    if any(len(group.runs) > 1 for group in groups):
        return table_lines(
            names,
            [
                [
                    group.runs[0].variant,
                    group.scenario,
                    f"{group.verdict} {group.passed}",
                    group.outcomes,
                    _spread(group.blackouts) + bound_text(group.runs),
                ]
                for group in groups
            ],
            numbers=["blackout, median (range)"],
        )
    return table_lines(
        names,
        [_cells(run) for group in groups for run in group.runs],
        numbers=["blackout", "QMP downtime"],
    )


def _cells(run: Run) -> list[str]:
    blackout, downtime = run.blackout_ns, run.qmp_downtime_ms
    return [
        run.variant,
        run.scenario,
        str(run.verdict),
        run.summary,
        "-"
        if blackout is None
        else f"{blackout / 1e6:.3f} ms{bound_text([run])}",
        "-" if downtime is None else f"{downtime} ms",
    ]


def _spread(blackouts: Sequence[int]) -> str:
    if not blackouts:
        return "-"
    middle, low, high = (
        f"{time_ns / 1e6:.3f}"
        for time_ns in (median(blackouts), min(blackouts), max(blackouts))
    )
    return f"{middle} ms ({low}..{high})"


def _traffic(groups: Sequence[RunGroup]) -> list[str]:
    """A table of the transactions between devices, if there were any."""
    rows = [
        [
            group.runs[0].variant,
            group.scenario,
            str(traffic.sent),
            str(traffic.delivered),
            str(traffic.lost),
            str(traffic.doubled),
        ]
        for group in groups
        if (traffic := group.traffic) is not None
    ]
    if not rows:
        return []
    names = ["between devices", "scenario"]
    numbers = ["sent", "delivered", "lost", "doubled"]
    return ["", *table_lines(names, rows, numbers=numbers)]


def _details(group: RunGroup) -> list[str]:
    """Explain a group that does not simply pass.

    The explanation is that of the first run with the group's verdict.
    """
    run, *others = group.worst
    if run.verdict is Verdict.PASS and not run.known:
        return []
    name = printable(f"{run.variant}, {run.scenario}")
    if len(group.runs) > 1:
        name += printable(f", {run.name}")
    lines = ["", f"{name}: {run.verdict}"]
    if others and run.verdict is not Verdict.PASS:
        seeds = ranges([x.seed for x in others if x.seed is not None])
        which = f"seed {seeds}" if seeds else f"{len(others)} more"
        lines.append(f"  and so with {which}")
    for finding in run.known:
        lines.append(f"  known: {printable(finding.rule)} ({finding.side})")
        lines.append(f"    {printable(finding.message)}")
    for finding in run.findings:
        lines.append(f"  broken: {printable(finding.rule)} ({finding.side})")
        lines.append(f"    {printable(finding.message)}")
        lines.append(f"    why it matters: {printable(finding.reason)}")
        lines += [f"    {line}" for line in finding.lines]
    lines += [f"  {printable(note)}" for note in run.notes]
    if run.bundle:
        lines.append(f"  bundle: {printable(run.bundle)}")
    return lines


def _measured(runs: Sequence[Run]) -> list[str]:
    names = dict.fromkeys(x.scenario for x in runs if not x.exact)
    if not names:
        return []
    lines = [
        "",
        printable(
            f"{', '.join(names)}: not sealed, so that times are measured, "
            "not exact"
        ),
    ]
    lines += _gaps(runs)
    if bound_text(runs):
        lines += wrap(
            "A blackout that begins on one host and ends on another may be "
            "off by the bound behind the sign \N{PLUS-MINUS SIGN}, which is "
            "how well the difference of the two clocks is known.",
            _LEGEND_WIDTH,
        )
    for remark in dict.fromkeys(y for x in runs for y in remarks_of(x)):
        lines += wrap(printable(remark), _LEGEND_WIDTH)
    return lines


def _gaps(runs: Iterable[Run]) -> Iterator[str]:
    """How long guests were gone, where that was measured."""
    for group in grouped(x for x in runs if x.guest_gap and not x.exact):
        found = durations(group, GUEST)
        text = _spread(found)
        if len(found) == 1:
            text = f"{found[0] / 1e6:.3f} ms"
        name = printable(f"{group.scenario}, {group.runs[0].variant}")
        yield f"{name}: {GUEST} {text}{gap_bound_text(group.runs)}"


def _latencies(runs: Iterable[Run]) -> Iterator[str]:
    """The models that latencies are taken from."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        if run.latencies:
            found.setdefault(run.latencies, {})[run.scenario] = None
    for text, names in found.items():
        yield printable(f"latencies of {', '.join(names)}: {text}")


def _machines(runs: Iterable[Run]) -> Iterator[str]:
    """The machine types that were not left to QEMU."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        if run.machine:
            found.setdefault(run.machine, {})[run.scenario] = None
    for text, names in found.items():
        yield printable(f"machine type of {', '.join(names)}: {text}")


def _patches(document: Document) -> list[str]:
    found = patch_table(document.patches)
    rows = [[_short(first), *rest] for first, *rest in found.rows]
    lines = table_lines(found.heads, rows, tight=True)
    for remark in found.remarks:
        lines += ["", *wrap(remark, _LEGEND_WIDTH)]
    return lines


def _change(document: Document) -> list[str]:
    """A change: its table, and all that is known of what it breaks."""
    judged = document.change
    assert judged is not None
    lines = change.heading(document)
    if judged.not_built:
        lines += ["", "B does not build:"]
        return lines + [
            f"  {printable(x)}" for x in judged.not_built.splitlines()
        ]
    found = change_table(judged)
    if found.rows:
        *heads, last = found.heads
        lines += ["", *table_lines(heads, found.rows, wrapped=last)]
    for breach in change.breaches(document):
        finding = breach.finding
        lines += [
            "",
            f"broken: {printable(finding.rule)} ({finding.side}), in "
            f"{printable(breach.where)}",
            f"  {printable(finding.message)}",
            f"  why it matters: {printable(finding.reason)}",
            *(f"  {line}" for line in finding.lines),
        ]
        if breach.run.bundle:
            lines.append(f"  bundle: {printable(breach.run.bundle)}")
    for remark in found.remarks:
        lines += ["", *wrap(printable(remark), _LEGEND_WIDTH)]
    return lines


def _short(text: str) -> str:
    text = printable(text)
    if len(text) <= _SUBJECT_WIDTH:
        return text
    return text[: _SUBJECT_WIDTH - 1] + "…"


def _plain(found: SectionTable) -> list[str]:
    names, numbers = (
        found.heads[: -found.numbers], found.heads[-found.numbers :]
    )
    lines = table_lines(names, found.rows, numbers=numbers)
    for remark in found.remarks:
        lines += ["", *wrap(remark, _LEGEND_WIDTH)]
    return lines


def _section(document: Document, found: SectionTable) -> list[str]:
    heads: list[str] = [*found.heads]
    rows = [[*row] for row in found.rows]
    if found.name == "followups":
        heads.append("verdict")
        for row, verdict in zip(rows, found.verdicts, strict=True):
            row.append(verdict)
    return [
        *_title(document.qemu, document.base),
        *table_lines(heads, rows),
        "",
        *map(printable, found.remarks),
    ]


def _versions(document: Document, matrix: VersionMatrix) -> list[str]:
    """Show which QEMU migrates to which, and the runs that do not pass."""
    lines = [printable(f"{x.name}: {x.qemu}") for x in matrix.qemus]
    for found in version_tables(matrix):
        lines += ["", f"{printable(found.title)}:"]
        lines += table_lines(found.heads, found.rows)
        for remark in found.remarks:
            lines += ["", *wrap(printable(remark), _LEGEND_WIDTH)]
    groups = grouped(
        x
        for x in document.runs
        if x.verdict not in (Verdict.PASS, Verdict.SKIP)
    )
    lines += [line for group in groups for line in _details(group)]
    told = "; ".join(machines_of(matrix))
    return [*lines, "", *wrap(f"machine types: {told}", _LEGEND_WIDTH)]


def _trees(document: Document) -> list[str]:
    """Count the runs of each tree, and show those that do not pass."""
    runs = {
        tree.name: [x for x in document.runs if x.tree == tree.name]
        for tree in document.trees
    }
    lines = [printable(f"{x.name}: {x.qemu}") for x in document.trees]
    lines += ["", *_tree_table(runs)]
    for tree in document.trees:
        groups = grouped(
            x for x in runs[tree.name] if x.verdict is not Verdict.PASS
        )
        if groups:
            lines += ["", *_title(tree.qemu, tree.base), *_table(groups)]
            lines += [line for x in groups for line in _details(x)]
    lines += _expected(document.runs)
    if document.mutants:
        lines += ["", f"mutants: {fates(document.mutants)}"]
        well = Fate.KILLED, Fate.EQUIVALENT
        rest = [x for x in document.mutants if x.fate not in well]
        if rest:
            found = mutant_table(rest)
            lines += table_lines(found.heads, found.rows)
    return [*lines, "", printable(proof(document))]


def _tree_table(runs: dict[str, list[Run]]) -> list[str]:
    rows = []
    for name, found in runs.items():
        counts = Counter(run.verdict for run in found)
        cells = [str(counts[verdict] or "-") for verdict in Verdict]
        rows.append([name, str(len(found)), *cells])
    return table_lines(["tree"], rows, numbers=["runs", *map(str, Verdict)])


def _expected(runs: Iterable[Run]) -> Iterator[str]:
    """The defects that scenarios expect, one line for each rule."""
    shown: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        for rule in dict.fromkeys(x.rule for x in run.known):
            shown.setdefault((run.scenario, rule), []).append(run.tree)
    if shown:
        yield ""
        yield "defects that their scenarios expect:"
    for (scenario, rule), names in shown.items():
        yield printable(f"  {scenario}: {rule} ({', '.join(names)})")
