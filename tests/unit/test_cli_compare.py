# SPDX-License-Identifier: GPL-2.0-or-later
"""``vfio-p2p compare``: the choice of runs, and the answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bundles import MIGRATED, SEALED, make_bundle
from qemu_log import FakeQemu, devices, receive
from traffic import traffic_bundle
from vfio_p2p.cli import main
from vfio_p2p.scenario.load import load, load_profile
from vfio_p2p.scenario.model import Outcome

MS = 10**6
Capture = pytest.CaptureFixture[str]

# The run migrated, but one of its QEMUs failed for an unknown reason.
ERROR = msgspec.structs.replace(
    MIGRATED, exit_states={"source": 1, "destination": 0}
)
FAILED = msgspec.structs.replace(MIGRATED, outcome=Outcome.FAILED)


def folder(
    path: Path, seeds: Sequence[int], *, late_ns: int = 0, **usual: Any
) -> str:
    """Make one good run for each seed, with a longer blackout."""
    for seed in seeds:
        qemu = FakeQemu(devices("dst0", "dst1"))
        qemu.begin_ns += late_ns
        make_bundle(
            path / f"x-s{seed}", seed=seed, destination=receive(qemu), **usual
        )
    return str(path)


def compared(capsys: Capture, *words: str) -> tuple[int, Any]:
    """Return the exit code and the document."""
    code = main(["compare", *words, "--json"])
    found = json.loads(capsys.readouterr().out)
    return code, found | {"verdict": found["verdict"]}


def test_runs_that_break_a_rule_are_compared_and_told(
    tmp_path: Path, capsys: Capture
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    traffic_bundle(a / "x")
    traffic_bundle(b / "x", "patched+one-pass", lost=3)
    code, found = compared(capsys, str(b), str(b))
    assert (code, found["verdict"], found["b"]["runs"]) == (0, "pass", 1)
    for letter in "AB":
        for rule in ("barrier", "conservation"):
            note = f"{letter}: breaks the rule {rule} (seeds 42)"
            assert found["notes"].count(note) == 1
    _, found = compared(capsys, str(a), str(b))
    assert found["b"]["runs"] == 1
    assert not any(x.startswith("A:") for x in found["notes"])
    assert any(x.startswith("B: breaks") for x in found["notes"])
    assert main(["compare", str(a), str(b)]) == 0
    assert "note: B: breaks the rule barrier" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (ERROR, "in error: migrated; QEMU did not exit normally"),
        (FAILED, "no blackout: the migration failed"),
    ],
)
def test_a_run_that_is_left_out(
    tmp_path: Path, capsys: Capture, result: Any, why: str
) -> None:
    a = folder(tmp_path / "a", range(10))
    code, found = compared(capsys, a, a)
    assert (code, found["change"]) == (0, "identical")
    assert not any("left out" in x for x in found["notes"])
    b = folder(tmp_path / "b", range(9))
    folder(tmp_path / "b", [9], result=result)
    for sides, letter in (((a, b), "B"), ((b, a), "A")):
        code, found = compared(capsys, *sides, "--fail-above", "1%")
        assert (code, found["verdict"]) == (3, "inconclusive")
        assert found["change"] == "identical"
        assert found["seeds"] == [*range(9)]
        start = f"{letter}: x-s9 is left out, {why}"
        assert sum(x.startswith(start) for x in found["notes"]) == 1
    # A run that is left out does not hide that B is slower.
    late = folder(tmp_path / "late", range(9), late_ns=5 * MS)
    folder(tmp_path / "late", [9], result=result)
    code, found = compared(capsys, a, late, "--fail-above", "1%")
    assert (code, found["change"]) == (1, "slower")


def test_nothing_is_left(tmp_path: Path, capsys: Capture) -> None:
    a = folder(tmp_path / "a", range(3), result=ERROR)
    assert main(["compare", a, a]) == 3
    assert "there is none to compare" in capsys.readouterr().out


def test_what_is_not_known_is_told(tmp_path: Path, capsys: Capture) -> None:
    log = {"src0": None}
    a = folder(tmp_path / "a", [42, 43], logs=log)
    code, found = compared(capsys, a, a)
    assert (code, found["a"]["runs"]) == (0, 2)
    assert any(
        x.startswith("A: is inconclusive: ") and x.endswith("(seeds 42, 43)")
        for x in found["notes"]
    )


SLOWER = load("two-devices")
SLOWER = msgspec.structs.replace(
    SLOWER,
    devices=tuple(
        msgspec.structs.replace(x, latency_us={"RESUMING>STOP": 5500})
        for x in SLOWER.devices
    ),
)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"scenario": SLOWER}, SLOWER.digest[:12]),
        ({"build": "1" * 32}, "(build 111111111111)"),
        ({"version": "10.2.2"}, "kind: 10.0.99, 10.2.2"),
        ({"variant": "base"}, "kind: base, patched"),
    ],
)
def test_samples_are_of_one_kind(
    tmp_path: Path, capsys: Capture, other: dict[str, Any], said: str
) -> None:
    a = folder(tmp_path / "a", [42])
    assert main(["compare", a, folder(tmp_path / "b", [43], **other)]) == 3
    folder(tmp_path / "a", [43], **other)
    capsys.readouterr()
    assert main(["compare", a, a]) == 2
    what, hint = capsys.readouterr().err.splitlines()
    assert "bundles of more than one kind" in what
    assert said in what
    assert "Keep bundles of each kind apart" in hint


@pytest.mark.parametrize(
    "other",
    [
        {"snapshot": "4" * 64},
        {"outer_sha256": "4" * 64},
        {"image": {"vmlinuz": "4" * 64}},
        {"driver": "mtty"},
        {"arguments": ("-smp", "1", "-seed", "1", "-m", "1")},
    ],
)
def test_testbeds_are_not_mixed(
    tmp_path: Path, capsys: Capture, other: dict[str, Any]
) -> None:
    place = msgspec.structs.replace(SEALED, **other)
    a = folder(tmp_path / "a", [42])
    b = folder(tmp_path / "b", [42], late_ns=5 * MS, place=place)
    assert main(["compare", a, b]) == 2
    what, hint = capsys.readouterr().err.splitlines()
    assert SEALED.testbed[:12] in what
    assert place.testbed[:12] in what
    assert "--across-testbeds" in hint
    code, found = compared(capsys, a, b, "--across-testbeds")
    assert code == 3
    assert any("different testbeds" in x for x in found["notes"])
    assert main(["compare", a, a, "--across-testbeds"]) == 0
    assert "different testbeds" not in capsys.readouterr().out
    folder(Path(a), [43], place=place)
    assert main(["compare", a, a, "--across-testbeds"]) == 2
    assert "of more than one kind" in capsys.readouterr().err


def test_a_seed_is_no_testbed() -> None:
    one, other = (
        msgspec.structs.replace(
            SEALED, arguments=("-smp", "1", "-seed", seed, "-m", "1")
        )
        for seed in ("1", "2")
    )
    assert one.testbed == other.testbed != SEALED.testbed


@pytest.mark.parametrize(
    "words",
    [
        ["--seeds", "999"],
        ["--seed", "7"],
        ["--profile", "/nonexistent"],
        ["--device", "mtty"],
        ["--history", "/nonexistent/h.db"],
        ["--rerun"],
        ["--boot"],
        ["--jobs", "500"],
        ["--base", "nosuch"],
        ["--source", "/nonexistent"],
        ["--refresh"],
        ["--out", "/proc/x"],
        ["--seed", "7", "--refresh"],
    ],
)
def test_what_says_how_to_run_is_no_use_where_nothing_is_run(
    tmp_path: Path, capsys: Capture, words: list[str]
) -> None:
    a = folder(tmp_path / "a", [42])
    assert main(["compare", a, a, *words]) == 2
    what, hint = capsys.readouterr().err.splitlines()
    options = ", ".join(sorted(x for x in words if x.startswith("--")))
    assert sorted(what.split(": ")[1].split(", ")) == options.split(", ")
    assert "Leave them out" in hint


def test_a_profile_is_part_of_a_name(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", [42])
    words = ["compare", a, a, "--scenario", "two-devices"]
    assert main(words) == 0
    assert main([*words, "--seeds", "5"]) == 2
    scenario = load_profile("cx7").replace(load("two-devices"))
    folder(tmp_path / "a", [43], scenario=scenario)
    assert main([*words, "--profile", "cx7"]) == 0
