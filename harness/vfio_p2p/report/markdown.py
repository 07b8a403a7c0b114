# SPDX-License-Identifier: GPL-2.0-or-later
"""A document as Markdown: the scenarios against the trees, and all tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.document import Document
from vfio_p2p.report.figures import bound_text
from vfio_p2p.report.groups import RunGroup, grouped
from vfio_p2p.report.section_tables import section_tables
from vfio_p2p.report.setup import place_of
from vfio_p2p.trace import printable

_LEGEND = (
    "Each cell is the verdict on a run, then the blackout in milliseconds, "
    "or how a run without a blackout ended, and the rules that the run "
    "breaks: those of a passing run are a known defect, which its scenario "
    "expects."
)


def render(document: Document) -> str:
    """Render a document, one table for all runs.

    :param document: The document.
    """
    found = {(x.scenario, x.tree): x for x in grouped(document.runs)}
    trees = document.tree_names
    rows = [
        [scenario, *(_cell(found.get((scenario, x))) for x in trees)]
        for scenario in document.scenarios
    ]
    counts = ["**passed**", *(_passed(document, x) for x in trees)]
    lines = [*_described(document), ""]
    if rows:
        lines += [_LEGEND, "", *_table(["scenario", *trees], [*rows, counts])]
        lines.append("")
    for section in section_tables(document):
        lines += [f"**{_escaped(section.title)}**", ""]
        lines += [*_table(section.heads, section.rows), ""]
        for remark in section.remarks:
            lines += [_escaped(remark), ""]
    lines.append(f"verdict: {document.verdict}")
    return "\n".join([*lines, ""])


def _described(document: Document) -> Iterator[str]:
    """Yield a line for each tree: its QEMU, and where that is from."""
    for tree in document.trees:
        # A path says little to those who read the page elsewhere.
        name = re.sub(r"(?<!\S)/\S*/", "", tree.origin)
        source = f", from {name}" if name else ""
        yield _escaped(f"- {tree.name}: {tree.qemu}{source}")
    if not document.trees and document.qemu:
        yield _escaped(f"- {document.qemu}")
    for place in dict.fromkeys(map(place_of, document.runs)):
        if place:
            yield _escaped(f"- {place}")


def _cell(group: RunGroup | None) -> str:
    if group is None:
        return ""
    texts = [str(group.verdict)]
    if group.middle_ns is not None:
        bound = bound_text(group.runs)
        texts.append(f"{group.middle_ns / 1e6:.3f}{bound}")
    elif group.verdict is not Verdict.SKIP:
        texts.append(group.outcomes)
    broken = dict.fromkeys(
        x.rule for run in group.runs for x in (*run.findings, *run.known)
    )
    if broken:
        texts.append(f"({', '.join(broken)})")
    return " ".join(texts)


def _passed(document: Document, tree: str) -> str:
    """Count the runs of a tree that passed, of those that were made."""
    made = [
        run.verdict
        for run in document.runs
        if run.tree == tree and run.verdict is not Verdict.SKIP
    ]
    return f"**{made.count(Verdict.PASS)} of {len(made)}**"


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[str]]
) -> Iterator[str]:
    for row in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(map(_escaped, row))} |"


def _escaped(text: str) -> str:
    return printable(text).replace("|", "\\|")
