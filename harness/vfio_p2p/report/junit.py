# SPDX-License-Identifier: GPL-2.0-or-later
"""The report for CI: JUnit's XML.

JUnit has no word for a verdict that is inconclusive.  Such a case is an
error, as it must not look like a pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from junitparser import (
    Error,
    Failure,
    JUnitXml,
    Properties,
    Property,
    Skipped,
    TestCase,
    TestSuite,
)

from vfio_p2p.oracle import RULES
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.change import fate_of
from vfio_p2p.report.document import Document
from vfio_p2p.report.groups import grouped
from vfio_p2p.report.run import Run
from vfio_p2p.report.sections import JudgedChange, VersionMatrix
from vfio_p2p.trace import printable


def render(document: Document) -> str:
    """Render a suite for each part of a document.

    :param document: The document.
    """
    found = JUnitXml()
    for suite in _suites(document):
        suite.update_statistics()
        found.add_testsuite(suite)
    text = found.tostring()
    return (text.decode() if isinstance(text, bytes) else str(text)) + "\n"


def _suites(document: Document) -> Iterator[TestSuite]:
    if document.versions:
        yield _versions(document, document.versions)
    elif document.trees:
        for tree in document.trees:
            runs = [x for x in document.runs if x.tree == tree.name]
            yield _runs(f"vfio-p2p {tree.name}", runs)
        rest = {run.tree for run in document.runs}
        rest -= {tree.name for tree in document.trees}
        if rest:
            others = [x for x in document.runs if x.tree in rest]
            yield _runs("vfio-p2p validate", others)
    elif not (document.mutants or document.followups or document.change):
        yield _runs("vfio-p2p validate", document.runs)
    if document.change is not None:
        yield _change(document.change)
    if document.patches:
        yield _patches(document)
    if document.mutants:
        yield _mutants(document)
        if document.trees:
            yield _rules(document)
    if document.followups:
        yield _followups(document)
    if document.comparison is not None:
        yield _comparison(document)


def _runs(name: str, runs: list[Run] | tuple[Run, ...]) -> TestSuite:
    suite = TestSuite(printable(name))
    for group in grouped(runs):
        for run in group.runs:
            # A reader may take cases of one name for one case.
            more = f" ({run.name})" if len(group.runs) > 1 else ""
            suite.add_testcase(_run(run, f"{run.scenario}{more}"))
    return suite


def _run(run: Run, name: str) -> TestCase:
    said = [f"{finding.rule}: {finding.message}" for finding in run.findings]
    said += run.notes
    case = _case(
        name,
        run.variant,
        run.verdict,
        "\n".join(map(printable, said)) or printable(run.summary),
    )
    if run.verdict is Verdict.SKIP:
        case.result = [Skipped(printable(run.summary))]
    properties = Properties()
    blackout = run.blackout_ns
    for key, value in (
        ("seed", "" if run.seed is None else str(run.seed)),
        ("blackout_ns", "" if blackout is None else str(blackout)),
        *(
            (("blackout_bound_ns", str(run.blackout_bound_ns)),)
            if run.blackout_bound_ns is not None
            else ()
        ),
        *_gap(run),
        ("digest", printable(run.digest)),
        *(() if run.exact else (("exact", "false"),)),
        *(asdict(run.traffic).items() if run.traffic else ()),
    ):
        properties.add_property(Property(key, str(value)))
    case.append(properties)
    return case


def _gap(run: Run) -> Iterator[tuple[str, str]]:
    gap = run.guest_gap
    if gap is not None and not run.exact:
        yield "guest_gap_ns", str(gap.duration_ns)
        if gap.bound_ns is not None:
            yield "guest_gap_bound_ns", str(gap.bound_ns)


def _versions(document: Document, matrix: VersionMatrix) -> TestSuite:
    suite = TestSuite("vfio-p2p validate --versions")
    said = {(x.tree, x.scenario): x for x in document.runs}
    for trial in matrix.pairs:
        name = f"{trial.source} to {trial.destination}"
        run = said.get((name, trial.scenario))
        why = trial.words
        if run and not why:
            why = "\n".join(
                [f"{x.rule}: {x.message}" for x in run.findings]
                + [*run.notes]
            )
        suite.add_testcase(
            _case(
                f"{name}, {trial.scenario}",
                "versions",
                trial.verdict,
                "\n".join(map(printable, why.splitlines())),
            )
        )
    return suite


def _patches(document: Document) -> TestSuite:
    suite = TestSuite("vfio-p2p patches")
    for patch in document.patches:
        wrong = [
            f"{title}: {cell}"
            for title, cell in patch.columns.items()
            if cell == "BROKEN"
        ]
        name = f"{patch.patch} {patch.subject}" if patch.patch else "base"
        why = printable(", ".join(wrong))
        suite.add_testcase(_case(name, "patch", patch.verdict, why))
    return suite


def _mutants(document: Document) -> TestSuite:
    suite = TestSuite("vfio-p2p validate --mutants")
    if not document.trees:
        said = {run.scenario: run.summary for run in document.runs}
        for name, verdict in document.control.items():
            why = printable(said.get(name, ""))
            suite.add_testcase(_case(name, "control", verdict, why))
        for name in document.unproven:
            suite.add_testcase(
                _case(
                    name, "rule", Verdict.INCONCLUSIVE, "nothing breaks it"
                )
            )
    for trial in document.mutants:
        why = printable(f"{trial.fate} {trial.detail}".strip())
        suite.add_testcase(
            _case(trial.name, "mutant", trial.fate.verdict, why)
        )
    return suite


def _rules(document: Document) -> TestSuite:
    suite = TestSuite("vfio-p2p rules")
    for rule in RULES:
        unproven = rule.name in document.unproven
        verdict = Verdict.FAIL if unproven else Verdict.PASS
        why = "unproven: nothing breaks it"
        suite.add_testcase(_case(rule.name, "rule", verdict, why))
    return suite


def _followups(document: Document) -> TestSuite:
    suite = TestSuite("vfio-p2p validate --followups")
    for trial in document.followups:
        name = f"{trial.followup}, {trial.scenario}"
        why = printable(trial.detail)
        suite.add_testcase(_case(name, "followup", trial.verdict, why))
    return suite


def _change(change: JudgedChange) -> TestSuite:
    suite = TestSuite("vfio-p2p validate --patch")
    if change.not_built:
        why = printable(change.not_built)
        suite.add_testcase(_case("build", "change", Verdict.FAIL, why))
    for trial in change.trials:
        why = printable(f"{fate_of(trial)}\n{trial.detail}".strip())
        case = _case(trial.scenario, "change", trial.verdict, why)
        properties = Properties()
        for key, value in (
            ("fate", str(trial.fate)),
            ("blackout_a_ns", _whole(trial.a_ns)),
            ("blackout_b_ns", _whole(trial.b_ns)),
        ):
            properties.add_property(Property(key, value))
        case.append(properties)
        suite.add_testcase(case)
    return suite


def _whole(time_ns: float | None) -> str:
    return "" if time_ns is None else f"{time_ns:.0f}"


def _comparison(document: Document) -> TestSuite:
    suite = TestSuite("vfio-p2p compare")
    if (found := document.comparison) is not None:
        name = f"{found.a.name} against {found.b.name}"
        why = f"blackout: {found.change}"
        suite.add_testcase(_case(name, "compare", document.verdict, why))
    return suite


def _case(name: str, kind: str, verdict: Verdict, why: str) -> TestCase:
    """A case; `why` has to be fit to print, and may have several lines."""
    case = TestCase(printable(name), printable(f"vfio-p2p.{kind}"))
    why = why or str(verdict)
    match verdict:
        case Verdict.FAIL:
            case.result = [Failure(why)]
        case Verdict.SKIP:
            case.result = [Skipped(why)]
        case Verdict.ERROR | Verdict.INCONCLUSIVE:
            case.result = [Error(why, str(verdict))]
    return case
