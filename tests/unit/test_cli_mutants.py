# SPDX-License-Identifier: GPL-2.0-or-later
"""``validate --mutants`` with everything that builds or runs replaced."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builds import build_of, source_of
from vfio_p2p.cli import main, mutants, session
from vfio_p2p.errors import BuildError, PatchError
from vfio_p2p.oracle import RULES, Finding
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.matrix import Cell, Run
from vfio_p2p.qemu import Build, Source
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Expect, Expectation
from vfio_p2p.series import Variant, find_base, load_mutants
from vfio_p2p.timeline import Side
from vfio_p2p.verdict.assess import Assessment

BASE = "v10.0"
OURS = {x.name: x for x in load_mutants() if x.base == BASE}
ACTIVE = [x for x in OURS.values() if not x.waits_for]
WAITING = [x for x in OURS.values() if x.waits_for]


def broken(rule: str) -> Finding:
    """A finding of a rule."""
    return Finding(
        rule, "It matters.", Side.SOURCE, "so", (), "x.log", ()
    )


@dataclass
class Machine:
    """Builds and judges; what is in its tables goes wrong.

    :param refuses: Mutants that do not build.
    :param misses: Mutants that no rule sees.
    :param also: Rules that each mutant breaks besides its own.
    :param known: What scenarios show without any mutant, by name.
    """

    refuses: dict[str, Exception] = field(default_factory=dict)
    misses: set[str] = field(default_factory=set)
    also: tuple[str, ...] = ()
    known: dict[str, str] = field(default_factory=dict)
    built: list[str] = field(default_factory=list)
    ran: list[tuple[str, str]] = field(default_factory=list)

    def build_all(
        self, source: Source, variants: Sequence[Variant], shown: object
    ) -> list[Build]:
        """Stands in for the real one."""
        for variant in variants:
            self.built.append(variant.name)
            if err := self.refuses.get(variant.name.partition("+")[2]):
                raise err
        return [
            build_of(source, variant, "QEMU 10.0.99", Path("/bin/true"))
            for variant in variants
        ]

    def run_cells(self, cells: Sequence[Cell], args: object) -> list[Run]:
        """Likewise."""
        runs = []
        for cell in cells:
            variant, scenario = cell.program.what.variant, cell.scenario.name
            self.ran.append((variant, scenario))
            name = variant.partition("+")[2]
            found = Assessment(Verdict.PASS, "migrated")
            if scenario in self.known:
                rule = self.known[scenario]
                found = replace(found, known=(broken(rule),))
            if name and name not in self.misses:
                rules = (OURS[name].trips, *self.also)
                found = Assessment(
                    Verdict.FAIL, "migrated", tuple(map(broken, rules))
                )
            runs.append(Run(cell, found, None, ""))
        return runs


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """In place of compilers and VMs."""
    made = Machine()
    monkeypatch.setattr(session, "find_outer", lambda: None)
    monkeypatch.setattr(
        mutants, "choose_source",
        lambda _: (find_base(BASE), source_of("10.0.99")),
    )  # fmt: skip
    monkeypatch.setattr(mutants, "build_all", made.build_all)
    monkeypatch.setattr(mutants, "run_cells", made.run_cells)
    return made


def validate(out: Path, *names: str) -> int:
    """The command; returns its exit code."""
    chosen = [word for name in names for word in ("--mutant", name)]
    return main(["validate", "--mutants", *chosen, "--out", str(out)])


def fates(out: Path) -> dict[str, Any]:
    """From the report for programs."""
    document = json.loads((out / "report.json").read_bytes())
    return {x["name"]: x["fate"] for x in document["mutants"]}


EVERY_RULE = tuple(rule.name for rule in RULES)


def test_all_of_them(machine: Machine, tmp_path: Path) -> None:
    machine.also = EVERY_RULE
    assert validate(tmp_path) == 0
    found = fates(tmp_path)
    assert list(found) == list(OURS)
    assert {found[x.name] for x in ACTIVE} == {"killed"}
    assert {found[x.name] for x in WAITING} <= {"waits"}
    assert machine.built == [
        "patched", *(f"patched+{x.name}" for x in ACTIVE)
    ]
    scenarios = {name for x in ACTIVE for name in x.scenarios}
    assert {("patched", name) for name in scenarios} <= set(machine.ran)
    assert len(machine.ran) == len(set(machine.ran))
    assert b"<testsuite" in (tmp_path / "junit.xml").read_bytes()


def test_one_that_survives(machine: Machine, tmp_path: Path) -> None:
    machine.misses = {"one-pass"}
    assert validate(tmp_path, "one-pass", "stop-never") == 1
    assert fates(tmp_path) == {
        "one-pass": "survived", "stop-never": "killed",
    }
    assert machine.built == [
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
    machine: Machine, tmp_path: Path, err: BuildError | PatchError
) -> None:
    machine.refuses = {"one-pass": err}
    assert validate(tmp_path, "one-pass", "stop-never") == 1
    assert fates(tmp_path) == {
        "one-pass": "did not build", "stop-never": "killed",
    }
    assert ("patched+one-pass", "two-devices") not in machine.ran


def test_the_tree_itself_has_to_build(
    machine: Machine, tmp_path: Path
) -> None:
    machine.refuses = {"": BuildError("ninja failed", Path("x.log"))}
    assert validate(tmp_path, "one-pass") == 5


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
    machine: Machine, tmp_path: Path, words: list[str]
) -> None:
    old = tmp_path / "report.json"
    old.write_text("old")
    assert main(["validate", *words, "--out", str(tmp_path)]) == 2
    assert machine.ran == []


def test_base_without_mutants(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = replace(find_base(BASE), name="v7.0")
    monkeypatch.setattr(mutants, "choose_source", lambda _: (other, None))
    assert validate(tmp_path) == 2
    err = capsys.readouterr().err
    assert "v7.0 has no mutants" in err
    assert BASE in err
    assert machine.built == []


def test_no_older_report_is_left(machine: Machine, tmp_path: Path) -> None:
    for name in ("report.json", "junit.xml"):
        (tmp_path / name).write_text("old")
    machine.refuses = {"": BuildError("ninja failed", Path("x.log"))}
    assert validate(tmp_path, "one-pass") == 5
    assert list(tmp_path.iterdir()) == []


def test_a_rule_that_nothing_breaks_is_unproven(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.also = tuple(x for x in EVERY_RULE if x != "conservation")
    assert validate(tmp_path) == 3
    assert "unproven, as nothing breaks them: conservation\n" in (
        capsys.readouterr().out
    )
    document = json.loads((tmp_path / "report.json").read_bytes())
    assert document["unproven"] == ["conservation"]
    assert 'name="conservation"' in (tmp_path / "junit.xml").read_text()


def test_of_some_mutants_nothing_is_said_of_rules(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate(tmp_path, ACTIVE[0].name) == 0
    assert "unproven" not in capsys.readouterr().out


def test_scenarios_that_show_a_defect_prove_rules(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect = Expectation(breaks=("conservation",))
    shown = msgspec.structs.replace(
        load("one-device"), name="defect", expect=Expect(patched=expect)
    )
    again = msgspec.structs.replace(shown, name="it-again")
    more = {x.name: x for x in (shown, again)}
    monkeypatch.setattr(mutants, "names", lambda: [*more])
    monkeypatch.setattr(mutants, "load", lambda x: more.get(x) or load(x))
    machine.also = tuple(x for x in EVERY_RULE if x != "conservation")
    machine.known = {"defect": "conservation"}
    assert validate(tmp_path) == 0
    assert ("patched", "defect") in machine.ran
    # One is enough.
    assert ("patched", "it-again") not in machine.ran
