# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports are collected from runs, and read back unchanged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest
from bundles import make_bundle, without_stop
from junitparser import JUnitXml
from qemu_log import FakeQemu, devices, migrate, receive
from reports import EVIL, evil_document, one, pair, run_document
from traffic import traffic_bundle
from vfio_p2p.errors import BundleError, InputError
from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report import html, junit, mail
from vfio_p2p.report.collect import collect
from vfio_p2p.report.document import Document, from_json, to_json
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Expect, Expectation
from vfio_p2p.side import Side
from vfio_p2p.trace import TraceReader

ROOT = Path(__file__).parents[2]
OLD_KEYS = (
    "variant", "scenario", "seed", "verdict", "summary", "blackout_ns",
    "qmp_downtime_ms", "bundle", "digest", "latencies", "findings", "known",
    "notes", "traffic",
)  # fmt: skip


def older(document: Document) -> str:
    """Return a report of 'validate' in format 1, which had no lanes."""
    runs = [
        {
            key: value
            for key, value in run.items()
            if key in OLD_KEYS
        }
        for run in json.loads(to_json(document))["runs"]
    ]
    return json.dumps(
        {
            "format": 1, "kind": "vfio-p2p report",
            "verdict": document.verdict, "qemu": document.qemu,
            "base": document.base, "origin": document.origin,
            "unproven": list(document.unproven), "runs": runs,
        }
    )  # fmt: skip


