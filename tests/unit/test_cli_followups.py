# SPDX-License-Identifier: GPL-2.0-or-later
"""``validate --followups`` with everything that builds or runs replaced."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from bundles import MIGRATED, make_bundle
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.cli import followups, main, session
from vfio_p2p.errors import BuildError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.model import Report, Row
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import (
    Expect,
    Expectation,
    Outcome,
    Scenario,
)
from vfio_p2p.series import Followup, Variant, find_base
from vfio_p2p.verdict.assess import Assessment, assess

BASE = "v10.0"
OURS = Followup(
    "migration-object-kept", BASE, Path("x"), ("shown",), ("kept",)
)
CRASHED = msgspec.structs.replace(
    MIGRATED,
    outcome=Outcome.CRASHED,
    side="source",
    message="a crash",
    exit_states={"source": -6, "destination": 0},
)
CRASHES = Expectation(outcome=Outcome.CRASHED, message="a crash")


@dataclass
class Machine:
    """Runs that never were.

    :param folder: For their bundles.
    :param refuses: Variants that do not build.
    :param crashes: Variants whose QEMU crashes.
    """

    folder: Path
    refuses: set[str] = field(default_factory=set)
    crashes: set[str] = field(default_factory=lambda: {"patched"})
    ran: list[tuple[str, str]] = field(default_factory=list)

    def build_all(
        self, _: object, variants: Sequence[Variant], shown: object
    ) -> None:
        """Stands in for the real one."""
        for variant in variants:
            if variant.name in self.refuses:
                raise BuildError("ninja failed", Path("x.log"))

    def judge_trees(
        self,
        _base: object,
        _source: object,
        cells: Sequence[tuple[Variant, Scenario]],
        args: object,
    ) -> Report:
        """Likewise."""
        rows = []
        for variant, scenario in cells:
            self.ran.append((variant.name, scenario.name))
            result = MIGRATED
            if scenario.name == "shown" and variant.name in self.crashes:
                result = CRASHED
            path = make_bundle(
                self.folder / f"{variant.name}-{scenario.name}",
                scenario=scenario, variant=variant.name, result=result,
            )
            found = assess(open_bundle(path))
            rows.append(
                Row(variant.name, scenario.name, 42, found, str(path), "")
            )
        return Report("QEMU 10.0.99", BASE, "here", tuple(rows))


def scenario(name: str) -> Scenario:
    """Two devices; in "shown" QEMU is expected to crash without it."""
    expect = Expect()
    if name == "shown":
        expect = Expect(
            patched=CRASHES, followups={OURS.name: Expectation()}
        )
    return msgspec.structs.replace(
        load("two-devices"), name=name, expect=expect
    )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """In place of compilers and VMs."""
    made = Machine(tmp_path / "bundles")
    monkeypatch.setattr(session, "find_outer", lambda: None)
    monkeypatch.setattr(
        followups, "choose_source",
        lambda _: (find_base(BASE), SimpleNamespace()),
    )  # fmt: skip
    monkeypatch.setattr(followups, "load_followups", lambda: (OURS,))
    monkeypatch.setattr(followups, "load", scenario)
    monkeypatch.setattr(followups, "build_all", made.build_all)
    monkeypatch.setattr(followups, "judge_trees", made.judge_trees)
    return made


def validate(out: Path, *words: str) -> int:
    """The command; returns its exit code."""
    return main(["validate", "--followups", "--out", str(out), *words])


def verdicts(out: Path) -> dict[str, str]:
    """From the report for programs."""
    document = json.loads((out / "report.json").read_bytes())
    return {x["scenario"]: x["verdict"] for x in document["trials"]}


def test_one_that_mends(machine: Machine, tmp_path: Path) -> None:
    assert validate(tmp_path) == 0
    assert verdicts(tmp_path) == {"shown": "pass", "kept": "pass"}
    mended = f"patched+{OURS.name}"
    assert machine.ran == [
        ("patched", "shown"), ("patched", "kept"),
        (mended, "shown"), (mended, "kept"),
    ]
    assert b"<testsuite" in (tmp_path / "junit.xml").read_bytes()


def test_one_that_mends_nothing(machine: Machine, tmp_path: Path) -> None:
    machine.crashes.add(f"patched+{OURS.name}")
    assert validate(tmp_path) == 1
    assert verdicts(tmp_path) == {"shown": "fail", "kept": "pass"}


def test_a_defect_that_is_not_there(machine: Machine, tmp_path: Path) -> None:
    machine.crashes.clear()
    assert validate(tmp_path) == 1
    assert verdicts(tmp_path) == {"shown": "fail", "kept": "pass"}


def test_one_that_does_not_build(machine: Machine, tmp_path: Path) -> None:
    machine.refuses = {f"patched+{OURS.name}"}
    assert validate(tmp_path) == 1
    assert verdicts(tmp_path) == {"shown": "fail", "kept": "fail"}
    assert ("patched", "shown") in machine.ran


def test_a_run_that_was_not_made(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_bundles(*arguments: object) -> Report:
        report = machine.judge_trees(*arguments)  # type: ignore[arg-type]
        rows = (replace(row, bundle="") for row in report.rows)
        return replace(report, rows=tuple(rows))

    monkeypatch.setattr(followups, "judge_trees", without_bundles)
    # What was judged as the tree it is of shows no defect.
    assert validate(tmp_path) == 1


def test_a_run_that_was_not_judged(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*arguments: object) -> Report:
        report = machine.judge_trees(*arguments)  # type: ignore[arg-type]
        first, *others = report.rows
        Path(first.bundle, "console.txt").write_text("forged")
        error = Assessment(Verdict.ERROR, "not judged", notes=("damaged",))
        row = replace(first, assessment=error)
        return replace(report, rows=(row, *others))

    monkeypatch.setattr(followups, "judge_trees", damaged)
    assert validate(tmp_path) == 5
    assert verdicts(tmp_path) == {"shown": "error", "kept": "pass"}


def test_no_older_report_is_left(machine: Machine, tmp_path: Path) -> None:
    for name in ("report.json", "junit.xml"):
        (tmp_path / name).write_text("old")
    machine.refuses = {"patched"}
    assert validate(tmp_path) == 5
    assert list(tmp_path.iterdir()) == []


def test_scenarios_are_its_own(machine: Machine, tmp_path: Path) -> None:
    assert validate(tmp_path, "--scenario", "one-device") == 2
    assert machine.ran == []


def test_base_without_followups(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = replace(find_base(BASE), name="v7.0")
    monkeypatch.setattr(followups, "choose_source", lambda _: (other, None))
    assert validate(tmp_path) == 2
    assert "v7.0 has no follow-ups" in capsys.readouterr().err
    assert machine.ran == []
