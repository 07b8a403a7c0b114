# SPDX-License-Identifier: GPL-2.0-or-later
"""A change of QEMU in words: what it does, and a mail that says so."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from vfio_p2p.downtime.compare import Change
from vfio_p2p.downtime.metrics import BLACKOUT, PHASE
from vfio_p2p.oracle import RULES
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.document import Document
from vfio_p2p.report.groups import ranges
from vfio_p2p.report.run import BrokenRule, Run
from vfio_p2p.report.sections import (
    ChangeFate,
    ChangeTrial,
    ComparedFigure,
    JudgedChange,
)
from vfio_p2p.trace import printable

# A mail has room for a few figures only.
_MOST_ROWS = 12
_MOST_LINES = 4
_MOST_PHASES = 2
_WIDTH = 72
_NAME = 40

_TAG = "Tested-by: YOUR NAME <YOUR@ADDRESS>"


def fate_of(trial: ChangeTrial) -> str:
    """Say what a change does in a scenario, with the rules that it is about.

    :param trial: The scenario.
    """
    told = {ChangeFate.BROKEN: "breaks", ChangeFate.REPAIRED: "repairs"}
    said = {"breaks": trial.breaks, "repairs": trial.repairs}
    words = [
        f"{word} {', '.join(rules)}"
        for word, rules in said.items()
        if rules and told.get(trial.fate) != word
    ]
    first = said.get(told.get(trial.fate, ""), ())
    text = str(trial.fate)
    if first:
        text += f": {', '.join(first)}"
    return "; ".join([text, *words])


def moved_of(trial: ChangeTrial) -> str:
    """Say by how much the blackout and the phases changed most.

    :param trial: The scenario.
    """
    whole = [x for x in trial.moved if x.name == BLACKOUT]
    phases = sorted(
        (x for x in trial.moved if x.name != BLACKOUT),
        key=lambda x: -abs(x.difference_ns),
    )
    shown = [*map(_moved, (*whole, *phases[:_MOST_PHASES]))]
    if len(phases) > _MOST_PHASES:
        shown.append(f"and {len(phases) - _MOST_PHASES} more")
    return ", ".join(shown)


def doubt_of(change: JudgedChange) -> str:
    """Say that there are too few runs to trust differences; or nothing.

    :param change: The change.
    """
    unclear = any(
        row.change is Change.UNCLEAR for x in change.trials for row in x.moved
    )
    if not unclear:
        return ""
    return (
        "There are too few runs to tell small differences from chance; "
        "--seeds 10 makes more."
    )


def _moved(row: ComparedFigure) -> str:
    name = row.name.removeprefix(PHASE)
    text = f"{name} {row.difference_ns / 1e6:+.3f} ms"
    if row.name == BLACKOUT:
        text += f" ({row.percent:+.2f} %)"
    return text


def ms_of(time_ns: float | None) -> str:
    """Format a blackout in milliseconds; a dash if there was none.

    :param time_ns: The blackout, in nanoseconds.
    """
    return "-" if time_ns is None else f"{time_ns / 1e6:.3f}"


@dataclass(frozen=True)
class NewBreach:
    """A rule that B breaks and A does not.

    :param finding: One of the findings.
    :param run: The run that has it.
    :param scenarios: The names of all scenarios in which B breaks the rule.
    """

    finding: BrokenRule
    run: Run
    scenarios: tuple[str, ...]

    @property
    def where(self) -> str:
        """The scenarios in words, with the run that is shown."""
        shown = f"{self.run.scenario}, {self.run.name}"
        if len(self.scenarios) == 1:
            return shown
        return f"{len(self.scenarios)} scenarios, as in {shown}"


def breaches(document: Document) -> tuple[NewBreach, ...]:
    """The rules that a change breaks, each once, in the order of the oracle's.

    :param document: A document with a change.
    """
    change = document.change
    assert change is not None
    where: dict[str, list[str]] = {}
    for trial in change.having(ChangeFate.BROKEN):
        for rule in trial.breaks:
            where.setdefault(rule, []).append(trial.scenario)
    order = {rule.name: place for place, rule in enumerate(RULES)}
    return tuple(
        NewBreach(finding, run, tuple(where[rule]))
        for rule in sorted(where, key=lambda x: order.get(x, len(order)))
        for run, finding in _first(document, change, rule, where[rule])
    )


def _first(
    document: Document, change: JudgedChange, rule: str, names: list[str]
) -> list[tuple[Run, BrokenRule]]:
    """Find one run of B that breaks a rule, and its finding."""
    return [
        (run, finding)
        for run in document.runs
        if run.tree == f"B ({change.b})" and run.scenario in names
        for finding in run.findings
        if finding.rule == rule
    ][:1]


def counts_of(change: JudgedChange) -> str:
    """Count the scenarios by what the change does in them.

    :param change: The change.
    """
    found = {x: len(change.having(x)) for x in ChangeFate}
    return ", ".join(f"{n} {fate}" for fate, n in found.items() if n)


def heading(document: Document) -> list[str]:
    """Say what A and B are, and which scenarios were run.

    :param document: A document with a change.
    """
    change = document.change
    assert change is not None
    qemu = ", ".join(
        filter(
            None,
            [document.qemu, document.base and f"base {document.base}"],
        )
    )
    titles = "; ".join(change.subjects) or ", ".join(change.files)
    lines = [
        f"A: {change.a}, {qemu or 'not built'}",
        f"B: {change.b}: A with {titles}",
        f"scenarios: {change.why}",
    ]
    return [
        line
        for text in lines
        for line in textwrap.wrap(
            printable(text), 79, subsequent_indent="  "
        )
    ]


def command(document: Document) -> str:
    """Return the command that judges a change again.

    :param document: A document with a change.
    """
    change = document.change
    assert change is not None
    words = ["vfio-p2p", "validate"]
    for name in change.files:
        words += ["--patch", name]
    words += ["--against", change.a]
    for name in change.named:
        words += ["--scenario", name]
    if change.source:
        words += ["--source", change.source]
    if document.base:
        words += ["--base", document.base]
    if change.seeds:
        words += ["--seed", str(change.seeds[0])]
    if len(change.seeds) > 1:
        words += ["--seeds", str(len(change.seeds))]
    return printable(shlex.join(words))


def mail(document: Document) -> str:
    """Write a mail on a change, with a Tested-by if nothing speaks against it.

    The mail is an answer to that with the patch.

    :param document: A document with a change.
    """
    change = document.change
    assert change is not None
    lines = [*_introduced(document, change), ""]
    if change.not_built:
        lines += ["It does not build:", ""]
        lines += [f"  {printable(x)}" for x in change.not_built.splitlines()]
    else:
        lines += _results(document, change)
    lines += ["", "To run it again:", f"  {command(document)}"]
    if document.verdict is Verdict.PASS:
        lines += ["", _TAG]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _introduced(document: Document, change: JudgedChange) -> list[str]:
    number = len(change.trials)
    seeds = ranges(change.seeds)
    runs = f"{number} scenario{'s' if number != 1 else ''}"
    if seeds:
        runs += f", seed{'s' if len(change.seeds) > 1 else ''} {seeds}"
    titles = "; ".join(f'"{x}"' for x in change.subjects)
    if change.not_built:
        return _filled(
            f"Applied {titles or 'the patch'} to {document.qemu} "
            f"({change.a}), with vfio-p2p."
        )
    devices = sorted(
        {x.kind.split()[0] for run in document.runs for x in run.devices}
    )
    return _filled(
        f"Tested {titles or 'the patch'} with vfio-p2p on "
        f"{document.qemu or 'QEMU'}: {change.a} without it and with it, in "
        f"{runs}"
        + (f", with {', '.join(devices)} devices" if devices else "")
        + "."
    )


def _results(document: Document, change: JudgedChange) -> Iterator[str]:
    yield f"With the patch: {counts_of(change)}."
    for breach in breaches(document):
        finding = breach.finding
        yield ""
        yield from _filled(
            f"Broken with the patch: {finding.rule}, in {breach.where}"
        )
        yield from _filled(finding.message, 2)
        for line in finding.lines[:_MOST_LINES]:
            # A line of a log stays whole: it is to be found again.
            yield f"    {printable(line.text)}"
    for fate in ChangeFate:
        found = change.having(fate)
        if not found or fate in (ChangeFate.KEPT, ChangeFate.BROKEN):
            continue
        yield ""
        for trial in found[:_MOST_ROWS]:
            yield from _filled(f"{fate_of(trial)}, in {trial.scenario}")
            if trial.detail:
                yield from _filled(trial.detail, 2)
        if len(found) > _MOST_ROWS:
            yield f"and {len(found) - _MOST_ROWS} more: {fate}"
    yield from _figures(change)


def _figures(change: JudgedChange) -> Iterator[str]:
    """Yield the blackouts, those that changed most first."""
    having = sorted(
        (x for x in change.trials if x.a_ns is not None),
        key=lambda x: -max((abs(y.percent) for y in x.moved), default=0),
    )
    if not having:
        return
    yield ""
    yield f"{'Blackout in ms':<{_NAME}}{'without':>10}{'with':>10}"
    for trial in having[:_MOST_ROWS]:
        name = printable(trial.scenario)
        if len(name) > _NAME - 3:
            yield f"  {name}"
            name = ""
        yield (
            f"  {name:<{_NAME - 2}}"
            f"{ms_of(trial.a_ns):>10}{ms_of(trial.b_ns):>10}"
        )
        if trial.moved:
            yield from _filled(moved_of(trial), 4)
    more = len(having) - _MOST_ROWS
    if more > 0:
        yield f"  and {more} more, which changed no more than these"
    if doubt := doubt_of(change):
        yield from _filled(doubt)


def _filled(text: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(
        printable(text), _WIDTH, initial_indent=" " * indent,
        subsequent_indent=" " * (indent + (2 if indent else 0)),
        break_on_hyphens=False,
    )
