# SPDX-License-Identifier: GPL-2.0-or-later
"""``bisect --qemu``: the first of several QEMUs that changed a downtime."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle
from qemu_log import FakeQemu, devices, receive
from vfio_p2p.cli import main
from vfio_p2p.history.database import open_history
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.matrix import Cell
from vfio_p2p.verdict.assess import Assessment
from workshops import FakeWorkshop

BROKEN, NO_BLACKOUT = "broken", "no blackout"
BEGIN_NS = FakeQemu({}).begin_ns


@dataclass
class Machine(FakeWorkshop):
    """A workshop whose QEMUs differ in how late their destination starts.

    :param late_ms: By how much later, for each QEMU by its name; or what is
        wrong with its run.
    """

    late_ms: dict[str, int | str] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.judge = lambda cell: Assessment(
            Verdict.ERROR, "not run", notes=("no boot",)
        )
        self.make = self._make

    def _make(self, cell: Cell, path: Path) -> None:
        self.folders.append(path.parent)
        version = cell.job.source.version
        late = self.late_ms[re.sub(r".*\((.*)\)", r"\1", version)]
        if late == BROKEN:
            return
        begin_ns = BEGIN_NS + (0 if isinstance(late, str) else late) * 10**6
        destination = receive(
            FakeQemu(devices("dst0", "dst1"), begin_ns=begin_ns)
        )
        make_bundle(
            path,
            scenario=cell.job.scenario,
            variant=cell.variant,
            version=version,
            seed=cell.job.seed,
            destination=b"" if late == NO_BLACKOUT else destination,
        )


def machine_of(*late: int | str) -> Machine:
    """A machine with QEMUs called debian:1, debian:2 and so on."""
    names = (f"debian:{number}" for number in range(1, len(late) + 1))
    return Machine(late_ms=dict(zip(names, late, strict=True)))


def bisect(machine: Machine, *words: str) -> int:
    named = [x for name in machine.late_ms for x in ("--qemu", name)]
    return main(["bisect", *named, *words], machine)


def answer(
    machine: Machine, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, Any]:
    code = bisect(machine, "--json", *words)
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_the_first_and_by_how_much(
    count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for where in range(1, count):
        machine = machine_of(*[0] * where, *[3] * (count - where))
        code, found = answer(machine, capsys)
        assert code == 0
        assert found["first_bad"] == f"debian:{where + 1}"
        assert found["compared_with"] == f"debian:{where}"
        assert found["candidates"] == [found["first_bad"]]
        assert found["change_ns"] == 3_000_000
        # It is a binary search, and nothing is run twice.
        tested = [x["commit"] for x in found["samples"]]
        assert len(tested) == len(set(tested)) <= 2 + (count - 1).bit_length()
        assert tested[:2] == ["debian:1", f"debian:{count}"]


def test_the_document_is_that_of_commits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, found = answer(machine_of(0, 3), capsys)
    assert found["metric"] == "blackout"
    assert found["bad_is"] == "above"
    good, bad = found["samples"]
    assert (good["verdict"], bad["verdict"]) == ("good", "bad")
    assert bad["subject"].startswith("QEMU emulator version 10.0.3")
    assert len(bad["digest"]) == 64
    assert found["limit_ns"] == (good["value_ns"] + bad["value_ns"]) / 2


def test_a_faster_one_is_found_as_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, found = answer(machine_of(5, 5, 2), capsys)
    assert (code, found["first_bad"]) == (0, "debian:3")
    assert (found["bad_is"], found["change_ns"]) == ("below", -3_000_000)


def test_a_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    machine = machine_of(0, 1, 3, 9)
    assert answer(machine, capsys)[1]["first_bad"] == "debian:4"
    code, found = answer(machine, capsys, "--above", "2")
    assert (code, found["first_bad"]) == (0, "debian:3")


@pytest.mark.parametrize("what", [BROKEN, NO_BLACKOUT])
def test_what_cannot_be_measured_is_skipped(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = answer(machine_of(0, what, 0, what, 3, 3), capsys)
    assert code == 3
    assert found["first_bad"] is None
    assert found["candidates"] == ["debian:4", "debian:5"]
    skipped = [x for x in found["samples"] if x["verdict"] == "skipped"]
    assert skipped
    assert all(x["value_ns"] is None and x["why"] for x in skipped)
    code, found = answer(machine_of(0, what, 0, 3), capsys)
    assert (code, found["first_bad"]) == (0, "debian:4")


@pytest.mark.parametrize(
    ("late", "code", "why"),
    [
        ((0, 0), 2, "there is no change to find"),
        ((NO_BLACKOUT, 3), 2, "no blackout of debian:1"),
        ((0, NO_BLACKOUT), 2, "no blackout of debian:2"),
        ((BROKEN, 3), 5, "debian:1: no boot"),
        ((0,), 2, "one QEMU alone"),
    ],
)
def test_ends_that_do_not_do(
    late: tuple[int | str, ...],
    code: int,
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bisect(machine_of(*late)) == code
    said = capsys.readouterr().err.splitlines()
    assert any(why in line for line in said)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--good", "x"], "--good: this has no effect with --qemu"),
        (["--source", "x", "--bad", "y"], "--source, --bad: this has no"),
        (["--qemu", "debian:1"], "debian:1 is named twice"),
        (["--scenario", "none"], "no scenario 'none'"),
        (["--at", "none"], "none"),
    ],
)
def test_bad_usage(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = machine_of(0, 3)
    assert bisect(machine, *words) == 2
    assert why in capsys.readouterr().err
    assert machine.ran == []


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ([], "--source, --good, --bad"),
        (["--source", "x", "--good", "y"], "--bad"),
    ],
)
def test_without_any_qemu(
    words: list[str], missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bisect", *words], Machine()) == 2
    said = capsys.readouterr().err
    assert f"arguments are required: {missing}\n" in said
    assert "--qemu" in said


def test_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    machine = machine_of(0, 0, 3)
    assert bisect(machine) == 0
    out = capsys.readouterr().out
    assert "\ndebian:3 is the first bad QEMU\n" in out
    assert "compared with debian:2; with it changed:" in out
    assert "QEMU emulator version 10.0.3 (debian:3)" in out
    assert bisect(machine_of(0, BROKEN, 3)) == 3
    out = capsys.readouterr().out
    assert "the first bad QEMU is one of these:\n  debian:2\n" in out


def test_the_history_gets_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history"
    machine = machine_of(0, BROKEN, 0, 3)
    assert bisect(machine, "--record", "--db", str(path)) == 0
    with open_history(path) as history:
        found = {x.qemu_version[-9:-1] for x in history.entries()}
    assert found == {"debian:1", "debian:3", "debian:4"}


def test_no_bundle_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    machine = machine_of(0, BROKEN, 3)
    assert bisect(machine) == 3
    assert len(machine.folders) == 3
    assert not any(x.exists() for x in machine.folders)
