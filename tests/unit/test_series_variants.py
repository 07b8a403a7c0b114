# SPDX-License-Identifier: GPL-2.0-or-later
"""Bases and variants are found by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from vfio_p2p.errors import PatchError, SourceError, UsageError
from vfio_p2p.series import (
    Base,
    base_for,
    default_base,
    find_base,
    load_bases,
    parse_variant,
)

SERIES = """\
format = 1
mutants = "mutants"

[[base]]
name = "v10.0"
qemu = "10.0"
folder = "v10.0"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "series.toml").write_text(SERIES)
    for name in (
        "v10.0/pre/0001-p.patch",
        "v10.0/pre/0002-q.patch",
        "v10.0/0002-b.patch",
        "v10.0/0001-a.patch",
        "v10.0/notes.patch",
        "mutants/swap.patch",
        "followups/mend.patch",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.fixture
def base(folder: Path) -> Base:
    return load_bases(folder)[0]


@pytest.mark.parametrize(
    ("text", "name", "patches"),
    [
        ("stock", "stock", ""),
        ("base", "base", "pq"),
        ("patch-1", "patch-1", "pqa"),
        ("patch-2", "patched", "pqab"),
        ("patched", "patched", "pqab"),
        ("patched+swap", "patched+swap", "pqab!"),
        ("patch-2+swap", "patched+swap", "pqab!"),
        ("base+swap", "base+swap", "pq!"),
        ("patched+mend", "patched+mend", "pqab+"),
    ],
)
def test_variants(base: Base, text: str, name: str, patches: str) -> None:
    variant = parse_variant(base, text)
    assert variant.name == name
    letters = {
        "0001-p.patch": "p",
        "0002-q.patch": "q",
        "0001-a.patch": "a",
        "0002-b.patch": "b",
        "swap.patch": "!",
        "mend.patch": "+",
    }
    assert "".join(letters[x.name] for x in variant.patches) == patches


def test_a_mutant_may_be_any_file(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "own.diff"
    path.write_text("own")
    variant = parse_variant(base, f"patched+{path}")
    assert variant.name == "patched+own"
    assert variant.patches[-1].data == b"own"


@pytest.mark.parametrize(
    "text", ["", "patch-0", "patch-3", "patch-x", "Base", "+swap"]
)
def test_unknown_variants(base: Base, text: str) -> None:
    with pytest.raises(UsageError, match="unknown variant") as caught:
        parse_variant(base, text)
    assert caught.value.hint.endswith(
        "Known names: stock, base, patch-1, patch-2, patched, installed."
    )


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("v10.0/0004-d.patch", "", "0004.*: patch 0003 is missing before"),
        ("v10.0/0002-c.patch", "", "0002-c.*: .* have the number 0003"),
        ("v10.0/0000-c.patch", "", "0000.*: .* have the number 0001"),
        ("v10.0/pre/0004-q.patch", "", "0004.*: patch 0003 is missing"),
        ("v10.0/0002-b.patch", "Subject: [PATCH 1/2] x", r"0002.*\[PATCH 1/2"),
        ("v10.0/0002-b.patch", "Subject: [PATCH 2/3] x", "2 of 2"),
    ],
)
def test_patches_are_numbered_without_a_gap(
    folder: Path, base: Base, name: str, text: str, why: str
) -> None:
    first = folder / "v10.0/0001-a.patch"
    first.write_text("Subject: [PATCH 1/2] x")
    (folder / name).write_text(text)
    with pytest.raises(PatchError, match=why):
        assert base.sequence


@pytest.mark.parametrize("name", ["no", "../v10.0/notes", "no/such"])
def test_unknown_mutants(base: Base, name: str) -> None:
    with pytest.raises(UsageError, match="unknown mutant") as caught:
        parse_variant(base, f"patched+{name}")
    assert "'vfio-p2p series list' prints all names" in caught.value.hint


def test_the_nearest_mutant_is_suggested(base: Base) -> None:
    with pytest.raises(UsageError) as caught:
        parse_variant(base, "patched+swop")
    assert caught.value.hint.startswith("Did you mean 'swap'?")


@pytest.mark.parametrize("text", ["base", "patched", "patch-1+swap"])
def test_a_base_without_a_series_has_one_variant(
    base: Base, text: str
) -> None:
    stock = replace(base, folder=None)
    assert parse_variant(stock, "stock").patches == ()
    with pytest.raises(UsageError, match="has no variant") as caught:
        parse_variant(stock, text)
    assert "'stock'" in caught.value.hint


def test_the_base_for_a_version(base: Base) -> None:
    assert base.covers("10.0.13")
    assert not base.covers("10.1.0")
    assert not base.covers("10.00.1")


def test_own_bases() -> None:
    assert find_base("v10.0") == base_for("10.0.13")


def test_an_unknown_base() -> None:
    with pytest.raises(UsageError, match="'v7'") as caught:
        find_base("v7")
    assert "v10.0" in caught.value.hint


def test_a_version_without_a_base() -> None:
    with pytest.raises(SourceError, match=r"7\.2\.0") as caught:
        base_for("7.2.0")
    assert "v10.0" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SERIES.replace("format = 1", "format = 2"), "format 2"),
        (SERIES + "colour = 1\n", "colour"),
        ("format =", "series.toml"),
    ],
)
def test_a_damaged_list_of_bases(folder: Path, text: str, why: str) -> None:
    (folder / "series.toml").write_text(text)
    with pytest.raises(UsageError, match=why):
        load_bases(folder)


def test_a_base_that_is_judged_as_it_is(folder: Path) -> None:
    path = folder / "series.toml"
    newer = SERIES[SERIES.index("[[base]]") :].replace("10.0", "10.2", 2)
    path.write_text(f"{SERIES}\n{newer}stock = true\n")
    older, base = load_bases(folder)
    assert base.name == "v10.2"
    assert (older.as_it_is, base.as_it_is) == (False, True)
    assert default_base(folder) == older
    # The series is there for those who ask for it.
    first = (*older.pre, older.patches[0])
    assert parse_variant(base, "patch-1").patches == first
    path.write_text(f"{SERIES}\n{newer}")
    assert default_base(folder).name == "v10.2"


def test_a_base_without_a_series_is_judged_as_it_is(folder: Path) -> None:
    text = SERIES.replace('folder = "v10.0"\n', "")
    (folder / "series.toml").write_text(text)
    assert load_bases(folder)[0].as_it_is


def test_the_series_is_the_same_on_each_base() -> None:
    """The tests of other bases' patches say something of each."""
    series = [x for x in load_bases() if x.patches]
    assert [x.name for x in series] == ["v8.1", "v10.0", "v10.2"]
    assert [x.as_it_is for x in series] == [False, False, True]
    titles = {tuple(patch.subject for patch in x.patches) for x in series}
    assert len(titles) == 1
    removed = {len(x.pre) for x in series if x.pre}
    assert removed == {6}


def test_the_series_is_whole() -> None:
    base = default_base()
    assert len(base.patches) == 6
    assert base.pre
