# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on runs whose two sides have different QEMUs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from bundles import MIGRATED, good_destination, good_source, make_bundle
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.runs import run_of
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import (
    Expect,
    Expectation,
    Outcome,
    Scenario,
    StateSequence,
)
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.step import Status
from vfio_p2p.side import Side
from vfio_p2p.verdict.assess import NOT_ALIKE, assess
from vfio_p2p.verdict.due import due_of
from workshops import program_of

ONE = load("one-device")
TWO = load("two-devices")
REFUSAL = "Migration is currently not supported with multiple VFIO devices"
HPET = (
    "qemu-system-x86_64: Unknown savevm section or instance 'hpet' 0. Make "
    "sure that your current VM setup matches your saved VM setup, including "
    "any hotplugged devices"
)


def bundle(
    path: Path,
    first: str,
    second: str,
    *,
    result: Result = MIGRATED,
    scenario: Scenario = ONE,
    versions: tuple[str, str] = ("10.0.99", "10.0.99"),
    like: tuple[str, str] | None = None,
    printed: bytes = b"",
) -> Bundle:
    """Make a bundle of one device, each side of which is of its own tree.

    :param like: The trees that the two sides behave like.
    """
    series = [x != "base" for x in like or (first, second)]
    return open_bundle(
        make_bundle(
            path,
            variant=first,
            version=versions[0],
            to=program_of(second, versions[1]),
            scenario=scenario,
            result=result,
            source=good_source(series=series[0], count=1),
            destination=good_destination(series=series[1], count=1),
            printed={"destination": printed} if printed else {},
        )
    )


TREES = ("base", "patched")


@pytest.mark.parametrize("first", TREES)
@pytest.mark.parametrize("second", TREES)
def test_each_side_is_judged_by_its_own_tree(
    tmp_path: Path, first: str, second: str
) -> None:
    found = assess(bundle(tmp_path / "x", first, second))
    assert found.verdict is Verdict.PASS, found
    assert found.blackout_ns is not None


@pytest.mark.parametrize("first", TREES)
@pytest.mark.parametrize("second", TREES)
@pytest.mark.parametrize("wrong", Side)
def test_each_side_is_held_to_its_own_tree(
    tmp_path: Path, first: str, second: str, wrong: Side
) -> None:
    """A side that behaves like the other tree breaks its own rules."""
    other = {"base": "patched", "patched": "base"}
    like = (
        (other[first], second)
        if wrong is Side.SOURCE
        else (first, other[second])
    )
    found = assess(bundle(tmp_path / "x", first, second, like=like))
    assert found.verdict is Verdict.FAIL
    assert {x.side for x in found.findings} == {wrong}
    assert {"p2p", "sequence"} <= {x.rule for x in found.findings}


def test_a_sequence_goes_by_the_release_of_its_side(tmp_path: Path) -> None:
    new = StateSequence(
        on="destination", states=("RESUMING", "STOP"), since="11.0"
    )
    scenario = msgspec.structs.replace(
        ONE, expect=Expect(patched=Expectation(sequences=(new,)))
    )
    for versions, verdict in (
        (("10.0.99", "11.1.3"), Verdict.FAIL),
        (("11.1.3", "10.0.99"), Verdict.PASS),
    ):
        found = assess(
            bundle(
                tmp_path / versions[0],
                "patched",
                "stock",
                scenario=scenario,
                versions=versions,
            )
        )
        assert found.verdict is verdict, found


def refused(side: Side) -> Result:
    return Result(
        outcome=Outcome.REFUSED,
        side=str(side),
        message=f"{side}: QEMU did not start: {REFUSAL}",
        stderr=REFUSAL,
        exit_states={side: 1},
    )


@pytest.mark.parametrize("first", TREES)
@pytest.mark.parametrize("second", TREES)
@pytest.mark.parametrize("side", Side)
def test_the_side_without_the_series_has_to_refuse(
    tmp_path: Path, first: str, second: str, side: Side
) -> None:
    made = bundle(
        tmp_path / "x", first, second, scenario=TWO, result=refused(side)
    )
    found = assess(made)
    # Which of two bases is started first is not the question.
    right = {Side.SOURCE: first, Side.DESTINATION: second}[side] == "base"
    assert (found.verdict is Verdict.PASS) is right, found
    assert found.verdict in (Verdict.PASS, Verdict.FAIL)


@pytest.mark.parametrize("first", TREES)
@pytest.mark.parametrize("second", TREES)
def test_nobody_refuses(tmp_path: Path, first: str, second: str) -> None:
    path = make_bundle(
        tmp_path / "x", variant=first, to=program_of(second), scenario=TWO
    )
    found = assess(open_bundle(path))
    wanted = Verdict.PASS if "base" not in (first, second) else Verdict.FAIL
    assert found.verdict is wanted


def failed(*, outcome: Outcome = Outcome.FAILED) -> Result:
    return Result(
        outcome=outcome,
        side="source",
        message="source: migration failed: Sibling indicated error 1",
        exit_states={"source": 0, "destination": 1},
        legs=(("source", "destination"),),
    )


# As QEMU 10.2 words it.
NEWER = "load of migration failed: Invalid argument: " + HPET.partition(": ")[
    2
].replace("savevm ", "")


