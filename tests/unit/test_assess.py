# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on a run: errors of the tree, and errors of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from bundles import (
    MIGRATED,
    good_destination,
    good_source,
    make_bundle,
)
from qemu_log import FakeQemu, boot, devices, receive
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.errors import BundleError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import (
    Device,
    Expect,
    Expectation,
    Outcome,
    Scenario,
)
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.step import PLAIN, Cancel, Unplug
from vfio_p2p.timeline import Pass
from vfio_p2p.verdict.assess import Assessment, assess

KNOWN = "Migration is currently not supported with multiple VFIO devices"
OTHER = (
    "Multiple VFIO devices migration is supported only if all of them "
    "support P2P migration"
)


def refused(text: str, status: int | None = 1) -> Result:
    return Result(
        outcome=Outcome.REFUSED,
        side="source",
        message=f"source: QEMU did not start: {text}",
        stderr=text,
        exit_states={"source": status, "destination": None},
    )


def lost(status: int | None) -> Result:
    return Result(
        outcome=Outcome.LOST,
        side="source",
        message="source: QEMU went away in migration",
        exit_states={"source": status, "destination": 1},
    )


CRASHED = msgspec.structs.replace(lost(-6), outcome=Outcome.CRASHED)


def rejected(text: str) -> Result:
    return Result(
        outcome=Outcome.REJECTED,
        side="source",
        message=f"source: migrate: {text}",
        exit_states={"source": 0, "destination": 0},
    )


FAILED = Result(
    outcome=Outcome.FAILED,
    side="source",
    message="source: migration failed: no reason",
    exit_states={"source": 0, "destination": 1},
    legs=(("source", "destination"),),
)
TIMEOUT = Result(
    outcome=Outcome.TIMEOUT,
    side="source",
    step="migration",
    message="source: migration took longer than 120 s",
    exit_states={"source": 0, "destination": None},
)

OUTPUT = msgspec.structs.replace(
    TIMEOUT, outcome=Outcome.OUTPUT, step="", message="source: too much"
)


def scenario(
    outcome: Outcome, message: str | tuple[str, ...] = ""
) -> Scenario:
    """Make a scenario of two devices that expects this outcome."""
    expect = Expectation(outcome=outcome, message=message)
    return msgspec.structs.replace(
        load("two-devices"),
        steps=(*PLAIN, Cancel()),
        expect=Expect(base=expect, patched=expect),
    )


CANCELLED = Result(
    outcome=Outcome.CANCELLED,
    exit_states={"source": 0, "destination": 1},
    legs=(("source", "destination"),),
)


MUST_MIGRATE = scenario(Outcome.MIGRATED)
MUST_REFUSE = scenario(Outcome.REFUSED, KNOWN)
MUST_REFUSE_ALONE = scenario(Outcome.REFUSED, "of its own")
MUST_REJECT = scenario(Outcome.REJECTED, "not today")
MUST_FAIL = scenario(Outcome.FAILED, "no reason")
MUST_CRASH = scenario(Outcome.CRASHED, "went away")
MUST_BE_CANCELLED = scenario(Outcome.CANCELLED)

PASS, FAIL, ERROR = Verdict.PASS, Verdict.FAIL, Verdict.ERROR


def found(
    folder: Path,
    expected: Scenario,
    result: Result,
    *,
    variant: str = "patched",
    source: FakeQemu | bytes | None = None,
    destination: FakeQemu | bytes | None = None,
    logs: Mapping[str, bytes | None] | None = None,
    printed: Mapping[str, bytes] = {},
) -> Assessment:
    path = make_bundle(
        folder / "bundle",
        scenario=expected,
        result=result,
        variant=variant,
        source=source,
        destination=destination,
        logs=logs,
        printed=printed,
    )
    return assess(open_bundle(path))


@pytest.mark.parametrize(
    ("printed", "there"),
    [
        ({}, False),
        ({"source": b"\xff another reason"}, False),
        ({"source": b"warning\n\xff: a bitmap\n"}, True),
        ({"destination": b"a bitmap"}, True),
        # Nobody knows who wrote that.
        ({"elsewhere": b"a bitmap"}, False),
    ],
)
def test_the_message_may_be_in_what_qemu_prints(
    tmp_path: Path, printed: dict[str, bytes], there: bool
) -> None:
    expected = scenario(Outcome.FAILED, "a bitmap")
    judged = found(tmp_path, expected, FAILED, printed=printed)
    said = " ".join(x.message for x in judged.findings)
    assert ("but not with 'a bitmap'" in said) is not there


