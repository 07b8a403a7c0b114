# SPDX-License-Identifier: GPL-2.0-or-later
"""How much of the series a tree contains, and which base fits it."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_series import FACTS, STATES, make_series, make_small_tree
from vfio_p2p.errors import SourceError
from vfio_p2p.series import (
    SeriesLevel,
    applied_count,
    fitting_base,
    load_bases,
    open_folder,
    recognise,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        "vfio_p2p.resources.patches", lambda: tmp_path / "qemu-patches"
    )
    return make_series(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_small_tree(tmp_path / "qemu")


def test_levels(tmp_path: Path) -> None:
    stock = make_small_tree(tmp_path / "stock", stock=True)
    base = make_small_tree(tmp_path / "base")
    assert recognise(open_folder(stock)) is SeriesLevel.SERIES
    assert recognise(open_folder(base)) is SeriesLevel.BASE


@pytest.mark.parametrize(
    ("path", "text"),
    [(path, x) for path in FACTS for x in FACTS[path].splitlines()],
)
def test_each_fact_counts(tmp_path: Path, path: str, text: str) -> None:
    root = make_small_tree(tmp_path / "qemu", stock=True)
    whole = (root / path).read_text()
    (root / path).write_text(whole.replace(text, ""))
    assert recognise(open_folder(root)) is SeriesLevel.PARTLY


def test_facts_of_older_trees(tmp_path: Path) -> None:
    root = make_small_tree(tmp_path / "qemu", stock=True)
    (root / "include/sysemu").mkdir()
    (root / "include/system/runstate.h").rename(
        root / "include/sysemu/runstate.h"
    )
    (root / "hw/vfio/migration.c").rename(root / "hw/vfio/common.c")
    assert recognise(open_folder(root)) is SeriesLevel.SERIES


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_applied_patches_are_counted(root: Path, count: int) -> None:
    (root / "hw/a.c").write_text(STATES[count])
    tree = open_folder(root)
    assert applied_count(tree, load_bases()[0]) == count
    assert fitting_base(tree).name == "v10.0"


def test_the_version_is_not_enough(root: Path) -> None:
    changed = STATES[0].replace("\n3\n", "\nthree\n")
    (root / "hw/a.c").write_text(changed)
    with pytest.raises(SourceError) as caught:
        fitting_base(open_folder(root))
    for word in ("10.0.13", "v10.0", "0001-pre.patch", "hw/a.c: @@ -1,7"):
        assert word in caught.value.what
    assert "series verify" in caught.value.hint


def test_the_files_are_not_enough(tmp_path: Path) -> None:
    root = make_small_tree(tmp_path / "qemu", "7.2.0")
    with pytest.raises(SourceError, match=r"no base for QEMU 7\.2\.0"):
        fitting_base(open_folder(root))


def test_stock_of_an_unknown_version(tmp_path: Path) -> None:
    root = make_small_tree(tmp_path / "qemu", "9.1.0", stock=True)
    with pytest.raises(SourceError, match=r"9\.1\.0.*stock") as caught:
        fitting_base(open_folder(root))
    assert "--variant stock" in caught.value.hint


def test_a_base_without_patches_is_for_stock(tmp_path: Path) -> None:
    root = make_small_tree(tmp_path / "qemu", "10.2.2", stock=True)
    assert fitting_base(open_folder(root)).name == "v10.2"
    (root / "hw/vfio/trace-events").write_text("")
    with pytest.raises(SourceError, match="has parts of the series"):
        fitting_base(open_folder(root))
