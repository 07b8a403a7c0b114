# SPDX-License-Identifier: GPL-2.0-or-later
"""From a bundle to a verdict on the run.

The oracle judges what the traces show.  The assessment also compares how the
run ended with what the scenario expects of the tree under test.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vfio_p2p.bundle.manifest import SCENARIO, stderr_file
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.errors import UnevenError
from vfio_p2p.oracle import Finding
from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.scenario.model import Outcome
from vfio_p2p.scenario.result import Result
from vfio_p2p.side import Side, side_of
from vfio_p2p.trace import printable
from vfio_p2p.verdict.due import REFUSED, RunDue, due_of
from vfio_p2p.verdict.ending import (
    started_late,
    stuck,
    wrong_end,
    wrong_ends,
)
from vfio_p2p.verdict.migrations import judge_run
from vfio_p2p.verdict.reading import RunReading, completed, read_run

# What QEMU says when it refuses devices for the reason that the series is
# about: before the series, and with it.
_REFUSALS = (
    "Migration is currently not supported with multiple VFIO devices",
    "Multiple VFIO devices migration is supported only if all of them "
    "support P2P migration",
)
# How a run is summed up whose two QEMUs cannot be the same machine.
NOT_ALIKE = "refused: another machine"
# What QEMU says when it cannot be the machine that the other one is: of the
# machine type (system/vl.c), and of the parts of a machine, if the two were
# built with different devices (migration/savevm.c).
_UNLIKE = (
    "unsupported machine type",
    "Unknown savevm section or instance",
    "Unknown section or instance",
    "Machine type received is",
)
# The names that VFIO's own sections end with, in vmstate_register().
_VFIO_SECTION = re.compile(r"Unknown [a-z ]*section or instance '[^']*vfio")
# Runs that ended so did not come to their own end.
_CUT_SHORT = (
    Outcome.TIMEOUT,
    Outcome.CRASHED,
    Outcome.OUTPUT,
    Outcome.LOST,
)
# The outcome that a scenario expects, and the one that a run has, if QEMU
# crashed before the devices were accepted.
_CRASHED_AT_START = (Outcome.CRASHED, Outcome.REFUSED)
# "==PID==ERROR: AddressSanitizer: WHAT on address ..." (compiler-rt).
_SANITIZER = re.compile(r"ERROR: ((?:Address|Leak)Sanitizer: [^\n]{1,200})")
# Those of assert() and of g_assert().
_ASSERTION = re.compile(r"Assertion `[^\n]*' failed|assertion failed")
_EXPECTED = "expected"
_EXPECTED_REASON = (
    "A scenario that shows a defect must tell when the defect is gone."
)


@dataclass(frozen=True)
class Assessment:
    """The verdict on one run.

    :param verdict: The verdict.
    :param summary: How the run ended, in a few words.
    :param findings: The rules that were broken.
    :param known: The rules that were broken as the scenario expects.
    :param notes: Why the verdict is not certain, if so.
    :param blackout_ns: The time from the source's first stop request to the
        destination's last device running, in nanoseconds; None if there was
        no blackout.
    :param qmp_downtime_ms: The downtime that QMP reports, in milliseconds,
        which is another quantity.
    :param traffic: What the devices sent to one another over all migrations;
        None if they sent nothing.
    """

    verdict: Verdict
    summary: str
    findings: tuple[Finding, ...] = ()
    known: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    blackout_ns: int | None = None
    qmp_downtime_ms: int | None = None
    traffic: Traffic | None = None


def assess(
    bundle: Bundle,
    followup: str | None = None,
    *,
    run: RunReading | None = None,
) -> Assessment:
    """Judge one run.

    :param bundle: What the run left.
    :param followup: The follow-up whose expectations apply; by default the
        one that the tree has, if any.
    :param run: The reading of this bundle, if the caller has one already.
    :raise BundleError: When the tree is unknown, or the scenario damaged.
    :raise TraceError: When a log is damaged.
    """
    if run is None:
        run = read_run(bundle)
    due = due_of(bundle.manifest.inputs, bundle.scenario, followup)
    found = _judge(run, due)
    if bundle.manifest.result.outcome is Outcome.TIMEOUT:
        found = _named(found, stuck(run))
    found = _but_known(found, due.expected.breaks, due.excused)
    return _sanitized(bundle, _adding_up(run, found))


def _sanitized(bundle: Bundle, found: Assessment) -> Assessment:
    """Add what a sanitizer says of a QEMU, which is never expected."""
    printed = {
        name: bundle.files.get(stderr_file(name), b"")
        for name in bundle.manifest.result.exit_states
    }
    reports = tuple(
        wrong_end(side_of(name), f"{name}: {printable(said[1])}")
        for name, text in printed.items()
        if (said := _SANITIZER.search(text.decode(errors="replace")))
    )
    if not reports:
        return found
    return replace(
        found,
        verdict=Verdict.FAIL,
        summary="a sanitizer ended QEMU",
        findings=(*found.findings, *reports),
    )


def _adding_up(run: RunReading, found: Assessment) -> Assessment:
    """Withdraw a blackout whose phases do not add up to it."""
    if found.blackout_ns is None:
        return found
    try:
        parts = run.breakdown.phases
        whole_ns = sum(phase.duration_ns for phase in parts)
        # If a failed migration came later, there are no phases.
        if not parts or whole_ns == found.blackout_ns:
            return found
        why = (
            f"its phases take {whole_ns} ns, the blackout itself "
            f"{found.blackout_ns} ns"
        )
    except UnevenError as err:
        why = err.why
    return replace(
        found,
        verdict=worst([found.verdict, Verdict.ERROR]),
        notes=(*found.notes, f"the blackout: {why}"),
        blackout_ns=None,
    )


def _judge(run: RunReading, due: RunDue) -> Assessment:
    """Judge a run as if its scenario expected no broken rule."""
    result = run.bundle.manifest.result
    expected = due.expected
    unlike = _unlike(run)
    if unlike:
        # What a QEMU did wrong on the way is told all the same.
        wrong = judge_run(run, due, (), whole=False).findings
        return Assessment(
            Verdict.SKIP,
            NOT_ALIKE,
            notes=(
                printable(unlike),
                *(f"{x.rule} ({x.side}): {x.message}" for x in wrong),
            ),
        )
    if (
        (expected.outcome, result.outcome) == _CRASHED_AT_START
        and _crashed(result)
        and expected.said_in(_said(result))
    ):
        return Assessment(Verdict.PASS, str(Outcome.CRASHED))
    if result.outcome is not expected.outcome:
        found = _unexpected(expected.outcome, result)
        # A broken order may be the reason for the wrong ending.  A run that
        # ended in another way also took another sequence of states.
        judged = judge_run(run, due, (), whole=False)
        found = replace(found, traffic=judged.traffic)
        if not judged.findings:
            return found
        return replace(
            found,
            verdict=Verdict.FAIL,
            findings=judged.findings + found.findings,
        )
    if started_late(run):
        # It cannot be the time-out that is expected.
        return _unknown(result, f"{result.outcome}, while QEMU started")
    if result.outcome in REFUSED and not _refuses(
        result, *expected.messages, *_REFUSALS
    ):
        return _unknown(result, f"{result.outcome}, for another reason")
    said = f"{_said(result)}\n{_printed(run.bundle)}"
    if not expected.said_in(said):
        wanted = " or ".join(map(repr, expected.messages))
        return _failed(result, f"{result.outcome}, but not with {wanted}")
    if result.outcome in REFUSED and due.governing not in (
        None,
        side_of(result.side),
    ):
        return _failed(
            result, f"{result.outcome} by the {side_of(result.side)}"
        )
    if result.outcome is Outcome.REFUSED:
        return Assessment(Verdict.PASS, str(result.outcome))
    whole = result.outcome not in _CUT_SHORT
    judged = judge_run(run, due, expected.sequences, whole=whole)
    findings = (*judged.findings, *wrong_ends(run, expected))
    verdict = Verdict.PASS
    if findings:
        verdict = Verdict.FAIL
    elif judged.notes:
        verdict = Verdict.INCONCLUSIVE
    found = Assessment(
        verdict=verdict,
        summary=str(result.outcome),
        findings=findings,
        notes=judged.notes,
        blackout_ns=judged.blackout_ns,
        qmp_downtime_ms=result.qmp_downtime_ms,
        traffic=judged.traffic,
    )
    return _at_exit(found, result, whole=whole)


def _but_known(
    found: Assessment, rules: Sequence[str], excused: Sequence[str]
) -> Assessment:
    """Separate expected findings from unexpected ones.

    An expected finding that did not occur is itself a finding, unless the
    run tells nothing about the tree under test.

    :param rules: The rules that have to be broken.
    :param excused: The rules that may be broken.
    """
    if not (rules or excused) or found.verdict in (
        Verdict.ERROR,
        Verdict.SKIP,
    ):
        return found
    expected = {*rules, *excused}
    known = tuple(x for x in found.findings if x.rule in expected)
    seen = {finding.rule for finding in known}
    left = tuple(x for x in found.findings if x.rule not in expected)
    missing = tuple(
        Finding(
            rule=_EXPECTED,
            reason=_EXPECTED_REASON,
            side=Side.SOURCE,
            message=(
                f"the rule {printable(rule)} should be broken here, and "
                "is not"
            ),
            devices=(),
            file=SCENARIO,
            records=(),
        )
        for rule in dict.fromkeys(rules)
        if rule not in seen
    )
    verdict = found.verdict
    if left or missing:
        verdict = Verdict.FAIL
    elif verdict is Verdict.FAIL:
        verdict = Verdict.INCONCLUSIVE if found.notes else Verdict.PASS
    return replace(
        found, verdict=verdict, findings=left + missing, known=known
    )


def _at_exit(
    found: Assessment, result: Result, *, whole: bool
) -> Assessment:
    """Judge how the QEMUs exited after the migration."""
    known = result.side if result.outcome is Outcome.CRASHED else ""
    crashed = _crashed(result, known)
    if crashed:
        late = _failed(result, f"QEMU crashed at exit ({crashed})")
        return replace(
            found,
            verdict=Verdict.FAIL,
            findings=found.findings + late.findings,
        )
    if not whole:
        return found
    excused = set(result.killed)
    # A destination cannot tell a source that gives up from a stream that
    # breaks off, and exits with an error in both cases.
    excused |= {leg[1] for leg in result.legs if not completed(result, leg)}
    if any(
        state != 0
        for name, state in result.exit_states.items()
        if name not in excused
    ):
        note = f"QEMU did not exit normally: {result.exit_states}"
        return replace(
            found,
            verdict=worst([found.verdict, Verdict.ERROR]),
            notes=(*found.notes, note),
        )
    return found


def _crashed(result: Result, known: str = "") -> str:
    """Name the QEMUs that died of a signal, except for a known one."""
    return ", ".join(
        side
        for side, status in sorted(result.exit_states.items())
        # SIGKILL (9) was sent by somebody else, or by ourselves.
        if status is not None and status < 0 and status != -9
        if side != known
    )


def _said(result: Result) -> str:
    return f"{result.message}\n{result.stderr}"


def _printed(bundle: Bundle) -> str:
    """Return what the QEMUs printed: QMP knows only one of many errors."""
    printed = (
        bundle.files.get(stderr_file(name), b"")
        for name in bundle.manifest.result.exit_states
    )
    return b"\n".join(printed).decode(errors="replace")


def _refuses(result: Result, *texts: str) -> bool:
    """Return whether QEMU refused, rather than merely failed to start."""
    if result.outcome is Outcome.REFUSED:
        status = result.exit_states.get(result.side)
        if not status or status < 0:
            return False
    said = _said(result)
    return any(x in said for x in texts)


def _unlike(run: RunReading) -> str:
    """Return what QEMU says if the two are not the same machine.

    That says nothing of how VFIO devices migrate, unless it is a part of
    theirs that one of the two does not know.

    :return: Empty if it says nothing like that, or if both are one QEMU.
    """
    result = run.bundle.manifest.result
    inputs = run.bundle.manifest.inputs
    if result.outcome not in (Outcome.REFUSED, Outcome.FAILED) or (
        inputs.source.sha256 == inputs.destination.sha256
    ):
        return ""
    for line in f"{_said(result)}\n{_printed(run.bundle)}".splitlines():
        if any(x in line for x in _UNLIKE) and not _VFIO_SECTION.search(line):
            return line.strip()
    return ""


def _unexpected(expected: Outcome, result: Result) -> Assessment:
    """Separate mistakes of the tree under test from those of the machine."""
    crashed = _crashed(result)
    match result.outcome:
        case Outcome.MIGRATED:
            return _failed(result, f"migrated, but must be {expected}")
        case Outcome.IDLE if expected in REFUSED:
            # All steps were done, those that QEMU has to refuse as well.
            return _failed(result, f"nothing was refused: not {expected}")
        case Outcome.REFUSED if crashed and _ASSERTION.search(_said(result)):
            # Any other crash before it starts may be the machine's fault.
            return _failed(result, f"QEMU crashed ({crashed})")
        case outcome if outcome in REFUSED and _refuses(result, *_REFUSALS):
            return _failed(result, f"{outcome}, but must be {expected}")
        case Outcome.FAILED:
            return _failed(result, "the migration failed")
        case Outcome.CRASHED | Outcome.LOST if crashed:
            return _failed(result, f"QEMU crashed ({crashed})")
    return _unknown(result, f"{result.outcome}, but must be {expected}")


def _named(found: Assessment, hang: str) -> Assessment:
    """Add what hung, if that is known."""
    if not hang:
        return found
    notes = found.notes
    if found.verdict is Verdict.ERROR:
        notes = (*notes, hang)
    return replace(found, summary=f"{found.summary}: {hang}", notes=notes)


def _unknown(result: Result, summary: str) -> Assessment:
    """Make the verdict on what the tree under test is not to blame for."""
    note = printable(_explained(result, summary))
    return Assessment(Verdict.ERROR, str(result.outcome), notes=(note,))


def _failed(result: Result, summary: str) -> Assessment:
    finding = wrong_end(side_of(result.side), _explained(result, summary))
    return Assessment(Verdict.FAIL, summary, findings=(finding,))


def _explained(result: Result, summary: str) -> str:
    return f"{summary}: {result.message}" if result.message else summary
