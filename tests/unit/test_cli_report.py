# SPDX-License-Identifier: GPL-2.0-or-later
"""`vfio-p2p report`: formats, files and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundles import make_bundle
from reports import pair

from harness.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("text", "Tested with vfio-p2p\n"),
        ("html", "<!DOCTYPE html>\n"),
        ("junit", "<testsuites>"),
        ("json", '{\n "format": 1,'),
        ("perfetto", '{"displayTimeUnit": "ns",'),
    ],
)
def test_formats(
    tmp_path: Path, capsys: Capture, name: str, begin: str
) -> None:
    base, patched = pair(tmp_path)
    args = ["report", str(base), str(patched), "--format", name]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert out.startswith(begin)
    assert err == ""
    file = tmp_path / "new" / "report"
    assert main([*args, "--out", str(file)]) == 0
    assert capsys.readouterr().out == ""
    assert file.read_text() == out


def test_text_is_the_default(tmp_path: Path, capsys: Capture) -> None:
    path = make_bundle(tmp_path / "b")
    assert main(["report", str(path)]) == 0
    assert capsys.readouterr().out.startswith("Tested with")


def test_a_report_of_a_failure_fails(tmp_path: Path, capsys: Capture) -> None:
    path = make_bundle(tmp_path / "b", source=b"")
    assert main(["report", str(path), "--format", "json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "inconclusive"


def test_bad_input(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out.html"
    for what in (tmp_path, tmp_path / "none", Path(__file__)):
        assert main(["report", str(what), "--out", str(out)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 2
    assert not out.exists()
    with pytest.raises(SystemExit) as info:
        main(["report", str(tmp_path), "--format", "pdf"])
    assert info.value.code == 2
