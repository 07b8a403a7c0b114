# SPDX-License-Identifier: GPL-2.0-or-later
"""``validate --all`` with a workshop that builds and runs nothing."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from vfio_p2p.cli import main
from vfio_p2p.errors import BuildError
from vfio_p2p.oracle import RULES
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.matrix import Cell
from vfio_p2p.progress import SILENT
from vfio_p2p.scenario.load import names
from vfio_p2p.series import load_mutants
from vfio_p2p.verdict.assess import Assessment
from workshops import PASS, FakeWorkshop, broken

EVERY_RULE = tuple(rule.name for rule in RULES)
OURS = {
    x.name: x
    for x in load_mutants()
    if x.base == "v10.0" and not x.waits_for
}
TREES = ("v10.0 patched", "v10.2 stock", "v11.1 stock")
ELEVEN = FakeWorkshop().examine("debian:11.1", SILENT).variant


@dataclass
class Machine(FakeWorkshop):
    """A workshop that judges runs by their names.

    :param also: Rules that each mutant breaks besides its own.
    :param found: The verdicts on runs without a mutant, by the name of the
        bundle.
    """

    also: tuple[str, ...] = EVERY_RULE
    found: dict[str, Assessment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.judge = self._judge

    def _judge(self, cell: Cell) -> Assessment:
        name = cell.variant.partition("+")[2]
        if name and OURS[name].equivalent:
            return PASS
        if name:
            findings = broken(OURS[name].trips, *self.also)
            return Assessment(Verdict.FAIL, "migrated", findings)
        return self.found.get(cell.name, PASS)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def validate(machine: Machine, out: Path, *words: str) -> int:
    """Run the command, and return its exit code."""
    return main(["validate", "--all", *words, "--out", str(out)], machine)


def prefix_of(tree: str) -> str:
    """Return the beginning of the names of a tree's bundles."""
    base, _, variant = tree.partition(" ")
    return f"{base}-{ELEVEN if base == 'v11.1' else variant}"


def report(out: Path) -> Any:
    """Return the report for programs."""
    return json.loads((out / "report.json").read_bytes())


