# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios from Python: a list, and files that can be edited and run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vfio_p2p.errors import ScenarioError, UsageError
from vfio_p2p.plans.scenarios import as_json, list_scenarios, show
from vfio_p2p.scenario.load import load, names, parse
from vfio_p2p.scenario.model import from_json

OWN = """\
# My own.
name = "own"
[[devices]]
profile = "cx7"
[[cases]]
name = "late"
side = "source"
faults = ["arc STOP_COPY STOP 1 late 20"]
"""


def test_all_are_listed_with_a_summary() -> None:
    listed = list_scenarios()
    assert [x.name for x in listed] == names()
    for each in listed:
        assert each.summary
        assert each.file.is_file()
    (case,) = [x for x in listed if x.name == "source-fault-prepare-fails"]
    assert (case.file.name, case.case) == (
        "source-fault.toml", "prepare-fails"
    )


@pytest.mark.parametrize("name", names())
def test_what_is_shown_is_the_scenario(name: str) -> None:
    (again,) = parse(show(name).encode(), "x.toml")
    assert again.digest == load(name).digest


def test_a_file_is_shown_as_it_is() -> None:
    text = show("two-devices")
    assert text.startswith("# SPDX")
    assert "# Assumed" in text


def test_a_case_is_written_out_without_defaults() -> None:
    text = show("source-fault-prepare-fails")
    assert 'name = "source-fault-prepare-fails"' in text
    assert "size_bytes" not in text


def test_json_has_all_defaults() -> None:
    assert json.loads(as_json("one-device"))["devices"][0]["count"] == 1
    assert from_json(as_json("one-device").encode()) == load("one-device")


def test_a_file_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    assert show(str(path)) == OWN
    (case,) = parse(show(f"{path}:late").encode(), "x.toml")
    assert case.name == "own-late"
    assert case.devices[0].latency_us == (
        load(f"{path}:late").devices[0].latency_us
    )
    path.write_text(OWN.replace("profile", "colour"))
    with pytest.raises(ScenarioError, match=r"own\.toml:4: devices.0.colour"):
        show(str(path))


@pytest.mark.parametrize("function", [show, as_json])
def test_a_wrong_name(function: type[str]) -> None:
    with pytest.raises(UsageError, match="no scenario 'two-device'") as e:
        function("two-device")
    assert "Did you mean 'two-devices'" in e.value.hint
