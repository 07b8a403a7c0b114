# SPDX-License-Identifier: GPL-2.0-or-later
"""From a bundle to a verdict on the run.

The oracle judges what the traces show; this also judges how the run ended
against what the scenario expects of that tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from vfio_p2p.bundle.manifest import SCENARIO
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.downtime.bundle import breakdown
from vfio_p2p.errors import BundleError
from vfio_p2p.oracle import Finding
from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.scenario import model
from vfio_p2p.scenario.model import Outcome
from vfio_p2p.scenario.result import Result
from vfio_p2p.timeline import Side
from vfio_p2p.trace import printable
from vfio_p2p.verdict.ending import broken, side_of, stuck, wrong_ends
from vfio_p2p.verdict.migrations import SERIES_LENGTH, completed, judge_bundle

# What QEMU says when it refuses devices for what the series is about
# (facts 1.4: the text before the series, and with it).
_REFUSALS = (
    "Migration is currently not supported with multiple VFIO devices",
    "Multiple VFIO devices migration is supported only if all of them "
    "support P2P migration",
)
# At the start, or, when migration is merely blocked, at "migrate".
_NOES = (Outcome.REFUSED, Outcome.REJECTED)
# Of these the bundle holds no run that came to an end of its own.
_CUT_SHORT = (
    Outcome.TIMEOUT,
    Outcome.CRASHED,
    Outcome.OUTPUT,
    Outcome.LOST,
)
_EXPECTED = "expected"
_EXPECTED_REASON = (
    "a scenario that shows a defect must tell when it is there no more"
)


@dataclass(frozen=True)
class Assessment:
    """The verdict on one run.

    :param verdict: The verdict.
    :param summary: How the run ended, a few words.
    :param findings: Rules broken.
    :param known: Rules broken, as the scenario expects.
    :param notes: Why nothing is known, if so.
    :param blackout_ns: From the source's first stop request to the
        destination's last device running; None if there was none.
    :param qmp_downtime_ms: What QMP says, which is another number.
    :param traffic: What devices sent to one another over all migrations;
        None if they did not.
    """

    verdict: Verdict
    summary: str
    findings: tuple[Finding, ...] = ()
    known: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    blackout_ns: int | None = None
    qmp_downtime_ms: int | None = None
    traffic: Traffic | None = None


def patches_of(variant: str) -> int:
    """How many patches of the series a tree has.

    :param variant: Its name; see `vfio_p2p.series.Variant`.
    :raise BundleError: When there is no such tree.
    """
    # All of them in a stock tree, too: they are upstream's.
    trees = {"base": 0, "patched": SERIES_LENGTH, "stock": SERIES_LENGTH}
    trees |= {f"patch-{n}": n for n in range(1, SERIES_LENGTH + 1)}
    try:
        return trees[variant.partition("+")[0]]
    except KeyError:
        raise BundleError(
            f"a tree named {variant!r} is not known",
            "use the vfio-p2p that wrote the bundle, or a newer one",
        ) from None


def assess(bundle: Bundle, followup: str | None = None) -> Assessment:
    """Judge one run.

    :param bundle: What it left.
    :param followup: By what is due with this follow-up; by default the one
        that its tree has, if it has one.
    :raise BundleError: When it is of a tree that we do not know.
    """
    expect = bundle.scenario.expect
    variant = bundle.manifest.inputs.qemu.variant
    patches = patches_of(variant)
    expected = expect.base
    if patches >= SERIES_LENGTH:
        on_top = variant.partition("+")[2] if followup is None else followup
        expected = expect.followups.get(on_top, expect.patched)
    found = _judge(bundle, patches, expected)
    if bundle.manifest.result.outcome is Outcome.TIMEOUT:
        found = _named(found, stuck(bundle))
    return _adding_up(bundle, _but_known(found, expected.breaks))


def _adding_up(bundle: Bundle, found: Assessment) -> Assessment:
    """A blackout whose parts are not the whole is not known at all."""
    if found.blackout_ns is None:
        return found
    try:
        parts = breakdown(bundle).phases
        whole_ns = sum(phase.duration_ns for phase in parts)
        # There are none where a migration came after it that failed.
        if not parts or whole_ns == found.blackout_ns:
            return found
        why = f"its phases are {whole_ns} ns, and not {found.blackout_ns} ns"
    except ValueError as err:
        why = str(err)
    return replace(
        found,
        verdict=worst([found.verdict, Verdict.ERROR]),
        notes=(*found.notes, f"the blackout: {why}"),
        blackout_ns=None,
    )


def _judge(
    bundle: Bundle, patches: int, expected: model.Expectation
) -> Assessment:
    """The verdict, if no rule is known to be broken."""
    result = bundle.manifest.result
    if result.outcome is not expected.outcome:
        found = _unexpected(expected.outcome, result)
        # A broken order may well be why it did not end as it should. What
        # ended elsewhere went another way.
        other = msgspec.structs.replace(expected, sequences=())
        judged = judge_bundle(bundle, other, patches, whole=False)
        found = replace(found, traffic=judged.traffic)
        if not judged.findings:
            return found
        return replace(
            found,
            verdict=Verdict.FAIL,
            findings=judged.findings + found.findings,
        )
    if result.outcome in _NOES and not _refuses(
        result, expected.message, *_REFUSALS
    ):
        return _unknown(result, f"{result.outcome}, for another reason")
    if expected.message not in _said(result):
        return _failed(
            result, f"{result.outcome}, but not with {expected.message!r}"
        )
    if result.outcome is Outcome.REFUSED:
        return Assessment(Verdict.PASS, str(result.outcome))
    whole = result.outcome not in _CUT_SHORT
    judged = judge_bundle(bundle, expected, patches, whole=whole)
    findings = (*judged.findings, *wrong_ends(bundle, expected))
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


def _but_known(found: Assessment, rules: Sequence[str]) -> Assessment:
    """Tell what is known from what is not; what is missing is a finding."""
    if not rules:
        return found
    known = tuple(x for x in found.findings if x.rule in rules)
    seen = {finding.rule for finding in known}
    left = tuple(x for x in found.findings if x.rule not in rules)
    missing = tuple(
        Finding(
            rule=_EXPECTED,
            reason=_EXPECTED_REASON,
            side=Side.SOURCE,
            message=f"nothing breaks the rule {printable(rule)}, as it should",
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
    """A QEMU that migrates and then dies has not done well."""
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
    # It cannot tell a source that gives up from a stream that breaks off.
    excused |= {leg[1] for leg in result.legs if not completed(result, leg)}
    if any(
        state != 0
        for name, state in result.exit_states.items()
        if name not in excused
    ):
        note = f"QEMU did not end well: {result.exit_states}"
        return replace(
            found,
            verdict=worst([found.verdict, Verdict.ERROR]),
            notes=(*found.notes, note),
        )
    return found


def _crashed(result: Result, known: str = "") -> str:
    """The sides whose QEMU died of a signal, by name, but for one."""
    return ", ".join(
        side
        for side, status in sorted(result.exit_states.items())
        # SIGKILL (9) is somebody else's work, or ours.
        if status is not None and status < 0 and status != -9
        if side != known
    )


def _said(result: Result) -> str:
    return f"{result.message}\n{result.stderr}"


def _refuses(result: Result, *texts: str) -> bool:
    """Whether QEMU said no, and not only failed to start."""
    if result.outcome is Outcome.REFUSED:
        status = result.exit_states.get(result.side)
        if not status or status < 0:
            return False
    said = _said(result)
    return any(x in said for x in texts)


def _unexpected(expected: Outcome, result: Result) -> Assessment:
    """Tell what the tree under test did wrong from what the machine did."""
    crashed = _crashed(result)
    match result.outcome:
        case Outcome.MIGRATED:
            return _failed(result, f"migrated, but must be {expected}")
        case outcome if outcome in _NOES and _refuses(result, *_REFUSALS):
            return _failed(result, f"{outcome}, but must be {expected}")
        case Outcome.FAILED:
            return _failed(result, "the migration failed")
        case Outcome.CRASHED | Outcome.LOST if crashed:
            return _failed(result, f"QEMU crashed ({crashed})")
    return _unknown(result, f"{result.outcome}, but must be {expected}")


def _named(found: Assessment, hang: str) -> Assessment:
    """Say what hung, too, if that is known."""
    if not hang:
        return found
    notes = found.notes
    if found.verdict is Verdict.ERROR:
        notes = (*notes, hang)
    return replace(found, summary=f"{found.summary}: {hang}", notes=notes)


def _unknown(result: Result, summary: str) -> Assessment:
    """Nothing that the tree under test can be blamed for."""
    note = printable(_explained(result, summary))
    return Assessment(Verdict.ERROR, str(result.outcome), notes=(note,))


def _failed(result: Result, summary: str) -> Assessment:
    finding = broken(side_of(result.side), _explained(result, summary))
    return Assessment(Verdict.FAIL, summary, findings=(finding,))


def _explained(result: Result, summary: str) -> str:
    return f"{summary}: {result.message}" if result.message else summary
