# SPDX-License-Identifier: GPL-2.0-or-later
"""Hints for a wrong name, and the grammar of the names of variants."""

from __future__ import annotations

import pytest
from vfio_p2p.errors import UsageError
from vfio_p2p.names import nearest, suggest
from vfio_p2p.scenario.load import names
from vfio_p2p.variant import (
    VARIANTS,
    TreeName,
    has_series,
    is_tree,
    parse_tree,
    release_of,
)

MANY = [f"number-{n}" for n in range(100)]


@pytest.mark.parametrize(
    ("wrong", "best"),
    [
        ("two-device", "two-devices"),
        ("TWO-DEVICES", "two-devices"),
        ("eight", "eight-devices"),
        ("two_devices", "two-devices"),
    ],
)
def test_the_nearest_name_comes_first(wrong: str, best: str) -> None:
    assert nearest(wrong, names())[0] == best


def test_a_hint_names_few_and_the_command_that_prints_all() -> None:
    assert suggest("bete", ["beta", "alpha"], "x list") == (
        "Did you mean 'beta'? 'x list' prints all names."
    )
    assert suggest("zzz", MANY, "x list") == "'x list' prints all names."


def test_without_a_command_few_names_are_all_printed() -> None:
    assert suggest("zzz", ["beta", "alpha"]) == "Known names: beta, alpha."
    assert suggest("number-1", MANY).startswith("Did you mean 'number-1'")
    assert "Known names" not in suggest("number-1", MANY)
    assert "number-99" in suggest("zzz", MANY)
    assert suggest("zzz", []) == "There are none."


def test_a_very_long_name_is_no_burden() -> None:
    assert nearest("q" * 10_000_000, MANY) == []
    assert nearest("", MANY) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("stock", TreeName("stock", 6)),
        ("installed", TreeName("installed", 6)),
        ("base", TreeName("base", 0)),
        ("patch-1", TreeName("patch-1", 1)),
        ("patch-6", TreeName("patched", 6)),
        ("patched", TreeName("patched", 6)),
        ("patch-5+./x+y.patch", TreeName("patch-5", 5, "./x+y.patch")),
    ],
)
def test_a_variant_is_taken_apart(text: str, name: TreeName) -> None:
    assert parse_tree(text) == name
    assert is_tree(text)
    assert parse_tree(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", "patch-0", "patch-7", "patch-01", "patch-", "patched+", "+x"),
        "installed+x",
    ],
)
def test_anything_else_is_no_variant(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_tree(text)
    assert caught.value.hint
    assert not is_tree(text)


def test_a_longer_series_has_more_variants() -> None:
    assert parse_tree("patch-6", 8) == TreeName("patch-6", 6)
    assert parse_tree("patch-8", 8) == TreeName("patched", 8)
    with pytest.raises(UsageError, match="patch-3"):
        parse_tree("patch-3", 2)


def test_the_help_names_every_variant() -> None:
    assert VARIANTS.startswith("stock, base, patch-1 to patch-6, patched,")
    assert "installed" in VARIANTS


@pytest.mark.parametrize(
    ("version", "release", "series"),
    [
        ("QEMU emulator version 10.0.2 (Debian 1:9.1+ds)", (10, 0), True),
        ("QEMU emulator version 8.2.0", (8, 2), True),
        ("QEMU emulator version 8.1.5", (8, 1), False),
        ("QEMU emulator version 11.0.50 (v11.0.0-1-gabc)", (11, 0), True),
        ("a QEMU", None, False),
    ],
)
def test_a_release_says_whether_it_has_the_series(
    version: str, release: tuple[int, int] | None, series: bool
) -> None:
    assert release_of(version) == release
    assert has_series(version) is series
