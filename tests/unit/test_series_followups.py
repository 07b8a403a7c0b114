# SPDX-License-Identifier: GPL-2.0-or-later
"""The list of follow-ups in series.toml."""

from __future__ import annotations

from pathlib import Path

import pytest
from vfio_p2p import resources
from vfio_p2p.errors import UsageError
from vfio_p2p.scenario.load import load, names
from vfio_p2p.series import Followup, find_base, load_followups

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
scenarios = ["two-devices"]

[[followup]]
name = "mend"
base = "v10.0"
fixes = ["one-device", "four-devices"]
keeps = ["two-devices"]
"""
OURS = {x.name: x for x in load_followups()}


def test_a_followup(tmp_path: Path) -> None:
    (tmp_path / "series.toml").write_text(SERIES)
    assert load_followups(tmp_path) == (
        Followup(
            name="mend",
            base="v10.0",
            path=tmp_path / "followups/mend.patch",
            fixes=("one-device", "four-devices"),
            keeps=("two-devices",),
        ),
    )


def test_a_followup_for_real_devices(tmp_path: Path) -> None:
    real = SERIES + 'devices = "real"\n'
    (tmp_path / "series.toml").write_text(real)
    (found,) = load_followups(tmp_path)
    assert found.devices == "real"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"mend"', '"../mend"', r"followup\[0\]\.name"),
        ('"mend"\nbase = "v10.0"', '"mend"\nbase = "v9"', "'mend'.*'v9'"),
        ('["one-device", "four-devices"]', "[]", "fixes"),
        ("keeps", "keep", "keep"),
        ("keeps", 'devices = "vf"\nkeeps', r"followup\[0\]\.devices"),
        ('"mend"', '"swap"', "two patches are named 'swap'"),
    ],
)
def test_a_damaged_followup(
    tmp_path: Path, old: str, new: str, why: str
) -> None:
    (tmp_path / "series.toml").write_text(SERIES.replace(old, new))
    with pytest.raises(UsageError, match=why):
        load_followups(tmp_path)


def test_two_followups_with_one_name(tmp_path: Path) -> None:
    table = SERIES[SERIES.index("[[followup]]") :]
    (tmp_path / "series.toml").write_text(SERIES + table)
    with pytest.raises(UsageError, match="two patches are named 'mend'"):
        load_followups(tmp_path)


def test_every_own_followup_is_listed() -> None:
    files = (resources.patches() / "followups").glob("*")
    assert sorted(x.path for x in OURS.values()) == sorted(files)


@pytest.mark.parametrize("followup", OURS.values(), ids=lambda x: x.name)
def test_an_own_followup(followup: Followup) -> None:
    find_base(followup.base)
    for name in followup.fixes:
        # Otherwise, the fixed tree would be judged by the defect.
        assert followup.name in load(name).expect.followups
    for name in followup.keeps:
        assert not load(name).expect.patched.breaks


@pytest.mark.parametrize("followup", OURS.values(), ids=lambda x: x.name)
def test_the_devices_fit_the_scenarios(followup: Followup) -> None:
    """The testbed refuses scenarios with properties of real devices."""
    needed = [
        "x-no-mmap" in load(name).properties for name in followup.fixes
    ]
    assert needed == [followup.devices == "real"] * len(needed)


def test_every_expectation_belongs_to_a_followup() -> None:
    for name in names():
        for followup in load(name).expect.followups:
            assert name in (*OURS[followup].fixes, *OURS[followup].keeps)
