# SPDX-License-Identifier: GPL-2.0-or-later
"""``validate --mutants`` with a workshop that builds and runs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from vfio_p2p.cli import main
from vfio_p2p.errors import BuildError, PatchError
from vfio_p2p.oracle import RULES
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.matrix import Cell
from vfio_p2p.plans.mutants import proving
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Expect, Expectation
from vfio_p2p.series import load_mutants
from vfio_p2p.verdict.assess import Assessment
from workshops import PASS, FakeWorkshop, broken

BASE = "v10.0"
OURS = {x.name: x for x in load_mutants() if x.base == BASE}
ACTIVE = [x for x in OURS.values() if not x.waits_for]
WAITING = [x for x in OURS.values() if x.waits_for]
EVERY_RULE = tuple(rule.name for rule in RULES)

Validate = Callable[..., int]


def judge(
    also: tuple[str, ...] = (), misses: tuple[str, ...] = ()
) -> Callable[[Cell], Assessment]:
    """A workshop in which mutants break their rules, unless missed.

    :param also: Rules that each mutant breaks besides its own.
    :param misses: Mutants that no rule sees.
    """

    def judged(cell: Cell) -> Assessment:
        name = cell.variant.partition("+")[2]
        if not name or name in misses or OURS[name].equivalent:
            return PASS
        rules = (OURS[name].trips, *also)
        return Assessment(Verdict.FAIL, "migrated", broken(*rules))

    return judged


@pytest.fixture
def workshop() -> FakeWorkshop:
    return FakeWorkshop(judge=judge())


def validate(workshop: FakeWorkshop, out: Path, *names: str) -> int:
    """Run the command, and return its exit code."""
    chosen = [word for name in names for word in ("--mutant", name)]
    command = ["validate", "--mutants", *chosen, "--out", str(out)]
    return main(command, workshop)


def fates(out: Path) -> dict[str, Any]:
    """Return the fate of each mutant from the report for programs."""
    document = json.loads((out / "report.json").read_bytes())
    return {x["name"]: x["fate"] for x in document["mutants"]}


def test_all_of_them(workshop: FakeWorkshop, tmp_path: Path) -> None:
    workshop.judge = judge(also=EVERY_RULE)
    assert validate(workshop, tmp_path) == 0
    found = fates(tmp_path)
    assert list(found) == list(OURS)
    for mutant in ACTIVE:
        wanted = "equivalent" if mutant.equivalent else "killed"
        assert found[mutant.name] == wanted
    assert {found[x.name] for x in WAITING} <= {"waits"}
    assert workshop.built == [
        ("10.0", name)
        for name in ("patched", *(f"patched+{x.name}" for x in ACTIVE))
    ]
    scenarios = {name for x in ACTIVE for name in x.scenarios}
    assert {("patched", name) for name in scenarios} <= set(workshop.pairs)
    assert len(workshop.pairs) == len(set(workshop.pairs))
    assert b"<testsuite" in (tmp_path / "junit.xml").read_bytes()


def test_one_that_survives(workshop: FakeWorkshop, tmp_path: Path) -> None:
    workshop.judge = judge(misses=("one-pass",))
    assert validate(workshop, tmp_path, "one-pass", "stop-never") == 1
    assert fates(tmp_path) == {
        "one-pass": "survived", "stop-never": "killed",
    }
    assert [name for _, name in workshop.built] == [
        "patched", "patched+one-pass", "patched+stop-never",
    ]


@pytest.mark.parametrize(
    "err",
    [
        BuildError("ninja failed", Path("x.log")),
        PatchError("x.patch", "a.c", None, "does not apply"),
    ],
    ids=lambda err: type(err).__name__,
)
def test_one_that_does_not_build(
    workshop: FakeWorkshop, tmp_path: Path, err: BuildError | PatchError
) -> None:
    workshop.refuses = {"one-pass": err}
    assert validate(workshop, tmp_path, "one-pass", "stop-never") == 1
    assert fates(tmp_path) == {
        "one-pass": "did not build", "stop-never": "killed",
    }
    assert ("patched+one-pass", "two-devices") not in workshop.pairs


def test_the_tree_itself_has_to_build(
    workshop: FakeWorkshop, tmp_path: Path
) -> None:
    workshop.refuses = {"": BuildError("ninja failed", Path("x.log"))}
    assert validate(workshop, tmp_path, "one-pass") == 5


@pytest.mark.parametrize(
    "words",
    [
        ["--mutants", "--mutant", "nonsense"],
        ["--mutant", "one-pass"],
        ["--mutants", "--scenario", "one-device"],
        *(["--mutants", "--mutant", x.name] for x in WAITING[:1]),
    ],
    ids=" ".join,
)
def test_bad_usage(
    workshop: FakeWorkshop, tmp_path: Path, words: list[str]
) -> None:
    old = tmp_path / "report.json"
    old.write_text("old")
    command = ["validate", *words, "--out", str(tmp_path)]
    assert main(command, workshop) == 2
    assert workshop.ran == []


def test_base_without_mutants(
    workshop: FakeWorkshop,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["validate", "--mutants", "--base", "v10.2"]
    assert main([*command, "--out", str(tmp_path)], workshop) == 2
    err = capsys.readouterr().err
    assert "v10.2 has no mutants" in err
    assert BASE in err
    assert workshop.built == []


def test_no_older_report_is_left(
    workshop: FakeWorkshop, tmp_path: Path
) -> None:
    for name in ("report.json", "junit.xml"):
        (tmp_path / name).write_text("old")
    workshop.refuses = {"": BuildError("ninja failed", Path("x.log"))}
    assert validate(workshop, tmp_path, "one-pass") == 5
    assert list(tmp_path.iterdir()) == []


def test_a_rule_that_nothing_breaks_is_unproven(
    workshop: FakeWorkshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tuple(x for x in EVERY_RULE if x != "conservation")
    workshop.judge = judge(also=rules)
    assert validate(workshop, tmp_path) == 3
    assert "unproven, as nothing breaks them: conservation\n" in (
        capsys.readouterr().out
    )
    document = json.loads((tmp_path / "report.json").read_bytes())
    assert document["unproven"] == ["conservation"]
    assert 'name="conservation"' in (tmp_path / "junit.xml").read_text()


def test_of_some_mutants_nothing_is_said_of_rules(
    workshop: FakeWorkshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate(workshop, tmp_path, ACTIVE[0].name) == 0
    assert "unproven" not in capsys.readouterr().out


def test_scenarios_that_show_a_defect_prove_rules() -> None:
    expect = Expectation(breaks=("conservation",))
    shown = msgspec.structs.replace(
        load("one-device"), name="defect", expect=Expect(patched=expect)
    )
    again = msgspec.structs.replace(shown, name="it-again")
    known = {"one-device": load("one-device")}
    every = known | {x.name: x for x in (shown, again)}
    # One scenario is enough.
    assert list(proving(known, every, "10.0.13")) == ["defect"]
    assert proving({"defect": shown}, every, "10.0.13") == {}
    # What is not for this QEMU proves nothing on it.
    newer = msgspec.structs.replace(shown, since="10.1")
    every = known | {"newer": newer, "it-again": again}
    assert list(proving(known, every, "10.0.13")) == ["it-again"]
    # Neither does what breaks a rule that is not seen to be broken there.
    expect = Expectation(breaks=("conservation", "reached"))
    seen = msgspec.structs.replace(shown, expect=Expect(patched=expect))
    assert list(proving({}, {"seen": seen}, "10.0.13")) == ["seen"]
    assert proving({}, {"seen": seen}, "8.1.0") == {}


@pytest.mark.parametrize(
    ("qemu", "newer"),
    [
        ("QEMU emulator version 8.1.0", {"arcs", "reached", "recover"}),
        ("QEMU emulator version 10.0.13", set()),
        ("a QEMU of no known release", set()),
    ],
)
def test_rules_that_no_run_of_a_release_breaks(
    qemu: str, newer: set[str]
) -> None:
    """8.1 does not trace a request that failed."""
    assert {x.name for x in RULES if not x.can_be_shown_by(qemu)} == newer


def test_what_scenarios_break_proves_rules(
    workshop: FakeWorkshop, tmp_path: Path
) -> None:
    rules = tuple(x for x in EVERY_RULE if x != "run-state")
    by_mutants = judge(also=rules)

    def judged(cell: Cell) -> Assessment:
        found = by_mutants(cell)
        if "run-state" in cell.job.scenario.expect.patched.breaks:
            return replace(found, known=broken("run-state"))
        return found

    workshop.judge = judged
    assert validate(workshop, tmp_path) == 0
