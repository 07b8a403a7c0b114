# SPDX-License-Identifier: GPL-2.0-or-later
"""The reports for programs: JSON and JUnit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

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

from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.model import Report, Row
from vfio_p2p.report.rules import unproven
from vfio_p2p.trace import printable

FORMAT = 1


def as_json(report: Report) -> dict[str, Any]:
    """Plain values, for `json.dumps`.

    ::

        {"format": 1, "kind": "vfio-p2p report", "verdict": "pass",
         "qemu": "...", "base": "v10.0", "origin": "...",
         "unproven": ["conservation", ...],
         "runs": [{"variant", "scenario", "seed", "verdict", "summary",
                   "blackout_ns", "qmp_downtime_ms", "bundle", "digest",
                   "latencies", "findings": [...], "known": [...],
                   "notes": [...],
                   "traffic": {"sent", "delivered", "lost", "doubled"}},
                  ...]}

    `latencies` is empty, or says which model they are of.  `traffic` counts
    transactions between devices over all migrations of a run, and is null
    where devices have no peers.  Rules are unproven if none of the runs broke
    them, as most runs must not.
    """
    return {
        "format": FORMAT,
        "kind": "vfio-p2p report",
        "verdict": str(report.verdict),
        "qemu": report.qemu,
        "base": report.base,
        "origin": report.origin,
        "unproven": list(unproven(row.assessment for row in report.rows)),
        "runs": [_run(row) for row in report.rows],
    }


def _run(row: Row) -> dict[str, Any]:
    found = row.assessment
    return {
        "variant": row.variant,
        "scenario": row.scenario,
        "seed": row.seed,
        "verdict": str(found.verdict),
        "summary": found.summary,
        "blackout_ns": found.blackout_ns,
        "qmp_downtime_ms": found.qmp_downtime_ms,
        "bundle": row.bundle,
        "digest": row.digest,
        "latencies": row.latencies,
        "findings": [finding.as_json() for finding in found.findings],
        "known": [finding.as_json() for finding in found.known],
        "notes": list(found.notes),
        "traffic": asdict(found.traffic) if found.traffic else None,
    }


def as_junit(report: Report) -> str:
    """A JUnit document: one suite, one case for each run.

    An inconclusive run is an error there: JUnit has no word for it, and
    it must not look like a pass.
    """
    return junit([suite_of(report, "vfio-p2p validate")])


def suite_of(report: Report, name: str) -> TestSuite:
    """A suite with one case for each run.

    :param report: The runs.
    :param name: Name of the suite.
    """
    suite = TestSuite(name)
    for group in report.groups:
        for row in group.rows:
            # Whoever reads it may well take those of one name for one.
            seed = f" (seed {row.seed})" if len(group.rows) > 1 else ""
            suite.add_testcase(_case(row, f"{row.scenario}{seed}"))
    suite.update_statistics()
    return suite


def junit(suites: Iterable[TestSuite]) -> str:
    """A JUnit document of these suites."""
    document = JUnitXml()
    for suite in suites:
        document.add_testsuite(suite)
    text = document.tostring()
    return text.decode() if isinstance(text, bytes) else str(text)


def _counted(traffic: Traffic) -> list[tuple[str, str]]:
    return [(name, str(count)) for name, count in asdict(traffic).items()]


def _case(row: Row, name: str) -> TestCase:
    found = row.assessment
    case = TestCase(
        printable(name), printable(f"vfio-p2p.{row.variant}")
    )
    blackout = found.blackout_ns
    properties = Properties()
    for name, value in (
        ("seed", str(row.seed)),
        ("blackout_ns", "" if blackout is None else str(blackout)),
        ("digest", printable(row.digest)),
        *(_counted(found.traffic) if found.traffic else ()),
    ):
        properties.add_property(Property(name, value))
    case.append(properties)
    text = "\n".join(
        [
            *(
                printable(f"{finding.rule}: {finding.message}")
                for finding in found.findings
            ),
            *(printable(note) for note in found.notes),
        ]
    )
    summary = printable(found.summary)
    match found.verdict:
        case Verdict.FAIL:
            case.result = [Failure(text or summary)]
        case Verdict.ERROR | Verdict.INCONCLUSIVE:
            case.result = [Error(text or summary, str(found.verdict))]
        case Verdict.SKIP:
            case.result = [Skipped(summary)]
    return case
