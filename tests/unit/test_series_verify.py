# SPDX-License-Identifier: GPL-2.0-or-later
"""Every patch is tried, and checkpatch.pl runs on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_series import (
    STATES,
    mail,
    make_series,
    make_small_tree,
    numbers,
    snapshot,
)
from vfio_p2p.errors import MissingToolError, PatchError, SourceError
from vfio_p2p.series import load_bases, open_folder
from vfio_p2p.series.verify import PatchState, Verified, checkpatch_of, verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_series(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_small_tree(tmp_path / "qemu")


def verified(root: Path, folder: Path) -> list[Verified]:
    before = snapshot(root)
    results = verify(
        open_folder(root), load_bases(folder)[0], checkpatch_of(root)
    )
    assert snapshot(root) == before
    return results


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_applied_patches_and_those_that_apply(
    root: Path, folder: Path, count: int
) -> None:
    (root / "hw/a.c").write_text(STATES[count])
    results = verified(root, folder)
    expected = [PatchState.APPLIED] * count
    expected += [PatchState.APPLIES] * (3 - count)
    assert [x.state for x in results] == expected
    assert all(x.good for x in results)


def test_a_conflict_is_named(root: Path, folder: Path) -> None:
    (root / "hw/a.c").write_text(numbers(x14="other"))
    pre, one, two = verified(root, folder)
    assert (pre.state, one.state) == (PatchState.APPLIES, PatchState.CONFLICTS)
    assert one.conflict
    assert one.conflict.file == "hw/a.c"
    assert one.conflict.hunk == "@@ -9,7 +9,7 @@"
    # The second patch conflicts because the first is missing.
    assert two.state is PatchState.CONFLICTS
    assert [x.good for x in (pre, one, two)] == [True, False, False]


def test_a_cherry_picked_patch_is_recognised(root: Path, folder: Path) -> None:
    (root / "hw/a.c").write_text(numbers(x12="one"))
    assert [x.state for x in verified(root, folder)] == [
        PatchState.APPLIES, PatchState.APPLIED, PatchState.APPLIES,
    ]


def test_a_patch_is_tried_after_all_others(root: Path, folder: Path) -> None:
    (root / "hw/b.c").write_text(STATES[0])
    (folder / "v10.0/0001-one.patch").write_bytes(
        mail("[PATCH 1/2] x", STATES[0], STATES[1], "hw/b.c")
    )
    (folder / "v10.0/0002-two.patch").write_bytes(
        mail("[PATCH 2/2] x", STATES[1], numbers(x4="both"))
    )
    states = {x.state for x in verified(root, folder)}
    assert states == {PatchState.APPLIES}


def test_style(root: Path, folder: Path) -> None:
    (folder / "v10.0/0002-two.patch").write_bytes(
        mail("[PATCH 2/2] x", STATES[2], numbers(x4="pre", x12="bad"))
    )
    pre, one, two = verified(root, folder)
    assert (pre.good, one.good, two.good) == (True, True, False)
    assert (two.style.errors, two.style.warnings) == (1, 0)
    assert two.style.lines == ("-:7: ERROR: bad",)
    assert two.state is PatchState.APPLIES


def test_a_malformed_patch_is_an_error(root: Path, folder: Path) -> None:
    path = folder / "v10.0/0002-two.patch"
    path.write_bytes(path.read_bytes().replace(b"-9,7", b"-9,8"))
    with pytest.raises(PatchError, match=r"0002.*@@ -9,8 \+9,7 @@"):
        verified(root, folder)


def test_missing_checkpatch_is_reported(root: Path, folder: Path) -> None:
    (root / "scripts/checkpatch.pl").unlink()
    with pytest.raises(SourceError, match=r"no scripts/checkpatch\.pl"):
        verified(root, folder)


@pytest.mark.parametrize("text", ["die 'broken'", "print 'hello'", "exit 3"])
def test_failing_checkpatch_is_reported(
    root: Path, folder: Path, text: str
) -> None:
    (root / "scripts/checkpatch.pl").write_text(text)
    with pytest.raises(SourceError, match="failed on 0001-pre"):
        verified(root, folder)


def test_missing_perl_is_reported(
    root: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What confines it is there, and must not be what is said to be missing.
    for program in ("git", "unshare"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="perl"):
        verified(root, folder)
