# SPDX-License-Identifier: GPL-2.0-or-later
"""The command that examines the machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vfio_p2p.cli import main


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_text_and_json_agree(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert main(["doctor", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "vfio-p2p doctor"
    assert document["able"] == (code == 0)
    headings = [x for x in lines if not x.startswith(" ")]
    assert [x.split(":")[0] for x in headings] == [
        x["name"] for x in document["abilities"]
    ]
    for heading, ability in zip(
        headings, document["abilities"], strict=True
    ):
        assert (": yes - " in heading) == ability["able"]


def test_a_machine_that_lacks_everything(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["doctor"]) == 4
    out, err = capsys.readouterr()
    assert "build: no - build QEMU\n" in out
    assert (
        "  lacks: git is missing. Install the Debian package git as root: "
        "'apt-get install git'.\n"
    ) in out
    assert err == ""