@pytest.mark.parametrize(
    ("said", "there"),
    [(b"a bitmap", True), (b"a map of bits", True), (b"a map", False)],
)
def test_one_of_several_messages_will_do(
    tmp_path: Path, said: bytes, there: bool
) -> None:
    expected = scenario(Outcome.FAILED, ("a bitmap", "a map of bits"))
    judged = found(tmp_path, expected, FAILED, printed={"source": said})
    told = " ".join(x.message for x in judged.findings)
    missing = "but not with 'a bitmap' or 'a map of bits'"
    assert (missing in told) is not there


@pytest.mark.parametrize(
    ("expected", "result", "verdict"),
    [
        (MUST_MIGRATE, MIGRATED, PASS),
        (MUST_MIGRATE, refused(KNOWN), FAIL),
        (MUST_MIGRATE, refused(OTHER), FAIL),
        (MUST_MIGRATE, refused("error while loading libz.so.1"), ERROR),
        (MUST_MIGRATE, refused("", -9), ERROR),
        (MUST_MIGRATE, refused("Assertion `*errp == NULL' failed.", -6), FAIL),
        (MUST_MIGRATE, refused("assertion failed: (a)", -6), FAIL),
        (MUST_REJECT, refused("Assertion `a' failed.", -6), FAIL),
        (MUST_MIGRATE, refused("out of memory", -6), ERROR),
        (MUST_MIGRATE, refused("", -11), ERROR),
        (MUST_MIGRATE, refused("no such file", None), ERROR),
        (MUST_MIGRATE, rejected(KNOWN), FAIL),
        (MUST_MIGRATE, rejected(OTHER), FAIL),
        (MUST_MIGRATE, rejected("Invalid parameter 'x'"), ERROR),
        (MUST_MIGRATE, FAILED, FAIL),
        (MUST_MIGRATE, TIMEOUT, ERROR),
        (MUST_MIGRATE, OUTPUT, ERROR),
        (MUST_MIGRATE, lost(-6), FAIL),
        (MUST_MIGRATE, lost(-11), FAIL),
        (MUST_MIGRATE, lost(-9), ERROR),
        (MUST_MIGRATE, lost(1), ERROR),
        (MUST_MIGRATE, lost(None), ERROR),
        (MUST_REFUSE, MIGRATED, FAIL),
        (MUST_REFUSE, refused(f"qemu: {KNOWN}"), PASS),
        (MUST_REFUSE, refused(OTHER), FAIL),
        (MUST_REFUSE, refused("error while loading libz.so.1"), ERROR),
        (MUST_REFUSE, refused("", -9), ERROR),
        (MUST_REFUSE, refused("no such file", None), ERROR),
        (MUST_REFUSE, rejected(KNOWN), FAIL),
        (MUST_REFUSE, rejected("Invalid parameter 'x'"), ERROR),
        (MUST_REFUSE, FAILED, FAIL),
        (MUST_REFUSE, TIMEOUT, ERROR),
        (MUST_REFUSE, OUTPUT, ERROR),
        (MUST_REFUSE, lost(-6), FAIL),
        (MUST_REFUSE, lost(-9), ERROR),
        (MUST_REFUSE_ALONE, refused("of its own"), PASS),
        (MUST_REFUSE_ALONE, refused("", -9), ERROR),
        (MUST_REFUSE_ALONE, refused("", None), ERROR),
        (MUST_REJECT, rejected("not today"), PASS),
        (MUST_REJECT, rejected(KNOWN), FAIL),
        (MUST_REJECT, rejected("Invalid parameter 'x'"), ERROR),
        (MUST_REJECT, MIGRATED, FAIL),
        (MUST_FAIL, FAILED, PASS),
        (MUST_FAIL, MIGRATED, FAIL),
        (MUST_FAIL, refused(KNOWN), FAIL),
        (MUST_FAIL, TIMEOUT, ERROR),
        (MUST_MIGRATE, CANCELLED, ERROR),
        (MUST_BE_CANCELLED, CANCELLED, PASS),
        (MUST_BE_CANCELLED, MIGRATED, FAIL),
        (MUST_BE_CANCELLED, FAILED, FAIL),
        (MUST_BE_CANCELLED, TIMEOUT, ERROR),
        (MUST_BE_CANCELLED, lost(-11), FAIL),
        (MUST_CRASH, CRASHED, PASS),
        # Before it has started, too, with the signal's name.
        (MUST_CRASH, refused("went away", -11), PASS),
        (MUST_CRASH, refused("other", -11), ERROR),
        (MUST_CRASH, refused("went away", -9), ERROR),
        (MUST_CRASH, refused("went away", 1), ERROR),
        (MUST_MIGRATE, refused("went away", -11), ERROR),
        (MUST_CRASH, MIGRATED, FAIL),
        (MUST_CRASH, lost(1), ERROR),
        (MUST_MIGRATE, CRASHED, FAIL),
        (scenario(Outcome.FAILED, "a reason"), FAILED, FAIL),
    ],
    ids=lambda value: (
        str(value)
        if isinstance(value, Verdict)
        else str(
            value.outcome
            if isinstance(value, Result)
            else value.expect.base.outcome
        )
    ),
)
def test_expected_and_found(
    tmp_path: Path, expected: Scenario, result: Result, verdict: Verdict
) -> None:
    assessment = found(tmp_path, expected, result)
    assert assessment.verdict is verdict
    assert bool(assessment.findings) == (verdict is FAIL)
    assert bool(assessment.notes) == (verdict is ERROR)
    assert (assessment.blackout_ns is not None) == (
        verdict is PASS and result is MIGRATED
    )


