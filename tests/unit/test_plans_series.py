# SPDX-License-Identifier: GPL-2.0-or-later
"""The series from Python: requests in, values out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_series import STATES, make_repository, make_series, make_small_tree
from vfio_p2p.errors import SourceError, UsageError
from vfio_p2p.plans.series import (
    ApplyRequest,
    ExportRequest,
    ListRequest,
    VerifiedSeries,
    VerifyRequest,
    apply_series,
    export_series,
    list_series,
    verify_series,
)
from vfio_p2p.progress import SILENT
from vfio_p2p.series import SeriesLevel
from vfio_p2p.series.verify import PatchState
from workshops import FakeWorkshop


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_series(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_small_tree(tmp_path / "qemu")


def test_list(folder: Path) -> None:
    first, second = list_series(ListRequest(folder))
    assert first.base.name == "v10.0"
    assert [x.name for x in first.mutants] == ["swap"]
    assert [x.name for x in first.followups] == ["mend"]
    assert (second.mutants, second.followups) == ((), ())


def test_apply_in_two_steps(folder: Path, root: Path) -> None:
    first = apply_series(ApplyRequest(root, upto=1, folder=folder))
    assert (first.before.count, first.before.level) == (0, SeriesLevel.BASE)
    assert [x.name for x in first.patches] == [
        "0001-pre.patch", "0001-one.patch",
    ]
    rest = apply_series(ApplyRequest(root, on_top="swap", folder=folder))
    assert rest.before.base is not None
    assert (rest.before.base.name, rest.before.count) == ("v10.0", 2)
    assert [x.name for x in rest.patches] == ["0002-two.patch", "swap.patch"]
    assert (root / "hw/a.c").read_text() == STATES[4]
    with pytest.raises(SourceError, match="more of the series"):
        apply_series(ApplyRequest(root, upto=0, folder=folder))


def test_nothing_to_apply(folder: Path, root: Path) -> None:
    apply_series(ApplyRequest(root, folder=folder))
    again = apply_series(ApplyRequest(root, folder=folder))
    assert (again.patches, again.before.count) == ((), 3)


def test_local_changes_are_kept_on_demand(folder: Path, root: Path) -> None:
    make_repository(root)
    (root / "VERSION").write_text("10.0.14\n")
    with pytest.raises(SourceError, match="local changes: VERSION"):
        apply_series(ApplyRequest(root, folder=folder))
    done = apply_series(
        ApplyRequest(root, allow_dirty=True, folder=folder)
    )
    assert done.local_changes == ("VERSION",)
    with pytest.raises(SourceError, match="local changes"):
        apply_series(
            ApplyRequest(
                root, on_top="swap", am=True, allow_dirty=True, folder=folder
            )
        )


@pytest.fixture
def debian(tmp_path: Path) -> FakeWorkshop:
    """A workshop that has the source of Debian's QEMU."""
    return FakeWorkshop(tree=make_small_tree(tmp_path / "debian"))


def test_verify(folder: Path, root: Path, debian: FakeWorkshop) -> None:
    def found() -> VerifiedSeries:
        request = VerifyRequest(root, folder=folder)
        return verify_series(request, SILENT, debian)

    assert found().good
    assert [x.state for x in found().patches] == [PatchState.APPLIES] * 3
    (root / "hw/a.c").write_text("other\n")
    assert not found().good


def test_no_program_of_the_tree_is_run_unless_asked_for(
    folder: Path, root: Path, debian: FakeWorkshop, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    (root / "scripts/checkpatch.pl").write_text(f"open F, '>', '{ran}'")
    request = VerifyRequest(root, folder=folder)
    assert verify_series(request, SILENT, debian).good
    assert debian.sought == [None]
    assert not ran.exists()
    own = replace(request, own_checkpatch=True)
    assert verify_series(own, SILENT, FakeWorkshop()).good
    assert ran.exists()


def test_verify_a_stock_tree(
    folder: Path, tmp_path: Path, debian: FakeWorkshop
) -> None:
    root = make_small_tree(tmp_path / "stock", "9.1.0", stock=True)
    request = VerifyRequest(root, folder=folder)
    found = verify_series(request, SILENT, debian)
    assert (found.patches, found.status.base) == ((), None)
    assert found.status.stock


def test_export(folder: Path, tmp_path: Path) -> None:
    paths = [
        export_series(ExportRequest("v10.0", tmp_path / name, folder)).files
        for name in ("one", "two")
    ]
    for first, second in zip(*paths, strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()
    with pytest.raises(UsageError, match="unknown base") as caught:
        export_series(ExportRequest("v10", tmp_path / "x", folder))
    assert "Known names: v10.0, v10.2." in caught.value.hint