def test_lanes_are_the_life_of_each_device(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    assert [(x.side, x.device) for x in run.lanes] == [
        (Side.SOURCE, "src0"),
        (Side.SOURCE, "src1"),
        (Side.DESTINATION, "dst0"),
        (Side.DESTINATION, "dst1"),
    ]
    lane = run.lanes[0]
    assert [x.state for x in lane.states] == [
        "RUNNING", "RUNNING_P2P", "RUNNING", "PRE_COPY", "PRE_COPY_P2P",
        "STOP_COPY", "STOP",
    ]
    assert [(x.before, x.requested) for x in lane.arcs][-2:] == [
        ("PRE_COPY_P2P", "STOP_COPY"), ("STOP_COPY", "STOP"),
    ]
    assert all(x.reached == x.requested for x in lane.arcs)


def test_each_log_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def reader(stream: BinaryIO, name: str, shift_ns: int) -> TraceReader:
        read.append(name)
        return TraceReader(stream, name, shift_ns)

    monkeypatch.setattr("vfio_p2p.verdict.reading.TraceReader", reader)
    for name in ("a", "b"):
        make_bundle(tmp_path / name, seed=len(name))
    assert len(collect([tmp_path]).runs) == 2
    assert sorted(read) == [
        "destination/trace.log", "destination/trace.log",
        "source/trace.log", "source/trace.log",
    ]


def test_lanes_have_no_holes(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    for lane in run.lanes:
        parts = sorted(
            [
                *((x.start_ns, x.end_ns) for x in lane.states),
                *((x.start_ns, x.end_ns) for x in lane.arcs),
            ]
        )
        ends = [end for _, end in parts]
        assert [start for start, _ in parts[1:]] == ends[:-1]


def test_zero_is_the_first_stop_request(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    begins = [
        arc.start_ns
        for lane in run.lanes
        for arc in lane.arcs
        if lane.side is Side.SOURCE and arc.requested == "PRE_COPY_P2P"
    ]
    assert min(begins) == 0
    assert run.phases[0].start_ns == 0
    assert run.phases[-1].end_ns == run.blackout_ns
    assert sum(x.duration_ns for x in run.phases) == run.blackout_ns


def test_before_9_1_there_are_states_and_no_arcs(tmp_path: Path) -> None:
    qemu = FakeQemu(devices("src0", "src1"), version="8.2")
    other = FakeQemu(devices("dst0", "dst1"), version="8.2")
    path = make_bundle(
        tmp_path / "b",
        source=migrate(qemu).log(),
        destination=receive(other).log(),
    )
    (run,) = collect([path]).runs
    assert [x.state for x in run.lanes[0].states][-2:] == [
        "STOP_COPY", "STOP",
    ]
    assert not run.lanes[0].arcs


def test_logs_without_times_have_no_lanes(tmp_path: Path) -> None:
    path = make_bundle(
        tmp_path / "b",
        source=migrate(FakeQemu(devices("a", "b"), prefix="none")).log(),
        destination=receive(FakeQemu(devices("c", "d"), prefix="none")).log(),
    )
    (run,) = collect([path]).runs
    assert (run.zero_ns, run.lanes, run.phases) == (None, (), ())


def test_a_document_is_read_back(tmp_path: Path) -> None:
    for document in (run_document(tmp_path), evil_document(tmp_path)):
        assert from_json(to_json(document).encode(), "r") == document
    path = tmp_path / "r.json"
    path.write_text(to_json(document))
    assert collect([path]) == document


def test_what_validate_wrote_finds_its_bundles(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "out" / "b")
    document = collect([bundle])
    report = tmp_path / "out" / "report.json"
    report.write_text(older(document))
    assert collect([report]) == document
    # The folder is moved, as CI systems move artifacts.
    shutil.move(tmp_path / "out", tmp_path / "moved")
    (run,) = collect([tmp_path / "moved" / "report.json"]).runs
    assert run.lanes == document.runs[0].lanes
    assert run.bundle == str(tmp_path / "moved" / "b")


def test_another_bundle_of_that_name_is_not_taken(tmp_path: Path) -> None:
    document = collect([make_bundle(tmp_path / "b")])
    report = tmp_path / "report.json"
    report.write_text(older(document))
    one(tmp_path / "b", "patched")
    (run,) = collect([report]).runs
    assert run.lanes == ()
    assert run.blackout_ns == document.runs[0].blackout_ns


def test_sets_of_runs(tmp_path: Path) -> None:
    base, patched = pair(tmp_path)
    assert collect([base, patched]).tree_names == ("base", "patched")
    assert collect([patched, base]).tree_names == ("patched", "base")
    assert collect([tmp_path]).tree_names == ("base", "patched")
    assert collect([base, base]).tree_names == ("A", "B")
    again = one(tmp_path / "again", "base")
    assert collect([base, again]).tree_names == (str(base), str(again))
    assert collect([base, again, patched]).tree_names == ("base", "patched")


def test_verdict_is_the_worst(tmp_path: Path) -> None:
    make_bundle(tmp_path / "1")
    broken = FakeQemu(devices("src0", "src1"))
    right = broken.calls(True)
    broken.vm(True, "running", right[2:] + right[:2])
    make_bundle(tmp_path / "2", source=broken.log())
    document = collect([tmp_path])
    assert document.verdict is Verdict.FAIL
    barrier, *_ = document.runs[1].findings
    assert barrier.rule == "barrier"
    assert barrier.lines[0].file == "source/trace.log"


def test_a_known_finding_is_told(tmp_path: Path) -> None:
    expect = Expectation(breaks=("left",))
    path = make_bundle(
        tmp_path / "b",
        scenario=msgspec.structs.replace(
            load("two-devices"), expect=Expect(patched=expect)
        ),
        source=without_stop(),
    )
    document = collect([path])
    assert document.verdict is Verdict.PASS
    (run,) = document.runs
    assert run.findings == ()
    assert {one.rule for one in run.known} == {"left"}
    assert run.known[0].lines
    # The report of `validate` is read back even if the bundle is gone.
    report = tmp_path / "report.json"
    report.write_text(older(document))
    shutil.rmtree(path)
    (read,) = collect([report]).runs
    assert read.known == run.known
    text = mail.render(document)
    assert "Known: left (source), in two-devices, patched, seed 42" in text
    assert "Broken: " not in text
    page = html.render(document)
    assert '<article class="finding known">' in page
    assert "Known:\nleft</span> on the source" in page


def test_junit_survives_anything(tmp_path: Path) -> None:
    document = evil_document(tmp_path)
    text = junit.render(document)
    names = {x.name: x for x in JUnitXml.fromstring(text.encode())}
    mutants = names["vfio-p2p validate --mutants"]
    assert (mutants.tests, mutants.failures) == (3, 2)
    assert set(names) == {
        "vfio-p2p validate --mutants", "vfio-p2p validate --followups",
        "vfio-p2p patches", "vfio-p2p compare",
    }  # fmt: skip
    assert not set(text) & set("\x1b\x07\x00\x9b\u202e")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a report"),
        (b"{}", "not a report"),
        (b"\xff\xfe", "not a report"),
        (b'{"kind": "vfio-p2p mutants", "format": 1}', "not a report"),
        (b'{"kind": "vfio-p2p full report", "format": 1}', "not a report"),
        (b'{"kind": "vfio-p2p mutants", "format": 2}', "not a report"),
        (b'{"kind": "vfio-p2p bundle", "format": 1}', "not a report"),
        (b'{"kind": ["vfio-p2p report"], "format": 1}', "not a report"),
        (b'{"verdict": NaN}', "not a report"),
        (b'{"kind": "vfio-p2p report", "format": 1}', "not a report"),
        (
            b'{"kind": "vfio-p2p report", "format": 3}',
            "report format 3 is newer",
        ),
        (b"[" * 100_000, "not a report"),
    ],
)
def test_no_report(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as info:
        collect([path])
    assert info.value.hint


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "r.json"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="not a regular file"):
        collect([pipe])


def test_nothing_to_report_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bundles in it"):
        collect([tmp_path])
    with pytest.raises(InputError, match="no such file"):
        collect([tmp_path / "none"])
    path = make_bundle(tmp_path / "b")
    # This is the name of a bundle that is still being written.
    path.rename(tmp_path / ".b.zip.folder")
    with pytest.raises(InputError, match="no bundles in it"):
        collect([tmp_path])
    (tmp_path / ".b.zip.folder").rename(path)
    (path / "console.txt").write_text("other")
    with pytest.raises(BundleError, match="damaged"):
        collect([tmp_path])


@pytest.mark.parametrize("lost", ["manifest.json", "digest"])
def test_a_bundle_that_has_lost_a_part_is_not_left_out(
    lost: str, tmp_path: Path
) -> None:
    """Neither is it judged by its logs alone."""
    make_bundle(tmp_path / "one")
    make_bundle(tmp_path / "two")
    (tmp_path / "two" / lost).unlink()
    with pytest.raises(BundleError, match=f"not a whole bundle: no {lost}"):
        collect([tmp_path])



def test_the_schema_is_up_to_date() -> None:
    printed = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "report-schema.py")],
        check=True, capture_output=True, text=True, cwd=ROOT,
    ).stdout
    kept = ROOT / "docs" / "report.schema.json"
    assert kept.read_text() == printed, (
        "python tools/report-schema.py > docs/report.schema.json"
    )


def test_hostile_is_hostile() -> None:
    assert not EVIL.isprintable()


def test_traffic_is_read_back(tmp_path: Path) -> None:
    document = collect([traffic_bundle(tmp_path / "b", lost=2)])
    (run,) = document.runs
    assert run.traffic == Traffic(202, 200, 2, 0)
    assert [(x.sender, x.receiver, x.lost) for x in run.pairs] == [
        (0, 1, 2), (1, 0, 0),
    ]
    assert [x.sender_state for x in run.pairs[0].losses] == ["PRE_COPY"] * 2
    assert from_json(to_json(document).encode(), "x") == document
    data = json.loads(older(document))
    (read,) = from_json(json.dumps(data).encode(), "x").runs
    assert read.traffic == run.traffic
    # Even older reports have no traffic.
    del data["runs"][0]["traffic"]
    (read,) = from_json(json.dumps(data).encode(), "x").runs
    assert read.traffic is None
