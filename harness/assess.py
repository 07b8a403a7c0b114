# SPDX-License-Identifier: GPL-2.0-or-later
"""From a bundle to a verdict on the run.

The oracle judges what the traces show; this also judges how the run ended
against what the scenario expects of that tree.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.bundle.manifest import (
    DESTINATION_TRACE,
    SOURCE_TRACE,
    device_log,
)
from harness.bundle.read import Bundle
from harness.errors import BundleError
from harness.oracle import Expectation, Finding, judge
from harness.scenario import model
from harness.scenario.model import Outcome, Scenario
from harness.scenario.result import Result
from harness.timeline import Side, Timeline
from harness.timeline import build as build_timeline
from harness.trace import Kind, TraceReader, printable, read_device_log
from harness.uapi import MigrationFlags
from harness.verdict import Verdict, worst

SERIES_LENGTH = 6

# What QEMU says when it refuses devices for what the series is about
# (facts 1.4: the text before the series, and with it).
_REFUSALS = (
    "Migration is currently not supported with multiple VFIO devices",
    "Multiple VFIO devices migration is supported only if all of them "
    "support P2P migration",
)
# At the start, or, when migration is merely blocked, at "migrate".
_NOES = (Outcome.REFUSED, Outcome.REJECTED)
_EXPECTED = "expected"
_EXPECTED_REASON = (
    "a scenario that shows a defect must tell when it is there no more"
)
_OUTCOME = "outcome"
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


def assess(bundle: Bundle) -> Assessment:
    """Judge one run.

    :param bundle: What it left.
    :raise BundleError: When it is of a tree that we do not know.
    """
    scenario = bundle.scenario
    patches = patches_of(bundle.manifest.inputs.qemu.variant)
    expected = (
        scenario.expect.patched
        if patches >= SERIES_LENGTH
        else scenario.expect.base
    )
    found = _judge(bundle, scenario, patches, expected)
    return _but_known(found, expected.findings)


def _judge(
    bundle: Bundle,
    scenario: Scenario,
    patches: int,
    expected: model.Expectation,
) -> Assessment:
    """The verdict, if no rule is known to be broken."""
    result = bundle.manifest.result
    if result.outcome is not expected.outcome:
        found = _unexpected(expected.outcome, result)
        # A broken order may well be why it did not end as it should.
        order = _judge_order(bundle, scenario, patches)
        if not order.findings:
            return found
        return replace(
            found,
            verdict=Verdict.FAIL,
            findings=order.findings + found.findings,
        )
    if result.outcome in (Outcome.MIGRATED, Outcome.CANCELLED):
        found = _judge_order(bundle, scenario, patches)
        return _at_exit(found, result)
    if result.outcome in _NOES and not _refuses(
        result, expected.message, *_REFUSALS
    ):
        return _unknown(result)
    if expected.message not in _said(result):
        return _failed(
            result, f"{result.outcome}, but not with {expected.message!r}"
        )
    return _judge_order(bundle, scenario, patches)


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
            file="scenario.json",
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
    states = dict(result.exit_states)
    if result.outcome is Outcome.CANCELLED:
        # It cannot tell that from a stream that breaks off.
        states.pop(Side.DESTINATION, None)
    if any(state != 0 for state in states.values()):
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
    side = Side.DESTINATION if result.side == "destination" else Side.SOURCE
    message = f"{summary}: {result.message}" if result.message else summary
    finding = Finding(
        rule=_OUTCOME,
        reason=_REASON,
        side=side,
        message=printable(message),
        devices=(),
        file="result.json",
        records=(),
    )
    return Assessment(Verdict.FAIL, summary, findings=(finding,))


def _judge_order(
    bundle: Bundle, scenario: Scenario, patches: int
) -> Assessment:
    """What the witnesses say, whatever became of the migration."""
    outcome = bundle.manifest.result.outcome
    migrated = outcome is Outcome.MIGRATED
    source, destination, known = _sides(bundle)
    devices = [x for x in scenario.each_device() if x.flags]
    expect = replace(
        Expectation.of_patches(
            patches,
            sum(not device.unplug for device in devices),
            p2p=any(device.has_p2p for device in devices),
            migrates=migrated,
        ),
        flags={name: _flags(device) for name, device in known.items()},
        # Linux's mtty keeps none.
        logs=bundle.manifest.inputs.testbed.driver == "p2psim",
        ends=migrated or outcome is Outcome.CANCELLED,
    )
    judgement = judge(
        source,
        # Where a cancelled migration leaves it is nobody's promise.
        None if outcome is Outcome.CANCELLED else destination,
        expect,
    )
    blackout = judgement.blackout if migrated else None
    return Assessment(
        verdict=judgement.verdict,
        summary=str(outcome),
        findings=judgement.findings,
        notes=tuple(
            f"{note.side}: {note.message}" for note in judgement.notes
        ),
        blackout_ns=blackout.duration_ns if blackout else None,
        qmp_downtime_ms=bundle.manifest.result.qmp_downtime_ms,
    )


def timelines(bundle: Bundle) -> tuple[Timeline, Timeline]:
    """What the source did and what the destination did.

    Devices that the scenario takes out first do not occur in them.

    :param bundle: What a run left.
    :raise BundleError: When its scenario is damaged or newer than we are.
    """
    source, destination, _ = _sides(bundle)
    return source, destination


def _sides(
    bundle: Bundle,
) -> tuple[Timeline, Timeline, dict[str, model.Device]]:
    """Both timelines, and the devices that migrate by name."""
    source = _timeline(bundle, SOURCE_TRACE, Side.SOURCE)
    destination = _timeline(bundle, DESTINATION_TRACE, Side.DESTINATION)
    devices = [x for x in bundle.scenario.each_device() if x.flags]
    known = {
        name: device
        for side in (source, destination)
        for name, device in zip(side.plugged, devices, strict=False)
    }
    unplugged = {name for name, device in known.items() if device.unplug}
    return (
        _without(source, unplugged),
        _without(destination, unplugged),
        known,
    )


def _timeline(bundle: Bundle, name: str, side: Side) -> Timeline:
    # No file at all is an empty log, on which nothing holds.
    data = bundle.files.get(name, b"")
    found = build_timeline(TraceReader(io.BytesIO(data), name), side)
    logs = {}
    for device in found.devices:
        path = device_log(device)
        if path in bundle.files:
            log = read_device_log(io.BytesIO(bundle.files[path]), path)
            # Other QEMUs of the run may have used the device as well.
            for mark in found.marks_of(Kind.REALIZE, device=device):
                if mark.time_ns is not None:
                    log = log.opened_at(mark.time_ns)
            logs[device] = log
    return replace(found, logs=logs)


def _without(side: Timeline, unplugged: set[str]) -> Timeline:
    """A timeline in which nothing is due of the devices taken out."""
    return replace(
        side,
        plugged=tuple(x for x in side.plugged if x not in unplugged),
        devices=tuple(x for x in side.devices if x not in unplugged),
    )


def _flags(device: model.Device) -> MigrationFlags:
    flags = MigrationFlags(0)
    for flag in device.flags:
        flags |= MigrationFlags[flag.name]
    return flags