def test_every_outcome_is_judged() -> None:
    # A new outcome must be added to the table above.
    assert len(Outcome) == 10


def test_the_assessment_of_a_good_run(tmp_path: Path) -> None:
    assessment = found(tmp_path, MUST_MIGRATE, MIGRATED)
    assert assessment.summary == "migrated"
    assert assessment.qmp_downtime_ms == 20
    assert assessment.blackout_ns
    assert assessment.blackout_ns > 0


@pytest.mark.parametrize(
    ("source", "destination"),
    [(b"", None), (None, b""), (b"", b""), (b"\n" * 100, None)],
)
def test_empty_trace_never_passes(
    tmp_path: Path, source: bytes | None, destination: bytes | None
) -> None:
    assessment = found(
        tmp_path, MUST_MIGRATE, MIGRATED,
        source=source, destination=destination,
    )  # fmt: skip
    assert assessment.verdict in (Verdict.INCONCLUSIVE, FAIL)
    assert assessment.notes or assessment.findings


def test_cancelled_destination_is_left_where_it_is(tmp_path: Path) -> None:
    destination = FakeQemu(devices("dst0", "dst1"))
    destination.load()
    for expected, result, verdict in (
        (MUST_BE_CANCELLED, CANCELLED, PASS),
        (MUST_MIGRATE, MIGRATED, Verdict.INCONCLUSIVE),
    ):
        folder = tmp_path / str(verdict)
        folder.mkdir()
        assessment = found(
            folder, expected, result, destination=destination
        )
        assert assessment.verdict is verdict
        assert assessment.summary == str(result.outcome)


@pytest.mark.parametrize(
    ("source", "destination", "verdict"),
    [
        (0, 0, PASS),
        (0, 1, PASS),
        (0, -11, FAIL),
        (-11, 1, FAIL),
        (1, 1, ERROR),
    ],
)
def test_how_a_cancelled_migration_ends(
    tmp_path: Path, source: int, destination: int, verdict: Verdict
) -> None:
    states = {"source": source, "destination": destination}
    result = msgspec.structs.replace(CANCELLED, exit_states=states)
    assert found(tmp_path, MUST_BE_CANCELLED, result).verdict is verdict


@pytest.mark.parametrize("unplug", [True, False])
def test_nothing_is_expected_of_an_unplugged_device(
    tmp_path: Path, unplug: bool
) -> None:
    source = boot(FakeQemu(devices("src0", "src1")))
    del source.devices["src1"]
    source.setup()
    source.vm(False, "finish-migrate")
    source.complete()
    source.status("completed")
    source.cleanup()
    destination = FakeQemu(devices("dst0", "dst1"))
    del destination.devices["dst1"]
    receive(destination)
    expected = msgspec.structs.replace(
        MUST_MIGRATE,
        devices=(Device(), Device(root_port=True)),
        steps=(*((Unplug(device=1),) if unplug else ()), *PLAIN),
    )
    assessment = found(
        tmp_path, expected, MIGRATED,
        source=source, destination=destination,
    )  # fmt: skip
    assert assessment.verdict is (PASS if unplug else Verdict.INCONCLUSIVE)


