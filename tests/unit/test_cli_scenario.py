# SPDX-License-Identifier: GPL-2.0-or-later
"""The command `vfio-p2p scenario`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vfio_p2p.cli import main
from vfio_p2p.scenario.load import load, names, parse

Capture = pytest.CaptureFixture[str]


def scenario(*arguments: str) -> int:
    return main(["scenario", *arguments])


def test_list(capsys: Capture) -> None:
    assert scenario("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [x.split()[0] for x in lines] == names()
    summary = load("one-device").summary
    assert any(x.endswith(f"  {summary}") for x in lines)


def test_list_as_json(capsys: Capture) -> None:
    assert scenario("list", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == 1
    assert [x["name"] for x in document["scenarios"]] == names()
    by_name = {x["name"]: x for x in document["scenarios"]}
    assert by_name["one-device"]["case"] is None
    assert Path(by_name["one-device"]["file"]).is_file()


def test_show(capsys: Capture) -> None:
    assert scenario("show", "one-device") == 0
    (again,) = parse(capsys.readouterr().out.encode(), "x.toml")
    assert again.digest == load("one-device").digest


def test_show_as_json(capsys: Capture) -> None:
    assert scenario("show", "one-device", "--json") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "one-device"
