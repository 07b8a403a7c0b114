# SPDX-License-Identifier: GPL-2.0-or-later
"""The report as text of 79 columns, to be pasted under a Tested-by."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from msgspec.structs import replace

from vfio_p2p.report import change, figures
from vfio_p2p.report.commands import commands, exact_command, latencies
from vfio_p2p.report.comparison import comparison_lines
from vfio_p2p.report.document import Document
from vfio_p2p.report.figures import GUEST, TOTAL, PhaseRow, PhaseTable, ms
from vfio_p2p.report.groups import RunGroup, by_scenario
from vfio_p2p.report.run import Run
from vfio_p2p.report.section_tables import section_tables
from vfio_p2p.report.sections import ComparedRuns, ComparedSets
from vfio_p2p.report.setup import build_of, place_of
from vfio_p2p.trace import printable

WIDTH = 79
_INDENT = "  "
_MOST_CHARACTERS = 400
_MOST_FINDINGS = 20
_MOST_LINES = 6
_MOST_COMMANDS = 6
_MOST_NOTES = 5
_MOST_UNSEEN = 6
_KEY_LENGTH = 12

_NAME = 21          # the width of the column of names
_FIGURE = 12        # the width of a column of figures
_TREES = (WIDTH - _NAME) // _FIGURE


def render(document: Document) -> str:
    """Render the whole text.

    :param document: The document.
    """
    if document.change is not None:
        return change.mail(document)
    lines = [
        "Tested with vfio-p2p",
        "",
        *_setup(document),
        "",
        *_verdict(document),
        *_sections(document),
        *_findings(document),
        *(line for x in figures.tables(document) for line in _table(x)),
        *_commands(document),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _setup(document: Document) -> list[str]:
    qemu = document.qemu or "not known"
    if document.base:
        qemu += f", base {document.base}"
    lines = _field("QEMU", [qemu])
    lines += _field("trees", _unique(_tree(run) for run in document.runs))
    for name, exact in (("testbed", True), ("place", False)):
        runs = [run for run in document.runs if run.exact is exact]
        places = _unique(x for run in runs if (x := place_of(run)))
        lines += _field(name, places)
    lines += _field("latency", latencies(document))
    lines += _field(
        "machine", _unique(x.machine for x in document.runs if x.machine)
    )
    kinds: dict[str, dict[int, None]] = {}
    for run in document.runs:
        for device in run.devices:
            kinds.setdefault(device.kind, {})[device.count] = None
    lines += _field(
        "devices",
        [
            f"{', '.join(map(str, sorted(counts)))} x {kind}"
            for kind, counts in kinds.items()
        ],
    )
    return lines


def _tree(run: Run) -> str:
    build = build_of(run, _KEY_LENGTH)
    name = run.tree
    if build and run.variant not in name:
        name += f": {run.variant}"
    return f"{name}, build {build}" if build else name


def _verdict(document: Document) -> list[str]:
    lines = [f"Verdict: {document.verdict}"]
    for group in by_scenario(document):
        lines += _wrap(_group(group), 2)
    notes = _unique(x for run in document.runs for x in run.notes)
    for note in notes[:_MOST_NOTES]:
        lines += _wrap(f"not known: {note}", 2)
    lines += _more(len(notes) - _MOST_NOTES, "notes")
    return lines


def _group(group: RunGroup) -> str:
    return (
        f"{group.scenario}, {group.tree}, {group.names}: "
        f"{group.counts if len(group.runs) > 1 else group.verdict}, "
        f"{group.outcomes}"
    )


def _sections(document: Document) -> list[str]:
    """The sections that are tables, as lists: a table would not fit."""
    lines = []
    for section in section_tables(document):
        lines += ["", f"{section.title}:"]
        for (name, *cells), verdict in zip_longest(
            section.rows, section.verdicts
        ):
            said = [
                f"{head} {cell}".strip()
                for head, cell in zip(section.heads[1:], cells, strict=True)
                if cell
            ]
            text = ", ".join(said)
            if verdict:
                text = f"{verdict} ({text})"
            lines += _wrap(f"{name}: {text}", 2)
        for remark in section.remarks:
            lines += _wrap(remark, 2)
    if document.comparison is not None:
        lines += ["", *_comparison(document.comparison)]
    return lines


def _findings(document: Document) -> list[str]:
    found = figures.breaches(document)
    lines = []
    for one in found[:_MOST_FINDINGS]:
        finding = one.finding
        first = document.runs[one.runs[0]]
        where = f"{first.scenario}, {first.tree}, {first.name}"
        if len(one.runs) > 1:
            where += f" and {len(one.runs) - 1} more"
        lines.append("")
        what = "Known" if one.known else "Broken"
        lines += _wrap(f"{what}: {finding.rule} ({finding.side}), in {where}")
        lines += _wrap(finding.message, 2)
        if one.known:
            continue
        for line in finding.lines[:_MOST_LINES]:
            lines += _wrap(f"{line.file}:{line.line}: {line.text}", 2)
        lines += _more(len(finding.lines) - _MOST_LINES, "lines")
    return lines + _more(len(found) - _MOST_FINDINGS, "findings")


def _table(table: PhaseTable) -> list[str]:
    if table.comparison is not None:
        return [
            "",
            *_comparison(table.comparison),
            *_beside(table),
            *_unseen(table),
        ]
    groups = table.groups[:_TREES]
    lines = [
        "",
        _short(f"Phases of the blackout in ms, {table.scenario}", WIDTH),
        _columns("", [_short(x.tree, _FIGURE - 1) for x in groups]),
    ]
    for row in table.rows:
        if row.name == TOTAL and len(table.rows) > 1:
            rules = ["-" * (_FIGURE - 3)] * len(groups)
            lines.append(_columns("", rules))
        lines.append(_row(row))
    lines += [_row(row) for row in table.beside]
    runs = [x for group in groups for x in group.runs]
    for what, bound in (
        ("a blackout", figures.bound_text(runs)),
        (f"a {GUEST}", figures.gap_bound_text(runs)),
    ):
        if bound:
            lines += _wrap(
                f"{what} may be off by{bound}, since it began on one host "
                "and ended on another",
                2,
            )
    if any(len(group.runs) > 1 for group in groups):
        lines += _wrap("medians over the runs, which need not add up", 2)
    lines += _more(len(table.groups) - _TREES, "trees")
    return lines + _unseen(table)


def _comparison(found: ComparedSets) -> list[str]:
    lines = []
    shown = replace(found, a=_fitting(found.a), b=_fitting(found.b))
    for line in comparison_lines(shown):
        lines += [line] if len(line) <= WIDTH else _wrap(line)
    return lines


def _fitting(runs: ComparedRuns) -> ComparedRuns:
    return replace(
        runs,
        name=_fit(runs.name),
        qemu=_fit(runs.qemu),
        scenario=_fit(runs.scenario),
        latencies=_fit(runs.latencies),
    )


def _beside(table: PhaseTable) -> list[str]:
    lines = []
    for row in table.beside:
        a, b = map(_ms, row.medians)
        lines += _wrap(f"{row.name}, another figure: A {a} ms, B {b} ms")
    return lines


def _row(row: PhaseRow) -> str:
    return _columns(row.name, [_ms(x) for x in row.medians[:_TREES]])


def _unseen(table: PhaseTable) -> list[str]:
    lines = []
    for text in table.unseen[:_MOST_UNSEEN]:
        lines += _wrap(f"not observable: {text}", 2)
    return lines + _more(len(table.unseen) - _MOST_UNSEEN, "such phases")


def _ms(time_ns: float | None) -> str:
    return "-" if time_ns is None else ms(time_ns)


def _columns(name: str, cells: Sequence[str]) -> str:
    figures_ = "".join(f"{cell:>{_FIGURE}}" for cell in cells)
    return f"{_INDENT}{_short(name, _NAME - 2):<{_NAME - 2}}{figures_}"


def _commands(document: Document) -> list[str]:
    found = commands(document)
    if not found:
        return []
    lines = ["", "To run it again:"]
    # A command is whole, however long: it is to be copied.
    lines += [_INDENT + _fit(x) for x in found[:_MOST_COMMANDS]]
    lines += _more(len(found) - _MOST_COMMANDS, "commands")
    if exact := exact_command(document):
        lines += ["With the very same QEMU:", _INDENT + _fit(exact)]
    return lines


def _field(name: str, values: Sequence[str]) -> list[str]:
    lines = []
    for number, value in enumerate(values[:_MOST_NOTES]):
        lead = f"{name if not number else '':<9}"
        lines += textwrap.wrap(
            _fit(value), WIDTH, initial_indent=lead,
            subsequent_indent=" " * 11, break_on_hyphens=False,
        )
    return lines + _more(len(values) - _MOST_NOTES, name)


def _wrap(text: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(
        _fit(text), WIDTH, initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2), break_on_hyphens=False,
    )


def _more(count: int, what: str) -> list[str]:
    return [f"{_INDENT}and {count} more {what}"] if count > 0 else []


def _fit(text: str) -> str:
    shown = printable(text[:_MOST_CHARACTERS])
    return shown if len(text) <= _MOST_CHARACTERS else f"{shown} ..."


def _short(text: str, length: int) -> str:
    text = printable(text)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
