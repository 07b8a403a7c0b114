# SPDX-License-Identifier: GPL-2.0-or-later
"""The list of mutants in series.toml."""

from __future__ import annotations

from pathlib import Path

import pytest
from vfio_p2p import resources
from vfio_p2p.errors import UsageError
from vfio_p2p.oracle.rules import RULES
from vfio_p2p.scenario.load import load
from vfio_p2p.series import (
    Mutant,
    Patch,
    find_base,
    load_mutants,
    parse_variant,
)

SERIES = """\
format = 1
mutants = "mutants"

[[base]]
name = "v10.0"
qemu = "10.0"
folder = "v10.0"

[[mutant]]
name = "swap"
base = "v10.0"
trips = "barrier"
scenarios = ["two-devices", "four-devices"]
waits_for = "a slow device"
"""


def test_a_mutant(tmp_path: Path) -> None:
    (tmp_path / "series.toml").write_text(SERIES)
    assert load_mutants(tmp_path) == (
        Mutant(
            name="swap",
            base="v10.0",
            path=tmp_path / "mutants/swap.patch",
            trips="barrier",
            scenarios=("two-devices", "four-devices"),
            waits_for="a slow device",
        ),
    )


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"swap"', '"../swap"', r"mutant\[0\]\.name"),
        ('base = "v10.0"', 'base = "v9"', "'swap'.*'v9'"),
        ('["two-devices", "four-devices"]', "[]", "scenarios"),
        ("waits_for", "waits", "waits"),
    ],
)
def test_a_damaged_mutant(
    tmp_path: Path, old: str, new: str, why: str
) -> None:
    (tmp_path / "series.toml").write_text(SERIES.replace(old, new))
    with pytest.raises(UsageError, match=why):
        load_mutants(tmp_path)


def test_a_mutant_for_two_bases(tmp_path: Path) -> None:
    other = '[[base]]\nname = "v8.1"\nqemu = "8.1"\nfolder = "v8.1"\n'
    text = SERIES.replace("trips", 'also = ["v8.1"]\ntrips')
    (tmp_path / "series.toml").write_text(text + other)
    found = load_mutants(tmp_path)
    assert [(x.name, x.base) for x in found] == [
        ("swap", "v10.0"), ("swap", "v8.1"),
    ]  # fmt: skip
    assert [x.path for x in found] == [
        tmp_path / "mutants/swap.patch",
        tmp_path / "mutants/v8.1/swap.patch",
    ]
    (tmp_path / "series.toml").write_text(text)
    with pytest.raises(UsageError, match=r"unknown base 'v8\.1'"):
        load_mutants(tmp_path)


def test_a_mutant_that_another_rule_catches_there(tmp_path: Path) -> None:
    other = '[[base]]\nname = "v8.1"\nqemu = "8.1"\nfolder = "v8.1"\n'
    there = 'also = ["v8.1"]\ntrips_there = {"v8.1" = "main-target"}\ntrips'
    text = SERIES.replace("trips", there)
    (tmp_path / "series.toml").write_text(text + other)
    first, second = load_mutants(tmp_path)
    assert first.trips != "main-target"
    assert second.trips == "main-target"
    (tmp_path / "series.toml").write_text(
        SERIES.replace("trips", 'trips_there = {"v9" = "order"}\ntrips')
    )
    with pytest.raises(UsageError, match="unknown base 'v9'"):
        load_mutants(tmp_path)


def test_two_mutants_with_one_name(tmp_path: Path) -> None:
    table = SERIES[SERIES.index("[[mutant]]") :]
    (tmp_path / "series.toml").write_text(SERIES + table)
    with pytest.raises(UsageError, match="two patches are named 'swap'"):
        load_mutants(tmp_path)


def test_every_own_mutant_is_listed() -> None:
    files = (resources.patches() / "mutants").rglob("*.patch")
    assert sorted(x.path for x in load_mutants()) == sorted(files)


@pytest.mark.parametrize(
    "mutant", load_mutants(), ids=lambda x: f"{x.name}-{x.base}"
)
def test_an_own_mutant(mutant: Mutant) -> None:
    variant = parse_variant(find_base(mutant.base), f"patched+{mutant.name}")
    assert variant.patches[-1] == Patch.load(mutant.path)
    assert mutant.trips in {"outcome", *(rule.name for rule in RULES)}
    if not mutant.waits_for:
        for name in mutant.scenarios:
            assert load(name).name == name
