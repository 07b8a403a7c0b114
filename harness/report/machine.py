# SPDX-License-Identifier: GPL-2.0-or-later
"""The reports for programs: JSON and JUnit."""

from __future__ import annotations

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

from harness.report.model import Report, Row
from harness.report.rules import unproven
from harness.trace import printable
from harness.verdict import Verdict

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
                   "notes": [...]},
                  ...]}

    `latencies` is empty, or says which model they are of.
    Rules are unproven if none of the runs broke them, as most runs must not.
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
    }


def as_junit(report: Report) -> str:
    """A JUnit document: one suite, one case for each run.

    An inconclusive run is an error there: JUnit has no word for it, and
    it must not look like a pass.
    """
    suite = TestSuite("vfio-p2p validate")
    for row in report.rows:
        suite.add_testcase(_case(row))
    suite.update_statistics()
    document = JUnitXml()
    document.add_testsuite(suite)
    text = document.tostring()
    return text.decode() if isinstance(text, bytes) else str(text)


def _case(row: Row) -> TestCase:
    found = row.assessment
    case = TestCase(
        printable(row.scenario), printable(f"vfio-p2p.{row.variant}")
    )
    blackout = found.blackout_ns
    properties = Properties()
    for name, value in (
        ("seed", str(row.seed)),
        ("blackout_ns", "" if blackout is None else str(blackout)),
        ("digest", printable(row.digest)),
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
