# SPDX-License-Identifier: GPL-2.0-or-later
"""``validate --followups`` with a workshop that builds and runs nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest
from bundles import MIGRATED, make_bundle
from vfio_p2p.cli import main
from vfio_p2p.errors import BuildError, UsageError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.followups import validate_followups
from vfio_p2p.plans.matrix import Cell
from vfio_p2p.plans.modes import ModeRequest
from vfio_p2p.plans.setting import Origin, Setting
from vfio_p2p.report.document import Document
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import (
    Expect,
    Expectation,
    Outcome,
    Scenario,
)
from vfio_p2p.series import Followup
from vfio_p2p.verdict.assess import Assessment
from workshops import FakeWorkshop

BASE = "v10.0"
OURS = Followup(
    "migration-object-kept", BASE, Path("x"), ("shown",), ("kept",)
)
REAL = replace(OURS, name="mapped-pages-synced", devices="real")
CRASHED = msgspec.structs.replace(
    MIGRATED,
    outcome=Outcome.CRASHED,
    side="source",
    message="a crash",
    exit_states={"source": -6, "destination": 0},
)
CRASHES = Expectation(outcome=Outcome.CRASHED, message="a crash")
FAILED = BuildError("ninja failed", Path("x.log"))


@dataclass
class Machine(FakeWorkshop):
    """A workshop that makes bundles of invented runs.

    :param crashes: Variants whose QEMU crashes.
    """

    crashes: set[str] = field(default_factory=lambda: {"patched"})

    def __post_init__(self) -> None:
        self.make = self._make

    def _make(self, cell: Cell, path: Path) -> None:
        result = MIGRATED
        name = cell.job.scenario.name
        if name.startswith("shown") and cell.variant in self.crashes:
            result = CRASHED
        make_bundle(
            path,
            scenario=cell.job.scenario,
            variant=cell.variant,
            result=result,
        )


def scenario(name: str) -> Scenario:
    """Return two devices; in "shown", QEMU crashes without the follow-up."""
    expect = Expect()
    if name == "shown":
        expect = Expect(
            patched=CRASHES,
            followups={x.name: Expectation() for x in (OURS, REAL)},
        )
    return msgspec.structs.replace(
        load("two-devices"), name=name, expect=expect
    )


@pytest.fixture
def machine() -> Machine:
    return Machine()


def validate(
    machine: Machine, out: Path, base: str | None = None
) -> Document:
    """Judge the follow-up `OURS`."""
    return validate_followups(
        ModeRequest(Origin(base=base), Setting(out=out)),
        workshop=machine,
        followups=[OURS],
        load_scenario=scenario,
    )


def verdicts(out: Path) -> dict[str, str]:
    """Read the verdicts from the report for programs."""
    document = json.loads((out / "report.json").read_bytes())
    return {x["scenario"]: x["verdict"] for x in document["followups"]}


def test_one_that_mends(machine: Machine, tmp_path: Path) -> None:
    assert validate(machine, tmp_path).verdict is Verdict.PASS
    assert verdicts(tmp_path) == {"shown": "pass", "kept": "pass"}
    mended = f"patched+{OURS.name}"
    assert machine.pairs == [
        ("patched", "shown"), ("patched", "kept"),
        (mended, "shown"), (mended, "kept"),
    ]
    assert b"<testsuite" in (tmp_path / "junit.xml").read_bytes()


def test_one_that_mends_nothing(machine: Machine, tmp_path: Path) -> None:
    machine.crashes.add(f"patched+{OURS.name}")
    assert validate(machine, tmp_path).verdict is Verdict.FAIL
    assert verdicts(tmp_path) == {"shown": "fail", "kept": "pass"}


def test_a_defect_that_is_not_there(machine: Machine, tmp_path: Path) -> None:
    machine.crashes.clear()
    assert validate(machine, tmp_path).verdict is Verdict.FAIL
    assert verdicts(tmp_path) == {"shown": "fail", "kept": "pass"}


def test_each_has_its_devices(machine: Machine, tmp_path: Path) -> None:
    def judge(at: str) -> tuple[Verdict, dict[str, str]]:
        machine.ran.clear()
        machine.built.clear()
        machine.crashes = {"patched"}
        document = validate_followups(
            ModeRequest(setting=Setting(out=tmp_path, at=at)),
            workshop=machine,
            followups=[OURS, REAL],
            load_scenario=scenario,
        )
        assert {x.variant for x in machine.ran} == {
            name for _, name in machine.built
        }
        return document.verdict, {
            f"{x.followup} {x.scenario}": str(x.verdict)
            for x in document.followups
        }

    assert judge("sealed") == (
        Verdict.PASS,
        {
            f"{OURS.name} shown": "pass",
            f"{OURS.name} kept": "pass",
            f"{REAL.name} shown": "pass",
            f"{REAL.name} kept": "pass",
        },
    )
    assert {(x.job.scenario.name, x.variant) for x in machine.ran} == {
        (f"{scenario}{suffix}", variant)
        for x, suffix in ((OURS, ""), (REAL, "-p2pvf"))
        for scenario in ("shown", "kept")
        for variant in ("patched", f"patched+{x.name}")
    }
    assert judge("some-host") == (
        Verdict.PASS,
        {
            f"{REAL.name} shown": "pass",
            f"{REAL.name} kept": "pass",
            f"{OURS.name} shown": "skip",
            f"{OURS.name} kept": "skip",
        },
    )
    names = {name for _, name in machine.built}
    assert names == {"patched", f"patched+{REAL.name}"}


def test_nothing_to_judge_here(machine: Machine, tmp_path: Path) -> None:
    document = validate_followups(
        ModeRequest(setting=Setting(out=tmp_path, at="some-host")),
        workshop=machine,
        followups=[OURS],
        load_scenario=scenario,
    )
    assert document.verdict is Verdict.SKIP
    assert machine.built == []
    assert verdicts(tmp_path) == {"shown": "skip", "kept": "skip"}


def test_one_that_does_not_build(machine: Machine, tmp_path: Path) -> None:
    machine.refuses = {OURS.name: FAILED}
    assert validate(machine, tmp_path).verdict is Verdict.FAIL
    assert verdicts(tmp_path) == {"shown": "fail", "kept": "fail"}
    assert ("patched", "shown") in machine.pairs


def test_a_run_that_was_not_made(machine: Machine, tmp_path: Path) -> None:
    error = Assessment(Verdict.ERROR, "not run", notes=("no room",))
    machine.judge = lambda cell: error
    machine.make = None
    assert validate(machine, tmp_path).verdict is Verdict.ERROR
    assert verdicts(tmp_path) == {"shown": "error", "kept": "error"}


def test_no_older_report_is_left(machine: Machine, tmp_path: Path) -> None:
    for name in ("report.json", "junit.xml"):
        (tmp_path / name).write_text("old")
    machine.refuses = {"": FAILED}
    with pytest.raises(BuildError):
        validate(machine, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_scenarios_are_its_own(machine: Machine, tmp_path: Path) -> None:
    command = ["validate", "--followups", "--out", str(tmp_path)]
    assert main([*command, "--scenario", "one-device"], machine) == 2
    assert machine.ran == []


def test_base_without_followups(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no follow-ups"):
        validate(machine, tmp_path, base="v8.1")
    assert machine.ran == []
