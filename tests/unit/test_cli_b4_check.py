# SPDX-License-Identifier: GPL-2.0-or-later
"""``b4-check`` with a workshop that builds and runs nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from vfio_p2p.cli import main
from vfio_p2p.errors import BuildError, PatchError
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.judging.patches import SCENARIOS
from vfio_p2p.series import find_base
from vfio_p2p.verdict.assess import Assessment
from workshops import FakeWorkshop, broken

BASE = "v10.0"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def workshop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> FakeWorkshop:
    """The second patch of the series is on stdin."""
    patch = io.BytesIO(find_base(BASE).patches[1].data)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=patch))
    monkeypatch.chdir(tmp_path)
    return FakeWorkshop()


def test_as_it_is(workshop: FakeWorkshop, capsys: Capture) -> None:
    assert main(["b4-check"], workshop) == 0
    assert workshop.pairs == [("patch-2", name) for name in SCENARIOS]
    checks = json.loads(capsys.readouterr().out)
    assert [x["status"] for x in checks] == ["pass"] * len(SCENARIOS)
    assert {x["tool"] for x in checks} == {"vfio-p2p"}


@pytest.mark.parametrize(
    ("verdict", "status", "code"),
    [
        (Verdict.FAIL, "fail", 1),
        (Verdict.INCONCLUSIVE, "warn", 0),
        (Verdict.ERROR, "warn", 0),
    ],
)
def test_each_verdict(
    workshop: FakeWorkshop, capsys: Capture,
    verdict: Verdict, status: str, code: int,
) -> None:  # fmt: skip
    found = Assessment(verdict, "migrated", broken("order"), notes=("why",))
    workshop.judge = lambda cell: found
    assert main(["b4-check"], workshop) == code
    checks = json.loads(capsys.readouterr().out)
    assert {x["status"] for x in checks} == {status}
    assert "order: so\nwhy" in checks[0]["details"]


@pytest.mark.parametrize(
    ("options", "suffix"),
    [(["--profile", "cx7"], "-cx7"), (["--device", "mtty"], "-mtty")],
)
def test_of_other_devices(
    workshop: FakeWorkshop, options: list[str], suffix: str
) -> None:
    assert main(["b4-check", *options], workshop) == 0
    scenarios = [cell.job.scenario for cell in workshop.ran]
    assert [x.name for x in scenarios] == [f"{x}{suffix}" for x in SCENARIOS]
    if "--device" in options:
        assert not any(x.latency_us for y in scenarios for x in y.devices)


def test_a_profile_that_is_none(
    workshop: FakeWorkshop, capsys: Capture
) -> None:
    assert main(["b4-check", "--profile", "no such"], workshop) == 2
    assert "no such" in capsys.readouterr().err


def test_a_patch_that_does_not_build(
    workshop: FakeWorkshop, capsys: Capture
) -> None:
    workshop.refuses = {"": BuildError("ninja failed", Path("x"), "error: a")}
    assert main(["b4-check"], workshop) == 1
    (check,) = json.loads(capsys.readouterr().out)
    assert (check["status"], check["details"]) == ("fail", "error: a")


def test_a_patch_that_does_not_apply_to_ours(
    workshop: FakeWorkshop, capsys: Capture
) -> None:
    # The patches before it are ours: this is an error and no verdict.
    workshop.unpatchable = PatchError("x.patch", "a.c", None, "no match")
    assert main(["b4-check"], workshop) == 2
    assert capsys.readouterr().out == ""


def test_a_patch_of_no_series(
    workshop: FakeWorkshop, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = b"Subject: [PATCH] x: y\n\n---\n a | 1 +\n\n--- a/a\n+++ b/a\n"
    monkeypatch.setattr(
        "sys.stdin", SimpleNamespace(buffer=io.BytesIO(patch))
    )
    assert main(["b4-check"], workshop) == 0
    (check,) = json.loads(capsys.readouterr().out)
    assert check["status"] == "warn"
    assert workshop.built == []
