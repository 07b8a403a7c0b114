# SPDX-License-Identifier: GPL-2.0-or-later
"""`vfio-p2p report`: formats, files and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundles import good_destination, good_source, make_bundle
from reports import one as one_device
from reports import pair
from vfio_p2p.cli import main
from vfio_p2p.scenario.load import load

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("text", "Tested with vfio-p2p\n"),
        ("html", "<!DOCTYPE html>\n"),
        ("junit", "<testsuites>"),
        ("table", "10.0.99\n variant   scenario     verdict"),
        ("json", '{\n "format": 2,'),
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


def test_history_of_the_same_scenarios_and_trees(
    tmp_path: Path, capsys: Capture
) -> None:
    bundle = make_bundle(tmp_path / "b")
    file = tmp_path / "db"
    args = ["report", str(bundle), "--format", "html"]
    assert main([*args, "--history", str(file)]) == 2
    assert "no history there yet" in capsys.readouterr().err
    other = make_bundle(
        tmp_path / "other",
        scenario=load("one-device"),
        source=good_source(count=1),
        destination=good_destination(count=1),
    )
    for one in (bundle, other):
        assert main(["history", "record", str(one), "--db", str(file)]) == 0
    capsys.readouterr()
    assert main([*args, "--history", str(file)]) == 0
    page = capsys.readouterr().out
    assert "blackout: two-devices, patched, testbed</h3>" in page
    assert "one-device, patched" not in page
    metrics = ["--metric", "phase.stop-arcs", "--metric", "qmp.downtime"]
    assert main([*args, "--history", str(file), *metrics]) == 0
    page = capsys.readouterr().out
    assert "phase.stop-arcs: two-devices" in page
    assert "qmp.downtime: two-devices" in page
    assert "<h3>blackout: two-devices" not in page
    assert main([*args, "--history", str(file), "--metric", "no"]) == 2
    err = capsys.readouterr().err
    assert "no result has a metric 'no'" in err
    assert "'vfio-p2p history export --json' prints all names." in err
    args[1] = str(one_device(tmp_path / "alone", "base"))
    assert main([*args, "--history", str(file), "--metric", "no"]) == 0
    assert "no result with this metric" in capsys.readouterr().out
    assert main([*args, "--metric", "blackout"]) == 2
    err = capsys.readouterr().err
    assert "--metric has no effect without --history" in err
    args[3] = "text"
    assert main([*args, "--history", str(file)]) == 2
    assert "--format text does not show a history" in capsys.readouterr().err


def test_bad_input(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out.html"
    for what in (tmp_path, tmp_path / "none", Path(__file__)):
        assert main(["report", str(what), "--out", str(out)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 2
    assert not out.exists()
    with pytest.raises(SystemExit) as info:
        main(["report", str(tmp_path), "--format", "pdf"])
    assert info.value.code == 2
