# SPDX-License-Identifier: GPL-2.0-or-later
"""``b4-check`` without building or running anything."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from vfio_p2p.cli import b4_check, main, session
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.model import Report, Row
from vfio_p2p.report.perpatch import SCENARIOS
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Variant, find_base
from vfio_p2p.verdict.assess import Assessment

BASE = "v10.0"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Scenario]:
    """Which scenarios the second patch, on stdin, is judged by."""
    base = find_base(BASE)
    found: list[Scenario] = []

    def judge_trees(
        base: object, source: object,
        cells: Sequence[tuple[Variant, Scenario]], args: argparse.Namespace,
    ) -> Report:  # fmt: skip
        found.extend(scenario for _, scenario in cells)
        good = Assessment(Verdict.PASS, "migrated")
        rows = [Row(x.name, y.name, 42, good, "", "") for x, y in cells]
        return Report("QEMU", BASE, "here", tuple(rows))

    patch = io.BytesIO(base.patches[1].data)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=patch))
    monkeypatch.setattr(session, "find_outer", lambda: None)
    monkeypatch.setattr(b4_check, "choose_source", lambda _: (base, None))
    monkeypatch.setattr(b4_check, "apply_patches", lambda *_: None)
    monkeypatch.setattr(b4_check, "judge_trees", judge_trees)
    return found


def test_as_it_is(asked: list[Scenario], capsys: Capture) -> None:
    assert main(["b4-check"]) == 0
    assert [x.name for x in asked] == list(SCENARIOS)
    checks = json.loads(capsys.readouterr().out)
    assert [x["status"] for x in checks] == ["pass"] * len(SCENARIOS)


@pytest.mark.parametrize(
    ("options", "suffix"),
    [(["--profile", "cx7"], "-cx7"), (["--device", "mtty"], "-mtty")],
)
def test_of_other_devices(
    asked: list[Scenario], options: list[str], suffix: str
) -> None:
    assert main(["b4-check", *options]) == 0
    assert [x.name for x in asked] == [f"{x}{suffix}" for x in SCENARIOS]
    if "--device" in options:
        assert not any(x.latency_us for y in asked for x in y.devices)


@pytest.mark.usefixtures("asked")
def test_a_profile_that_is_none(capsys: Capture) -> None:
    assert main(["b4-check", "--profile", "no such"]) == 2
    assert "no such" in capsys.readouterr().err
