# SPDX-License-Identifier: GPL-2.0-or-later
"""``demo`` and ``validate --seeds`` without building or running anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest
from traffic import traffic_bundle
from vfio_p2p.cli import main
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.demo import SCENARIO
from vfio_p2p.plans.matrix import Cell, CellResult
from vfio_p2p.plans.setting import Setting
from vfio_p2p.progress import Reporter
from vfio_p2p.verdict.assess import Assessment
from workshops import FakeWorkshop

Capture = pytest.CaptureFixture[str]


@dataclass
class Machine(FakeWorkshop):
    """A workshop that makes runs in which transactions are lost.

    :param lost: The number that each tree loses; None if its run cannot be
        made.
    :param verdict: The verdict on the tree with the barrier, without a
        blackout; None leaves the run as it is.
    """

    lost: dict[str, int | None] = field(
        default_factory=lambda: {"patched": 0, "patched+one-pass": 3}
    )
    verdict: Verdict | None = None

    def __post_init__(self) -> None:
        self.make = self._make
        self.judge = lambda cell: Assessment(
            Verdict.ERROR, "not run", notes=("no room",)
        )

    def _make(self, cell: Cell, path: Path) -> None:
        count = self.lost[cell.variant]
        if count is not None:
            traffic_bundle(path, cell.variant, lost=count)

    def run(
        self, cells: Sequence[Cell], setting: Setting, reporter: Reporter
    ) -> list[CellResult]:
        """Make the runs, and spoil the first if `verdict` says so."""
        kept, *others = super().run(cells, setting, reporter)
        if self.verdict:
            found = replace(
                kept.assessment, blackout_ns=None, verdict=self.verdict
            )
            run = msgspec.structs.replace(
                kept.run, blackout_ns=None, verdict=self.verdict
            )
            kept = replace(kept, assessment=found, run=run)
        return [kept, *others]


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.mark.parametrize(
    ("kept", "broken", "code"), [(0, 3, 0), (0, 0, 1), (2, 3, 1)]
)
def test_demo(
    machine: Machine, tmp_path: Path, capsys: Capture,
    kept: int, broken: int, code: int,
) -> None:  # fmt: skip
    machine.lost = {"patched": kept, "patched+one-pass": broken}
    assert main(["demo", "--out", str(tmp_path)], machine) == code
    printed = capsys.readouterr().out
    picture = tmp_path / "demo.svg"
    assert f"picture: {picture}" in printed
    assert f"verdict: {'fail' if code else 'pass'}" in printed
    svg = picture.read_text()
    assert "With the barrier across devices (patched)" in svg
    assert "Without it (patched+one-pass)" in svg


def test_demo_with_a_profile(
    machine: Machine, tmp_path: Path, capsys: Capture
) -> None:
    words = ["demo", "--out", str(tmp_path), "--json"]
    assert main([*words, "--profile", "cx7"], machine) == 0
    assert {x for _, x in machine.pairs} == {f"{SCENARIO}-cx7"}
    assert main([*words, "--profile", "no such"], machine) == 2
    assert "no such" in capsys.readouterr().err


@pytest.mark.parametrize("which", ["patched", "patched+one-pass"])
def test_demo_on_a_machine_that_cannot(
    machine: Machine, tmp_path: Path, capsys: Capture, which: str
) -> None:
    (tmp_path / "demo.svg").write_text("of yesterday")
    machine.lost[which] = None
    assert main(["demo", "--out", str(tmp_path)], machine) == 5
    assert "no room" in capsys.readouterr().out
    assert not (tmp_path / "demo.svg").exists()


@pytest.mark.parametrize(
    ("verdict", "code"), [(Verdict.PASS, 1), (Verdict.INCONCLUSIVE, 3)]
)
def test_demo_of_a_tree_that_does_not_migrate(
    machine: Machine, tmp_path: Path, capsys: Capture,
    verdict: Verdict, code: int,
) -> None:  # fmt: skip
    machine.verdict = verdict
    assert main(["demo", "--out", str(tmp_path)], machine) == code
    assert "picture" not in capsys.readouterr().out
    assert not (tmp_path / "demo.svg").exists()


def test_demo_without_traffic(machine: Machine, capsys: Capture) -> None:
    assert main(["demo", "--scenario", "two-devices"], machine) == 2
    assert "do not send to one another" in capsys.readouterr().err


def test_demo_for_programs(
    machine: Machine, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["demo", "--json", "--out", str(tmp_path)], machine) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "pass"
    assert document["picture"] == str(tmp_path / "demo.svg")
    assert [run["traffic"]["lost"] for run in document["runs"]] == [0, 3]


def test_every_seed_is_run(tmp_path: Path) -> None:
    workshop = FakeWorkshop()
    command = ["validate", "--out", str(tmp_path), "--seed", "7"]
    for name in ("one-device", "two-devices"):
        command += ["--scenario", name]
    command += ["--variant", "patched"]
    assert main([*command, "--seeds", "3"], workshop) == 0
    assert [(*pair, cell.job.seed) for pair, cell in zip(
        workshop.pairs, workshop.ran, strict=True
    )] == [
        ("patched", scenario, seed)
        for scenario in ("one-device", "two-devices")
        for seed in (7, 8, 9)
    ]  # fmt: skip
    document = json.loads((tmp_path / "report.json").read_bytes())
    assert [run["seed"] for run in document["runs"]] == [7, 8, 9] * 2
    workshop.ran.clear()
    assert main(command, workshop) == 0
    assert [cell.job.seed for cell in workshop.ran] == [7, 7]


@pytest.mark.parametrize(
    "what", ["--mutants", "--per-patch", "--followups", "--all"]
)
def test_what_takes_one_seed_says_so(
    capsys: Capture, tmp_path: Path, what: str
) -> None:
    command = ["validate", what, "--seeds", "2", "--out", str(tmp_path)]
    assert main(command, FakeWorkshop()) == 2
    assert f"{what} judges with one seed" in capsys.readouterr().err
