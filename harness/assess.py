# SPDX-License-Identifier: GPL-2.0-or-later
"""From a bundle to a verdict on the run.

The oracle judges what the traces show; this also judges how the run ended
against what the scenario expects of that tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.bundle.manifest import RESULT, SCENARIO
from harness.bundle.read import Bundle
from harness.errors import BundleError
from harness.legs import SERIES_LENGTH, completed, judge_bundle
from harness.oracle import Finding
from harness.scenario import model
from harness.scenario.model import Outcome
from harness.scenario.result import Result
from harness.scenario.step import Status
from harness.timeline import Side
from harness.trace import printable
from harness.verdict import Verdict, worst

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
    Outcome.REFUSED,
    Outcome.TIMEOUT,
    Outcome.OUTPUT,
    Outcome.LOST,
)
_OUTCOME = "outcome"
_EXPECTED = "expected"
_EXPECTED_REASON = (
    "a scenario that shows a defect must tell when it is there no more"
)
_REASON = (
    "a series must let migrate what it promises, and refuse what it cannot"
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
    """

    verdict: Verdict
    summary: str
    findings: tuple[Finding, ...] = ()
    known: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    blackout_ns: int | None = None
    qmp_downtime_ms: int | None = None


def patches_of(variant: str) -> int:
    """How many patches of the series a tree has.

    :param variant: Its name; see `harness.series.Variant`.
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
    return _but_known(found, expected.breaks)


def _judge(
    bundle: Bundle, patches: int, expected: model.Expectation
) -> Assessment:
    """The verdict, if no rule is known to be broken."""
    result = bundle.manifest.result
    if result.outcome is not expected.outcome:
        found = _unexpected(expected.outcome, result)
        # A broken order may well be why it did not end as it should.
        broken = judge_bundle(bundle, expected, patches, whole=False).findings
        if not broken:
            return found
        return replace(
            found, verdict=Verdict.FAIL, findings=broken + found.findings
        )
    if result.outcome in _NOES and not _refuses(
        result, expected.message, *_REFUSALS
    ):
        return _unknown(result)
    if expected.message not in _said(result):
        return _failed(
            result, f"{result.outcome}, but not with {expected.message!r}"
        )
    if result.outcome in _CUT_SHORT:
        return Assessment(Verdict.PASS, str(result.outcome))
    judged = judge_bundle(bundle, expected, patches)
    findings = (*judged.findings, *_ending(result, expected))
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
    )
    return _at_exit(found, result)


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


def _ending(
    result: Result, expected: model.Expectation
) -> Iterator[Finding]:
    """In what state guests and migrations should be, and are not."""
    for name, wanted in expected.guest.items():
        said = result.guest.get(name, "nothing")
        if said != wanted:
            yield _finding(
                _side(name), f"{name}: the guest is {said}, not {wanted}"
            )
    for name, status in expected.migration.items():
        told = result.migration.get(name) or ("nothing",)
        if told[-1] != status:
            yield _finding(
                _side(name),
                f"{name}: the migration is {told[-1]}, not {status}",
            )
        elif status is not Status.COMPLETED and Status.COMPLETED in told:
            yield _finding(
                _side(name), f"{name}: the migration was called completed"
            )


def _at_exit(found: Assessment, result: Result) -> Assessment:
    """A QEMU that migrates and then dies has not done well."""
    crashed = _crashed(result)
    if crashed:
        late = _failed(result, f"QEMU crashed at exit ({crashed})")
        return replace(
            found,
            verdict=Verdict.FAIL,
            findings=found.findings + late.findings,
        )
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


def _crashed(result: Result) -> str:
    """The sides whose QEMU died of a signal, by name."""
    return ", ".join(
        side
        for side, status in sorted(result.exit_states.items())
        # SIGKILL (9) is somebody else's work, or ours.
        if status is not None and status < 0 and status != -9
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
        case Outcome.LOST if crashed:
            return _failed(result, f"QEMU crashed ({crashed})")
    return _unknown(result)


def _unknown(result: Result) -> Assessment:
    """Nothing that the tree under test can be blamed for."""
    return Assessment(
        Verdict.ERROR,
        str(result.outcome),
        notes=(printable(result.message),),
    )


def _failed(result: Result, summary: str) -> Assessment:
    message = f"{summary}: {result.message}" if result.message else summary
    finding = _finding(_side(result.side), message)
    return Assessment(Verdict.FAIL, summary, findings=(finding,))


def _side(name: str) -> Side:
    """Which of the two a QEMU was at first."""
    if name.startswith(Side.DESTINATION):
        return Side.DESTINATION
    return Side.SOURCE


def _finding(side: Side, message: str) -> Finding:
    return Finding(
        rule=_OUTCOME,
        reason=_REASON,
        side=side,
        message=printable(message),
        devices=(),
        file=RESULT,
        records=(),
    )
