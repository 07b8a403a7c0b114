# SPDX-License-Identifier: GPL-2.0-or-later
"""``demo`` and ``validate --seeds`` without building or running anything."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from traffic import traffic_bundle
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.cli import demo, main, session, validate
from vfio_p2p.cli.session import Wanted
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.matrix import Cell, Run
from vfio_p2p.qemu.program import Program
from vfio_p2p.report.model import Report, Row
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Variant, find_base
from vfio_p2p.verdict.assess import Assessment, assess

BASE = "v10.0"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "find_outer", lambda: None)
    for module in (demo, validate):
        monkeypatch.setattr(
            module, "choose_source",
            lambda _: (find_base(BASE), SimpleNamespace(origin="here")),
        )  # fmt: skip
        monkeypatch.setattr(
            module, "choose_variants",
            lambda _base, _source, names: [
                SimpleNamespace(name=name) for name in names
            ],
        )  # fmt: skip


Losses = Callable[..., None]


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Losses:
    """How much each tree loses; None: its run fails for the machine."""

    def judge(lost: dict[str, int | None]) -> None:
        def row(tree: Variant, scenario: Scenario) -> Row:
            count = lost[tree.name]
            if count is None:
                found = Assessment(
                    Verdict.ERROR, "not run", notes=("no room",)
                )
                return Row(tree.name, scenario.name, 42, found, "", "")
            path = tmp_path / f"run-of-{tree.name}"
            bundle = open_bundle(traffic_bundle(path, tree.name, lost=count))
            return Row(
                tree.name, scenario.name, 42, assess(bundle), str(path),
                bundle.digest,
            )  # fmt: skip

        monkeypatch.setattr(
            demo,
            "judge_trees",
            lambda base, source, cells, args: Report(
                "QEMU", BASE, "here", tuple(row(*cell) for cell in cells)
            ),
        )

    return judge


@pytest.mark.parametrize(
    ("kept", "broken", "code"), [(0, 3, 0), (0, 0, 1), (2, 3, 1)]
)
def test_demo(
    losses: Losses, tmp_path: Path, capsys: Capture,
    kept: int, broken: int, code: int,
) -> None:  # fmt: skip
    losses({"patched": kept, "patched+one-pass": broken})
    assert main(["demo", "--out", str(tmp_path)]) == code
    printed = capsys.readouterr().out
    picture = tmp_path / "demo.svg"
    assert f"picture: {picture}" in printed
    assert f"verdict: {'fail' if code else 'pass'}" in printed
    svg = picture.read_text()
    assert "With the barrier across devices (patched)" in svg
    assert "Without it (patched+one-pass)" in svg


def test_demo_with_a_profile(
    losses: Losses, tmp_path: Path, capsys: Capture
) -> None:
    losses({"patched": 0, "patched+one-pass": 3})
    words = ["demo", "--out", str(tmp_path), "--json"]
    assert main([*words, "--profile", "cx7"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert {x["scenario"] for x in runs} == {f"{demo.SCENARIO}-cx7"}
    assert main([*words, "--profile", "no such"]) == 2
    assert "no such" in capsys.readouterr().err


@pytest.mark.parametrize("which", ["patched", "patched+one-pass"])
def test_demo_on_a_machine_that_cannot(
    losses: Losses, tmp_path: Path, capsys: Capture, which: str
) -> None:
    (tmp_path / "demo.svg").write_text("of yesterday")
    losses({"patched": 0, "patched+one-pass": 3, which: None})
    assert main(["demo", "--out", str(tmp_path)]) == 5
    assert "no room" in capsys.readouterr().out
    assert not (tmp_path / "demo.svg").exists()


@pytest.mark.parametrize(
    ("verdict", "code"), [(Verdict.PASS, 1), (Verdict.INCONCLUSIVE, 3)]
)
def test_demo_of_a_tree_that_does_not_migrate(
    losses: Losses, tmp_path: Path, capsys: Capture,
    verdict: Verdict, code: int,
) -> None:  # fmt: skip
    losses({"patched": 0, "patched+one-pass": 3})
    judged = vars(demo)["judge_trees"]

    def failed(*args: object) -> Report:
        report: Report = judged(*args)
        kept, broken = report.rows
        found = replace(
            kept.assessment, blackout_ns=None, verdict=verdict
        )
        return replace(
            report, rows=(replace(kept, assessment=found), broken)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "judge_trees", failed)
        assert main(["demo", "--out", str(tmp_path)]) == code
    assert "picture" not in capsys.readouterr().out
    assert not (tmp_path / "demo.svg").exists()


def test_demo_without_traffic(capsys: Capture) -> None:
    assert main(["demo", "--scenario", "two-devices"]) == 2
    assert "do not send to one another" in capsys.readouterr().err


def test_demo_for_programs(
    losses: Losses, tmp_path: Path, capsys: Capture
) -> None:
    losses({"patched": 0, "patched+one-pass": 3})
    assert main(["demo", "--json", "--out", str(tmp_path)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "pass"
    assert document["picture"] == str(tmp_path / "demo.svg")
    assert [run["traffic"]["lost"] for run in document["runs"]] == [0, 3]


def test_every_seed_is_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, str, int]] = []

    def run_trees(
        source: object, cells: Sequence[Wanted], args: argparse.Namespace
    ) -> tuple[list[Run], str]:
        good = Assessment(Verdict.PASS, "migrated")
        runs = []
        for x in cells:
            asked.append((x.variant.name, x.scenario.name, x.seed))
            program = Program.at(
                Path("/bin/true"), variant=x.variant.name, version="10.0"
            )
            cell = Cell(program, x.scenario, x.seed)
            runs.append(Run(cell, good, None, ""))
        return runs, "QEMU"

    monkeypatch.setattr(session, "run_trees", run_trees)
    command = ["validate", "--out", str(tmp_path), "--seed", "7"]
    for name in ("one-device", "two-devices"):
        command += ["--scenario", name]
    assert main([*command, "--variant", "patched", "--seeds", "3"]) == 0
    assert asked == [
        ("patched", scenario, seed)
        for scenario in ("one-device", "two-devices")
        for seed in (7, 8, 9)
    ]
    document = json.loads((tmp_path / "report.json").read_bytes())
    assert [run["seed"] for run in document["runs"]] == [7, 8, 9] * 2
    asked.clear()
    assert main([*command, "--variant", "patched"]) == 0
    assert [seed for _, _, seed in asked] == [7, 7]


@pytest.mark.parametrize(
    "what", ["--mutants", "--per-patch", "--followups", "--all"]
)
def test_what_takes_one_seed_says_so(
    capsys: Capture, tmp_path: Path, what: str
) -> None:
    command = ["validate", what, "--seeds", "2", "--out", str(tmp_path)]
    assert main(command) == 2
    assert f"{what} judges with one seed" in capsys.readouterr().err