@pytest.mark.parametrize("printed", [HPET, NEWER])
def test_another_machine_is_no_defect(tmp_path: Path, printed: str) -> None:
    made = bundle(
        tmp_path / "x",
        "patched",
        "stock",
        versions=("11.1.3", "10.0.99"),
        result=failed(),
        printed=printed.encode(),
    )
    found = assess(made)
    assert (found.verdict, found.summary) == (Verdict.SKIP, NOT_ALIKE)
    assert found.notes == (printed,)


def test_what_is_wrong_on_the_way_is_told(tmp_path: Path) -> None:
    made = bundle(
        tmp_path / "x",
        "patched",
        "stock",
        versions=("11.1.3", "10.0.99"),
        like=("base", "stock"),
        result=failed(),
        printed=HPET.encode(),
    )
    found = assess(made)
    assert found.verdict is Verdict.SKIP
    assert any(x.startswith("p2p (source): ") for x in found.notes)


def test_an_unknown_machine_type_is_no_defect(tmp_path: Path) -> None:
    text = 'qemu-system-x86_64: unsupported machine type: "pc-q35-11.1"'
    result = msgspec.structs.replace(
        refused(Side.DESTINATION), message=text, stderr=text
    )
    found = assess(bundle(tmp_path / "x", "patched", "stock", result=result))
    assert (found.verdict, found.summary) == (Verdict.SKIP, NOT_ALIKE)


@pytest.mark.parametrize(
    "printed",
    [
        HPET.replace("'hpet'", "'0000:00:01.0/vfio'"),
        NEWER.replace("'hpet'", "'0000:00:01.0/vfio'"),
        "qemu-system-x86_64: load of migration failed: Invalid argument",
    ],
)
def test_a_defect_is_no_other_machine(
    tmp_path: Path, printed: str
) -> None:
    """A part of VFIO that is not known is what is judged here."""
    made = bundle(
        tmp_path / "x",
        "patched",
        "stock",
        versions=("11.1.3", "10.0.99"),
        result=failed(),
        printed=printed.encode(),
    )
    assert assess(made).verdict is Verdict.FAIL


def test_one_qemu_is_always_the_same_machine(tmp_path: Path) -> None:
    path = make_bundle(
        tmp_path / "x",
        scenario=ONE,
        result=failed(),
        source=good_source(count=1),
        destination=good_destination(count=1),
        printed={"destination": HPET.encode()},
    )
    assert assess(open_bundle(path)).verdict is Verdict.FAIL


def expecting(base: Expectation, patched: Expectation) -> Scenario:
    """Make a scenario whose destination has a fault."""
    (device,) = ONE.devices
    faulty = msgspec.structs.replace(
        device,
        faults=("arc RESUMING STOP 1 fail EIO",),
        fault_side=Side.DESTINATION,
    )
    return msgspec.structs.replace(
        ONE, devices=(faulty,), expect=Expect(base=base, patched=patched)
    )


def test_what_is_expected_of_two_trees(tmp_path: Path) -> None:
    both = [
        Expectation(
            guest={"source": f"{tree} guest", "destination": f"{tree} guest"},
            migration={
                "source": Status.COMPLETED,
                "destination": Status.COMPLETED
                if tree == "patched"
                else Status.FAILED,
            },
            ends={"src0": "STOP", "dst0": end},
            breaks=("left", tree),
        )
        for tree, end in (("base", "STOP"), ("patched", "RUNNING"))
    ]
    scenario = expecting(*both)
    made = bundle(tmp_path / "x", "base", "patched", scenario=scenario)
    due = due_of(made.manifest.inputs, scenario)
    assert due.expected.guest == {
        "source": "base guest",
        "destination": "patched guest",
    }
    assert due.expected.migration["destination"] is Status.COMPLETED
    assert due.expected.ends == {"src0": "STOP", "dst0": "RUNNING"}
    assert due.expected.breaks == ("left",)
    assert due.excused == ("base", "patched")


def test_the_side_with_the_faults_decides_how_it_ends(
    tmp_path: Path,
) -> None:
    crashed = Expectation(outcome=Outcome.CRASHED, message="abort")
    scenario = expecting(Expectation(), crashed)
    made = bundle(tmp_path / "x", "base", "patched", scenario=scenario)
    due = due_of(made.manifest.inputs, scenario)
    assert due.governing is Side.DESTINATION
    assert due.expected.outcome is Outcome.CRASHED
    other = bundle(tmp_path / "y", "patched", "base", scenario=scenario)
    due = due_of(other.manifest.inputs, scenario)
    assert due.expected.outcome is Outcome.MIGRATED


def test_both_are_named(tmp_path: Path) -> None:
    made = bundle(
        tmp_path / "x",
        "base",
        "stock",
        versions=("QEMU emulator version 10.0.1", "QEMU version 11.1.3"),
    )
    run = run_of(made)
    assert run.variant == "base to stock"
    assert run.qemu == "QEMU emulator version 10.0.1 to QEMU version 11.1.3"
    same = bundle(
        tmp_path / "y",
        "patched",
        "patched",
        versions=("QEMU version 8.1.0", "QEMU version 10.0.1"),
    )
    assert run_of(same).variant == "patched 8.1.0 to patched 10.0.1"


def test_the_machine_type_is_told(tmp_path: Path) -> None:
    guest = msgspec.structs.replace(ONE.guest, machine="pc-q35-9.0")
    pinned = msgspec.structs.replace(ONE, guest=guest)
    made = bundle(tmp_path / "x", "base", "patched", scenario=pinned)
    assert run_of(made).machine == "pc-q35-9.0"
    plain = bundle(tmp_path / "y", "base", "patched")
    assert run_of(plain).machine == ""
