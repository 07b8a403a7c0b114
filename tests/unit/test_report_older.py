# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports of format 1 are read, and rendered in every format.

The files in data/be555e3 were written by that commit, and then shortened.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vfio_p2p.errors import BundleError
from vfio_p2p.oracle import RULES
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.collect import collect
from vfio_p2p.report.document import Document, from_json, to_json
from vfio_p2p.report.formats import REPORTS, render
from vfio_p2p.report.sections import Fate

FOLDER = Path(__file__).parent / "data" / "be555e3"
FILES = sorted(FOLDER.glob("*.json"))


def read(name: str) -> Document:
    return collect([FOLDER / f"{name}.json"])


def raw(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def test_all_kinds_are_there() -> None:
    assert {raw(path.stem)["kind"] for path in FILES} == {
        "vfio-p2p report", "vfio-p2p full report", "vfio-p2p mutants",
        "vfio-p2p follow-ups",
    }  # fmt: skip


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_format(path: Path, name: str) -> None:
    document = collect([path])
    text = render(name, document)
    assert text.endswith("\n")
    if name in ("table", "text", "html"):
        assert str(document.verdict) in text
    if name == "perfetto":
        # The format shows only runs.
        return
    if name != "table" or not document.trees:
        for trial in document.mutants:
            assert trial.name in text
    for one in document.followups:
        assert one.followup in text
    for patch in document.patches[1:]:
        assert patch.subject[:20] in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_read_is_written_as_format_2(path: Path) -> None:
    document = collect([path])
    again = to_json(document).encode()
    assert json.loads(again)["format"] == 2
    assert from_json(again, "x") == document
    assert document.verdict == raw(path.stem)["verdict"]


def test_runs() -> None:
    document = read("validate")
    assert document.qemu == "QEMU emulator version 10.0.13"
    assert [(x.tree, x.scenario) for x in document.runs] == [
        (x["variant"], x["scenario"]) for x in raw("validate")["runs"]
    ]
    assert document.unproven == tuple(raw("validate")["unproven"])


def test_runs_of_several_seeds() -> None:
    lines = render("table", read("seeds")).splitlines()
    assert "pass 3/3" in lines[3]
    assert lines[-1] == "verdict: pass (6 passed, 0 failed)"


def test_a_run_with_all_that_its_bundle_had() -> None:
    (run,) = read("report").runs
    assert run.inputs is not None
    assert run.qemu == "QEMU emulator version 10.0.13"
    assert run.lanes
    assert sum(x.duration_ns for x in run.phases) == run.blackout_ns
    # That format did not tell which rules were proven.
    assert "barrier" in read("report").unproven


def test_everything() -> None:
    document = read("all")
    old = raw("all")
    assert [x.name for x in document.trees] == list(old["trees"])
    for tree in document.trees:
        inner = old["trees"][tree.name]
        assert tree.qemu == inner["qemu"]
        assert [x.digest for x in document.runs if x.tree == tree.name] == [
            x["digest"] for x in inner["runs"]
        ]
    assert [x.name for x in document.mutants] == [
        x["name"] for x in old["mutants"]["mutants"]
    ]
    assert {x.fate for x in document.mutants} == {Fate.KILLED}
    assert document.unproven == ()
    lines = render("table", document).splitlines()
    assert lines[-2] == f"rules: {len(RULES)}, each broken by something"


def test_everything_without_mutants() -> None:
    old = raw("all") | {"mutants": None, "verdict": "inconclusive"}
    document = from_json(json.dumps(old).encode(), "x")
    assert document.mutants == ()
    assert "rules: not proven" in render("table", document)


def test_mutants() -> None:
    document = read("mutants")
    assert document.control == raw("mutants")["control"]
    assert set(document.control.values()) == {Verdict.PASS}
    assert [x.fate for x in document.mutants] == [
        x["fate"] for x in raw("mutants")["mutants"]
    ]


def test_followups() -> None:
    document = read("followups")
    assert [
        (x.followup, x.scenario, x.fixes, x.verdict, x.detail)
        for x in document.followups
    ] == [
        (x["followup"], x["scenario"], x["fixes"], x["verdict"], x["detail"])
        for x in raw("followups")["trials"]
    ]
    assert {(x.fixes, x.without, x.mended) for x in document.followups} == {
        (True, "the defect", "pass"), (False, "no defect", "pass"),
    }  # fmt: skip


def test_patches() -> None:
    document = read("per-patch")
    assert [
        (x.patch, x.subject, x.verdict, x.columns) for x in document.patches
    ] == [
        (x["patch"], x["subject"], x["verdict"], x["columns"])
        for x in raw("per-patch")["patches"]
    ]


def _changed(name: str, **parts: Any) -> bytes:
    return json.dumps({**raw(name), **parts}).encode()


def test_a_report_is_not_better_than_what_it_contains() -> None:
    runs = raw("validate")["runs"]
    for verdict in ("fail", "error", "inconclusive"):
        worse = [{**runs[0], "verdict": verdict}, *runs[1:]]
        found = from_json(_changed("validate", runs=worse), "x")
        assert found.verdict == verdict


def test_a_run_that_breaks_a_rule_does_not_pass() -> None:
    runs = raw("validate")["runs"]
    found = {
        "rule": "barrier", "reason": "", "side": "source", "message": "x",
    }  # fmt: skip
    worse = [{**runs[0], "findings": [found]}, *runs[1:]]
    assert runs[0]["verdict"] == "pass"
    document = from_json(_changed("validate", runs=worse), "x")
    assert document.verdict is Verdict.FAIL
    assert document.runs[0].verdict is Verdict.FAIL
    assert {x.verdict for x in document.runs[1:]} == {Verdict.PASS}


def test_a_bundle_that_many_runs_name_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run, *_) = raw("validate")["runs"]
    runs = [{**run, "scenario": f"s{x}"} for x in range(1000)]
    path = tmp_path / "report.json"
    path.write_bytes(_changed("validate", runs=runs))
    opened: list[Path] = []

    def open_bundle(path: Path) -> None:
        opened.append(path)
        raise BundleError("not there", "")

    monkeypatch.setattr("vfio_p2p.report.collect.open_bundle", open_bundle)
    assert [x.scenario for x in collect([path]).runs] == [
        x["scenario"] for x in runs
    ]
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("validate", {"runs": []}),
        ("mutants", {"mutants": [], "control": {}}),
        ("followups", {"trials": []}),
    ],
)
def test_an_empty_report_is_no_pass(
    name: str, parts: dict[str, Any]
) -> None:
    assert from_json(_changed(name, **parts), "x").verdict == "inconclusive"