def test_everything_passes(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate(machine, tmp_path) == 0
    assert machine.built == [
        ("10.0", "patched"),
        ("10.2", "stock"),
        *(("10.0", f"patched+{name}") for name in OURS),
    ]
    assert len(machine.names) == len(set(machine.names))
    for tree in TREES:
        for name in names():
            assert f"{prefix_of(tree)}-{name}-s42" in machine.names
    mutant_runs = sum(len(x.scenarios) for x in OURS.values())
    assert len(machine.ran) == len(TREES) * len(names()) + mutant_runs

    document = report(tmp_path)
    assert [x["name"] for x in document["trees"]] == list(TREES)
    for tree in TREES:
        runs = [x for x in document["runs"] if x["tree"] == tree]
        assert [run["scenario"] for run in runs] == names()
    assert document["trees"][1]["qemu"] == "QEMU 10.2.99"
    assert "11.1.3 (debian:11.1)" in document["trees"][2]["qemu"]
    assert document["trees"][2]["origin"] == "debian:11.1"
    for mutant in document["mutants"]:
        same = OURS[mutant["name"]].equivalent
        assert mutant["fate"] == ("equivalent" if same else "killed")
    assert document["unproven"] == []

    out = capsys.readouterr().out
    assert len(out.splitlines()) < 25
    assert max(map(len, out.splitlines())) <= 120
    assert "\nverdict: pass\n" in out
    assert f"rules: {len(RULES)}, each broken by something\n" in out

    suites = ET.parse(tmp_path / "junit.xml").getroot().findall("testsuite")
    assert [x.get("name") for x in suites] == [
        *(f"vfio-p2p {tree}" for tree in TREES),
        "vfio-p2p validate --mutants",
        "vfio-p2p rules",
    ]
    assert [x.get("tests") for x in suites] == [
        *(str(len(names())) for _ in TREES),
        str(len(OURS)),
        str(len(RULES)),
    ]
    assert {x.get("failures") for x in suites} == {"0"}


def test_one_run_that_fails_is_shown_in_full(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.found["v10.2-stock-ping-pong-s42"] = Assessment(
        Verdict.FAIL, "migrated", broken("order")
    )
    machine.found["v10.0-patched-one-device-s42"] = Assessment(
        Verdict.ERROR, "not run", notes=("no boot",)
    )
    assert validate(machine, tmp_path) == 1
    out = capsys.readouterr().out
    assert "stock, ping-pong: fail\n  broken: order (source)\n" in out
    assert "patched, one-device: error\n  no boot\n" in out
    assert "two-devices" not in out
    counts = {
        tuple(line.split())
        for line in out.splitlines()
        if line.startswith((" v10.", " v11."))
    }
    number = len(names())
    assert counts == {
        ("v10.0", "patched", f"{number}", f"{number - 1}", *"---1"),
        ("v10.2", "stock", f"{number}", f"{number - 1}", *"--1-"),
        ("v11.1", "stock", f"{number}", f"{number}", *"----"),
    }


def test_the_worst_decides(machine: Machine, tmp_path: Path) -> None:
    machine.found["v10.2-stock-ping-pong-s42"] = Assessment(
        Verdict.ERROR, "not run", notes=("no boot",)
    )
    assert validate(machine, tmp_path) == 5


def test_runs_that_cannot_be_made_do_not_count(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skipped = Assessment(Verdict.SKIP, "skipped", notes=("not run: no VF",))
    for tree in ("v10.0-patched", "v10.2-stock"):
        machine.found[f"{tree}-mapped-bars-s42"] = skipped
    assert validate(machine, tmp_path) == 0
    assert "stock, mapped-bars: skip\n  not run: no VF" in (
        capsys.readouterr().out
    )
    # A tree of which nothing could be run has not passed.
    for name in names():
        machine.found[f"v10.2-stock-{name}-s42"] = skipped
    assert validate(machine, tmp_path) == 4


def test_known_defects_take_a_line_each(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tree in ("v10.0-patched", "v10.2-stock"):
        machine.found[f"{tree}-stop-and-cont-s42"] = replace(
            PASS, known=broken("run-state", "run-state")
        )
    assert validate(machine, tmp_path) == 0
    assert (
        "defects that their scenarios expect:\n"
        "  stop-and-cont: run-state (v10.0 patched, v10.2 stock)\n"
    ) in capsys.readouterr().out


def test_a_rule_that_nothing_breaks_is_a_failure(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.also = tuple(x for x in EVERY_RULE if x != "conservation")
    assert validate(machine, tmp_path) == 1
    out = capsys.readouterr().out
    assert "rules: unproven, as nothing breaks them: conservation\n" in out
    assert report(tmp_path)["unproven"] == ["conservation"]
    text = (tmp_path / "junit.xml").read_text()
    assert "unproven: nothing breaks it" in text


@pytest.mark.parametrize("tree", TREES)
def test_a_scenario_of_any_tree_proves_a_rule(
    machine: Machine, tmp_path: Path, tree: str
) -> None:
    machine.also = tuple(x for x in EVERY_RULE if x != "conservation")
    name = f"{prefix_of(tree)}-two-devices-s42"
    machine.found[name] = replace(PASS, known=broken("conservation"))
    assert validate(machine, tmp_path) == 0


def test_of_what_was_not_run_nothing_is_said(
    machine: Machine, tmp_path: Path
) -> None:
    machine.also = tuple(x for x in EVERY_RULE if x != "conservation")
    machine.found["v10.2-stock-two-devices-s42"] = Assessment(
        Verdict.ERROR, "not run"
    )
    assert validate(machine, tmp_path) == 5


def test_a_mutant_that_is_not_killed_is_shown(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.refuses = {"one-pass": BuildError("ninja failed", Path("x"))}
    assert validate(machine, tmp_path) == 1
    out = capsys.readouterr().out
    same = sum(bool(x.equivalent) for x in OURS.values())
    assert (
        f"mutants: {len(OURS) - 1 - same} killed, {same} equivalent, "
        "1 did not build\n" in out
    )
    assert [x for x in out.splitlines() if x.startswith(" one-pass ")]
    assert "forward-on-stop" not in out


def test_a_base_whose_mutants_have_patches_of_their_own(
    machine: Machine, tmp_path: Path
) -> None:
    mutants = [
        x for x in load_mutants() if x.base == "v8.1" and not x.waits_for
    ]
    assert validate(machine, tmp_path, "--base", "v8.1") == 0
    assert machine.built == [
        ("8.1", "patched"),
        ("10.2", "stock"),
        *(("8.1", f"patched+{x.name}") for x in mutants),
    ]
    assert len(mutants) > 30
    assert all(x.path.parent.name == "v8.1" for x in mutants)


def test_upstreams_own_is_judged_once(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # It has no mutants, which prove the rules.
    assert validate(machine, tmp_path, "--base", "v10.2") == 3
    assert machine.built == [("10.2", "stock")]
    assert report(tmp_path)["mutants"] == []
    assert "rules: not proven" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["--scenario", "one-device"],
        ["--mutant", "one-pass"],
        ["--variant", "base"],
        ["--device", "mtty"],
    ],
    ids=" ".join,
)
def test_bad_usage(
    machine: Machine, tmp_path: Path, words: list[str]
) -> None:
    assert validate(machine, tmp_path, *words) == 2
    assert machine.ran == []


@pytest.mark.parametrize(
    "words", [["--mutants"], ["--per-patch"]], ids=" ".join
)
def test_all_is_all(
    machine: Machine, tmp_path: Path, words: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        validate(machine, tmp_path, *words)
    assert caught.value.code == 2
    assert machine.ran == []


def test_no_older_report_is_left(machine: Machine, tmp_path: Path) -> None:
    for name in ("report.json", "junit.xml"):
        (tmp_path / name).write_text("old")
    machine.refuses = {"": BuildError("ninja failed", Path("x.log"))}
    assert validate(machine, tmp_path) == 5
    assert list(tmp_path.iterdir()) == []
