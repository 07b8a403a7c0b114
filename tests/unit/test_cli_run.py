# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p run`` with a workshop that makes bundles of no run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.cli import main
from vfio_p2p.errors import BuildError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.matrix import Cell, CellResult
from vfio_p2p.plans.setting import Setting
from vfio_p2p.progress import Reporter
from vfio_p2p.verdict.assess import Assessment
from workshops import FakeWorkshop

Capture = pytest.CaptureFixture[str]


def files(folder: Path) -> list[str]:
    """Return the names of all entries of a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_folder(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["run", "two-devices", "--seed", "7"], workshop) == 0
    assert files(tmp_path / "out") == ["patched-two-devices-s7"]
    bundle = open_bundle(Path("out/patched-two-devices-s7"))
    printed = capsys.readouterr().out
    assert f"bundle: {bundle.path}\ndigest: {bundle.digest}\n" in printed
    # An old bundle is replaced.
    assert main(["run", "two-devices", "--seed", "7"], workshop) == 0
    assert files(tmp_path / "out") == ["patched-two-devices-s7"]


def test_zip(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "bundles" / "b.zip"
    assert main(["run", "two-devices", "--out", str(out)], workshop) == 0
    assert files(out.parent) == ["b.zip"]
    assert open_bundle(out).scenario.name == "two-devices"
    assert f"bundle: {out}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["b.zip", "b"])
def test_a_run_that_fails_leaves_nothing(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture, name: str
) -> None:
    error = Assessment(Verdict.ERROR, "not run", notes=("no boot", "look"))
    workshop.judge = lambda cell: error
    workshop.make = None
    out = tmp_path / "bundles" / name
    assert main(["run", "two-devices", "--out", str(out)], workshop) == 5
    assert files(out.parent) == []
    assert capsys.readouterr().err.endswith(
        "vfio-p2p: no boot\n  look\n"
    )


def test_nothing_else_is_replaced(
    workshop: FakeWorkshop, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.tex").touch()
    assert main(["run", "two-devices", "--out", str(out)], workshop) == 2
    assert files(out) == ["thesis.tex"]
    assert workshop.built == []


def test_a_tree_that_does_not_build(
    workshop: FakeWorkshop, tmp_path: Path
) -> None:
    workshop.refuses = {"": BuildError("ninja failed", Path("x.log"))}
    assert main(["run", "two-devices"], workshop) == 5
    assert files(tmp_path) == []


def test_a_place_that_is_not_there(
    tmp_path: Path, capsys: Capture
) -> None:
    assert main(["run", "two-devices", "--at", "moon"]) == 2
    err = capsys.readouterr().err
    assert "there is no place 'moon'" in err
    assert "sealed" in err


@pytest.mark.parametrize("name", ["mine", "mine.zip"])
def test_what_came_meanwhile_is_not_replaced(
    workshop: FakeWorkshop, tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    made = workshop.make
    assert made

    def make(cell: Cell, path: Path) -> None:
        made(cell, path)
        if out.suffix:
            out.write_text("mine")
        else:
            out.mkdir()
            (out / "thesis.tex").touch()

    workshop.make = make
    assert main(["run", "two-devices", "--out", str(out)], workshop) == 2
    if out.suffix:
        assert out.read_text() == "mine"
    else:
        assert files(out) == ["thesis.tex"]
    assert files(tmp_path) == [name]


def test_a_bundle_is_kept_whatever_became_of_the_run(
    workshop: FakeWorkshop, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "b"
    assert workshop.make
    made: Callable[[Cell, Path], object] = workshop.make

    class Differs(FakeWorkshop):
        """A place that finds that the run is not the same as before."""

        def run(
            self,
            cells: Sequence[Cell],
            setting: Setting,
            reporter: Reporter,
        ) -> list[CellResult]:
            (cell,) = cells
            path = setting.out / cell.name
            path.parent.mkdir(parents=True, exist_ok=True)
            made(cell, path)
            error = Assessment(
                Verdict.ERROR, "not run", notes=("differs", f"See {path}.")
            )
            return [CellResult.without_run(cell, error)]

    words = ["run", "two-devices", "--rerun", "--out", str(out)]
    assert main(words, Differs()) == 5
    assert capsys.readouterr().err.endswith(f"  See {out}.\n")
    assert open_bundle(out)
    assert files(tmp_path) == ["b"]
