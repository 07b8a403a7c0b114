# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures of docs/claims.md, and the plots that are drawn of them."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from scripts import ROOT, load_tool
from vfio_p2p.scenario.device import LoadIn
from vfio_p2p.scenario.load import load_profile, parse

_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    return load_tool("claims")


def test_plots_are_those_of_the_data(
    claims: ModuleType, tmp_path: Path
) -> None:
    claims.draw(tmp_path)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == ["claims-p2p.svg", "claims-stop.svg"]
    for name in drawn:
        again = "tools/claims.py plot"
        assert (tmp_path / name).read_bytes() == (
            ROOT / "docs" / name
        ).read_bytes(), f"they are not what '{again}' draws"


@pytest.mark.parametrize(
    ("path", "form"), [("LETTER", "letter"), ("PAGE", "page")]
)
def test_texts_have_the_figures_of_the_data(
    claims: ModuleType, path: str, form: str
) -> None:
    text = getattr(claims, path).read_text()
    assert getattr(claims, form)(text, claims.read()) == text, (
        "they are not what 'tools/claims.py write' writes"
    )


def test_data_is_what_is_wanted(claims: ModuleType) -> None:
    runs = claims.read()
    wanted = list(claims.wanted())
    assert len(set(wanted)) == len(wanted)
    assert sorted(
        replace(x, blackout_ns=0, digest="") for x in runs
    ) == sorted(wanted)
    assert all(x.blackout_ns > 0 and len(x.digest) == 64 for x in runs)


def test_data_is_written_as_it_was_read(
    claims: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = claims.read()
    before = claims.DATA.read_bytes()
    monkeypatch.setattr(claims, "DATA", tmp_path / "claims.csv")
    assert claims.read() == []
    claims.write(runs[::-1])
    assert (tmp_path / "claims.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("tree", "blackout", "code", "kept"),
    [
        ("patched", 7, 0, True),
        ("patched", 7, 1, False),
        ("patched", None, 0, False),
        ("patched+stop-in-complete-precopy", 7, 1, True),
        ("patched+stop-in-complete-precopy", None, 1, False),
        ("patched+stop-in-complete-precopy", 7, 3, False),
    ],
)
def test_what_is_measured(
    claims: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tree: str,
    blackout: int | None,
    code: int,
    kept: bool,
) -> None:
    before = claims.Run("stop", "write", 1, 0, "base", 42, 5, "a")
    run = claims.Run("stop", "write", 1, 0, tree)
    monkeypatch.setattr(claims, "DATA", tmp_path / "claims.csv")
    base = replace(before, blackout_ns=0, digest="")
    monkeypatch.setattr(claims, "wanted", lambda: iter([base, run]))
    claims.write([before])
    found = {
        "verdict": "fail", "summary": "migrated", "digest": "d",
        "blackout_ns": blackout,
    }
    said = json.dumps({"runs": [found]})
    command = [sys.executable, "-c", f"print({said!r}); exit({code})"]
    if kept:
        claims.measure(command, tmp_path)
    else:
        with pytest.raises(SystemExit) as caught:
            claims.measure(command, tmp_path)
        assert caught.value.code
    made = [replace(run, blackout_ns=7, digest="d")] if kept else []
    assert claims.read() == [before, *made]
    assert [path.name for path in tmp_path.iterdir()] == ["claims.csv"]


def test_data_outlives_a_write_that_fails(
    claims: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = claims.Run("stop", "write", 1, 0, "base", 42, 5, "a")
    monkeypatch.setattr(claims, "DATA", tmp_path / "claims.csv")
    claims.write([run])
    with pytest.raises(TypeError):
        claims.write([run, None])
    assert claims.read() == [run]


def test_scenarios(claims: ModuleType) -> None:
    cx7 = load_profile("cx7").latency_us
    for run in claims.wanted():
        (made,) = parse(run.scenario.encode(), "x.toml")
        (device,) = made.devices
        own = {
            arc: us
            for arc, us in device.latency_us.items()
            if cx7.get(arc) != us
        }
        arcs = claims.P2P_ARCS if run.claim == "p2p" else ["STOP_COPY>STOP"]
        assert device.count == run.devices
        late = ["RESUMING>STOP"] if run.loads == "late" else []
        assert set(own) <= {*arcs, *late}
        assert (device.load_in is LoadIn.WRITE) == (run.loads == "write")
        assert bool(device.write_ns_per_kib) == (run.loads == "write")
        assert {device.latency_us[x] for x in arcs} == {run.latency_us}


def test_lines(claims: ModuleType) -> None:
    def run(claim: str, us: int, tree: str, ms: int, count: int = 1) -> object:
        return claims.Run(
            claim, "write", count, us, tree, 42, ms * 10**6, ""
        )

    runs = [
        run("stop", 0, "base", 100),
        run("stop", 0, "patch-1", 99),
        run("stop", 5000, "base", 106),
        run("stop", 5000, "patch-1", 99),
        run("stop", 9000, "base", 110),     # without its other half
        run("p2p", 0, "patched", 50, 4),
        run("p2p", 5000, "patched", 62, 4),
    ]
    assert claims.stop_lines(runs) == [
        claims.Line(
            "1 device, loads in write()", ((0.0, 1.0), (5.0, 7.0))
        )
    ]
    assert claims.p2p_lines(runs) == [
        claims.Line("4 devices, patched", ((0.0, 0.0), (5.0, 12.0)))
    ]


@pytest.mark.parametrize(
    ("largest", "last", "count"),
    [(20, 20, 5), (80, 80, 5), (77.1, 80, 5), (239.4, 250, 6), (1, 1, 2)],
)
def test_ticks(
    claims: ModuleType, largest: float, last: float, count: int
) -> None:
    found = claims.ticks(largest)
    assert found[0] == 0
    assert found[-1] == last
    assert len(found) == count


def test_plot(claims: ModuleType) -> None:
    lines = [
        claims.Line("a < b", ((0.0, 0.0), (10.0, 5.0))),
        claims.Line("c", ((0.0, 0.0), (10.0, 10.0))),
    ]
    text = claims.plot("T", "across", "up", lines)
    assert text == claims.plot("T", "across", "up", lines)
    root = ET.fromstring(text)
    shown = [x.text for x in root.iter(f"{_SVG}text")]
    assert {"T", "across", "up", "a < b", "c"} <= set(shown)
    dots = [
        (float(x.attrib["cx"]), float(x.attrib["cy"]))
        for x in root.iter(f"{_SVG}circle")
    ]
    left, right = claims.LEFT, claims.WIDTH - claims.RIGHT
    bottom = claims.HEIGHT - claims.BOTTOM
    middle = (claims.TOP + bottom) / 2
    assert dots == [
        (left, bottom), (right, middle), (left, bottom),
        (right, claims.TOP),
    ]