def test_cut_trace_never_passes(tmp_path: Path) -> None:
    whole = good_source().log().splitlines(keepends=True)
    for keep in range(len(whole) // 2):
        folder = tmp_path / str(keep)
        assessment = found(
            folder, MUST_MIGRATE, MIGRATED, source=b"".join(whole[:keep])
        )
        assert assessment.verdict is not PASS


@pytest.mark.parametrize("variant", ["base", "patch-5"])
def test_other_trees_are_judged_by_their_own_rules(
    tmp_path: Path, variant: str
) -> None:
    # A tree that has the series cannot be the base.
    one = load("one-device")
    assessment = found(
        tmp_path,
        one,
        MIGRATED,
        variant=variant,
        source=good_source(count=1),
        destination=good_destination(count=1),
    )
    assert assessment.verdict is (FAIL if variant == "base" else PASS)


def test_a_real_base_passes(tmp_path: Path) -> None:
    assessment = found(
        tmp_path,
        load("one-device"),
        MIGRATED,
        variant="base",
        source=good_source(series=False, count=1),
        destination=good_destination(series=False, count=1),
    )
    assert assessment.verdict is PASS


@pytest.mark.parametrize(
    ("variant", "verdict"),
    [
        ("base", PASS),
        ("patch-1", PASS),
        ("patch-5", PASS),
        ("patch-6", FAIL),
        ("patched", FAIL),
        ("patched+mutant", FAIL),
        ("stock", FAIL),
    ],
)
def test_only_the_whole_series_has_to_migrate_two(
    tmp_path: Path, variant: str, verdict: Verdict
) -> None:
    two = load("two-devices")
    assessment = found(
        tmp_path,
        two,
        refused(KNOWN),
        variant=variant,
        source=FakeQemu(devices("src0")),
        destination=b"",
    )
    assert assessment.verdict is verdict


def swapped() -> FakeQemu:
    """Make a source that ends one device before it quiesces the other."""
    qemu = boot(FakeQemu(devices("src0", "src1")))
    qemu.setup()
    calls = qemu.calls(False)
    calls[1], calls[2] = calls[2], calls[1]
    qemu.vm(False, "finish-migrate", calls)
    qemu.complete()
    qemu.status("completed")
    qemu.cleanup()
    return qemu


@pytest.mark.parametrize("result", [MIGRATED, FAILED, TIMEOUT, lost(-9)])
def test_broken_order_fails_however_the_run_ended(
    tmp_path: Path, result: Result
) -> None:
    assert swapped().log() != good_source().log()
    assessment = found(tmp_path, MUST_MIGRATE, result, source=swapped())
    assert assessment.verdict is FAIL
    broken = {
        device
        for finding in assessment.findings
        for device in finding.devices
    }
    assert broken == {"src0", "src1"}
    assert any(
        str(Pass.PREPARE) in finding.message
        for finding in assessment.findings
    )


@pytest.mark.parametrize(
    "variant", ["patch-x", "patch-", "patch-0", "patch-7", "patch-²", "", "+"]
)
def test_an_unknown_tree(tmp_path: Path, variant: str) -> None:
    with pytest.raises(BundleError, match="is not known"):
        found(tmp_path, MUST_MIGRATE, MIGRATED, variant=variant)


def test_messages_of_qemu_are_made_printable(tmp_path: Path) -> None:
    result = msgspec.structs.replace(TIMEOUT, message="\x1b[31mred\n")
    (note,) = found(tmp_path, MUST_MIGRATE, result).notes
    assert note == "timed-out, but must be migrated: \\x1b[31mred\\n"


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        # One ends QEMU, the other one speaks when QEMU has ended.
        (lost(1), MUST_MIGRATE),
        (lost(1), MUST_FAIL),
        (MIGRATED, MUST_MIGRATE),
    ],
)
def test_what_a_sanitizer_says(
    tmp_path: Path, result: Result, expected: Scenario
) -> None:
    warning = b"==1==WARNING: ASan may be wrong\n"
    plain = found(
        tmp_path / "1", expected, result, printed={"source": warning}
    )
    assert plain.verdict is not FAIL
    for kind in (b"AddressSanitizer: heap-use-after-free", b"LeakSanitizer: "):
        said = warning + b"==1==ERROR: %s \xff on 0x1\n" % kind
        judged = found(
            tmp_path / kind.decode()[:4], expected, result,
            printed={"source": said},
        )  # fmt: skip
        assert judged.verdict is FAIL
        assert judged.findings[-1].rule == "outcome"
        assert kind.decode() in judged.findings[-1].message
