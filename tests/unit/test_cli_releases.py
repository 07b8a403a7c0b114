# SPDX-License-Identifier: GPL-2.0-or-later
"""``validate --releases``, and the table that is made of its report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from vfio_p2p.cli import main
from vfio_p2p.oracle import RULES
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.matrix import Cell
from vfio_p2p.scenario.load import names
from vfio_p2p.series import load_mutants
from vfio_p2p.verdict.assess import Assessment
from workshops import PASS, FakeWorkshop, broken


def validate(machine: FakeWorkshop, out: Path, *words: str) -> int:
    """Run the command, and return its exit code."""
    return main(["validate", "--releases", *words, "--out", str(out)], machine)


def trees(out: Path) -> list[str]:
    """Return the names of the trees in the report."""
    document = json.loads((out / "report.json").read_bytes())
    return [x["name"] for x in document["trees"]]


def test_each_release_runs_every_scenario(tmp_path: Path) -> None:
    machine = FakeWorkshop()
    assert validate(machine, tmp_path) == 0
    assert machine.built == [("10.0", "stock"), ("10.2", "stock")]
    assert len(machine.ran) == 3 * len(names())
    assert trees(tmp_path) == ["v10.0 stock", "v10.2 stock", "v11.1 stock"]


def test_a_newer_release_is_found(tmp_path: Path) -> None:
    machine = FakeWorkshop(newest="12.0")
    assert validate(machine, tmp_path) == 0
    assert trees(tmp_path)[-1] == "v12.0 stock"
    assert len(machine.ran) == 4 * len(names())


@pytest.mark.parametrize("words", [["--source", "."], ["--base", "v10.2"]])
def test_it_takes_no_source(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate(FakeWorkshop(), tmp_path, *words) == 2
    assert "Leave out --source and --base" in capsys.readouterr().err


def test_the_worst_decides_and_the_table_shows_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def judge(cell: Cell) -> Assessment:
        if cell.name == "v10.2-stock-ping-pong-s42":
            return Assessment(Verdict.FAIL, "migrated", broken("order"))
        if cell.job.scenario.name == "stop-and-cont":
            return replace(PASS, known=broken("run-state"))
        if cell.job.scenario.name == "mapped-bars":
            return Assessment(Verdict.SKIP, "skipped", notes=("no VF",))
        return PASS

    assert validate(FakeWorkshop(judge=judge), tmp_path) == 1
    capsys.readouterr()
    report = str(tmp_path / "report.json")
    assert main(["report", "--format", "markdown", report]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "| scenario | v10.0 stock | v10.2 stock | v11.1 stock |" in lines
    assert (
        "| ping-pong | pass migrated | fail migrated (order) "
        "| pass migrated |"
    ) in lines
    assert f"| stop-and-cont |{' pass migrated (run-state) |' * 3}" in lines
    assert f"| mapped-bars |{' skip |' * 3}" in lines
    made = len(names()) - 1
    assert lines[-1] == "verdict: fail"
    assert lines[-3] == (
        f"| **passed** | **{made} of {made}** | **{made - 1} of {made}** "
        f"| **{made} of {made}** |"
    )


def test_a_base_of_which_there_is_a_binary_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = FakeWorkshop()
    words = ["validate", "--base", "v11.1", "--out", str(tmp_path)]
    assert main(words, machine) == 0
    assert main([*words, "--variant", "stock"], machine) == 0
    assert machine.built == []
    assert all("(debian:11.1)" in x.job.source.version for x in machine.ran)
    capsys.readouterr()
    assert main([*words, "--variant", "patched"], machine) == 2
    assert "Debian has no source of QEMU 11.1" in capsys.readouterr().err


def test_a_source_for_that_base_is_built(tmp_path: Path) -> None:
    machine = FakeWorkshop(release="11.1")
    source = ["--base", "v11.1", "--source", str(tmp_path / "tree")]
    out = ["--out", str(tmp_path / "out")]
    assert main(["validate", *source, *out], machine) == 0
    assert machine.built == [("11.1", "stock")]


@pytest.mark.parametrize("mode", ["--releases", "--all"])
def test_a_report_of_it_has_the_same_verdict(
    tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scenario that is not for a release does not count in either."""
    verdicts = {"mapped-bars": Verdict.SKIP}

    def judge(cell: Cell) -> Assessment:
        verdict = verdicts.get(cell.job.scenario.name, Verdict.PASS)
        if cell.variant.partition("+")[2]:
            ours = {x.name: x for x in load_mutants()}
            mutant = ours[cell.variant.partition("+")[2]]
            if mutant.equivalent:
                return PASS
            rules = (mutant.trips, *(x.name for x in RULES))
            return Assessment(Verdict.FAIL, "migrated", broken(*rules))
        return Assessment(verdict, "migrated")

    def both() -> tuple[int, int]:
        code = main(
            ["validate", mode, "--out", str(tmp_path)],
            FakeWorkshop(judge=judge),
        )
        return code, main(["report", str(tmp_path / "report.json")])

    assert both() == (0, 0)
    verdicts["one-device"] = Verdict.FAIL
    assert both() == (1, 1)
    verdicts |= dict.fromkeys(names(), Verdict.SKIP)
    assert both() == (4, 4)
    assert capsys.readouterr().out
