# SPDX-License-Identifier: GPL-2.0-or-later
"""What is expected of a scenario from a release of QEMU on."""

from __future__ import annotations

import msgspec
import pytest
from vfio_p2p.scenario.expect import Expect, Expectation
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Outcome, from_json

OLD = Expectation()
NEW = Expectation(breaks=("barrier",))
NEWER = Expectation(outcome=Outcome.CANCELLED)
EXPECT = Expect(patched=OLD, since={"11.1": NEW, "12.0": NEWER})


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (None, OLD),
        ((8, 2), OLD),
        ((11, 0), OLD),
        ((11, 1), NEW),
        ((11, 10), NEW),
        ((12, 0), NEWER),
        ((13, 5), NEWER),
    ],
)
def test_the_last_release_that_was_reached(
    version: tuple[int, int] | None, expected: Expectation
) -> None:
    assert EXPECT.upstream(version) is expected


def test_all_of_them_are_checked() -> None:
    assert EXPECT.each[-2:] == (NEW, NEWER)
    text = load("cancelled-after-stop").to_json().replace(b'"11.1"', b'"11"')
    with pytest.raises(msgspec.ValidationError):
        from_json(text)


def test_what_11_1_does_otherwise() -> None:
    scenario = load("cancelled-after-stop")
    assert scenario.expect.upstream((11, 1)).breaks == ("barrier",)
    assert not scenario.expect.upstream((10, 2)).breaks
    assert from_json(scenario.to_json()) == scenario


def test_a_scenario_without_it_says_nothing_of_it() -> None:
    assert b'"since": {}' not in load("one-device").to_json()
    assert b'"since": {' in load("started-in-precopy").to_json()
