# SPDX-License-Identifier: GPL-2.0-or-later
"""The trace for Perfetto loses no nanosecond, and nests as it must."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from reports import evil_document, pair, run_document, seeds
from vfio_p2p.report import perfetto
from vfio_p2p.report.collect import collect
from vfio_p2p.report.document import Document

Event = dict[str, Any]


def trace(document: Document) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(perfetto.render(document))
    return found


def of(document: Document, phase: str, category: str = "") -> list[Event]:
    return [
        event
        for event in trace(document)["traceEvents"]
        if event["ph"] == phase and event.get("cat", "") == category
    ]


def ns(us: float) -> int:
    return round(us * 1000)


def test_a_process_a_side_and_a_thread_a_device(tmp_path: Path) -> None:
    names = {
        (event["name"], event["pid"], event["tid"]): event["args"].get("name")
        for event in of(run_document(tmp_path), "M")
    }
    title = "patched two-devices s42"
    assert names["process_name", 1, 0] == f"{title}: source"
    assert names["process_name", 2, 0] == f"{title}: destination"
    assert names["thread_name", 1, 0] == "VM and migration"
    assert names["thread_name", 1, 2] == "src1"
    assert names["thread_name", 2, 1] == "dst0"


def test_all_of_the_lanes_is_there(tmp_path: Path) -> None:
    document = run_document(tmp_path)
    (run,) = document.runs
    states = of(document, "X", "state")
    arcs = of(document, "X", "arc")
    assert [x["name"] for x in states] == [
        state.state for lane in run.lanes for state in lane.states
    ]
    assert [ns(x["dur"]) for x in arcs] == [
        arc.end_ns - arc.start_ns for lane in run.lanes for arc in lane.arcs
    ]
    first = min(state.start_ns for state in run.lanes[0].states)
    assert min(x["ts"] for x in states) == 0
    assert ns(states[1]["ts"]) == run.lanes[0].states[1].start_ns - first


def test_phases_marks_and_findings(tmp_path: Path) -> None:
    document = run_document(tmp_path / "1")
    (run,) = document.runs
    assert [x["name"] for x in of(document, "X", "phase")] == [
        phase.name for phase in run.phases
    ]
    marks = of(document, "i", "run state")
    assert "run state: stop (finish-migrate)" in [x["name"] for x in marks]
    assert len(marks) + len(of(document, "i", "migration")) == len(run.marks)
    found = of(evil_document(tmp_path / "2"), "i", "finding")
    # The other line has no time.
    (flag,) = found
    begin = of(evil_document(tmp_path / "3"), "X", "phase")[0]
    assert flag["ts"] == begin["ts"] > 0


def test_slices_of_a_thread_do_not_overlap(tmp_path: Path) -> None:
    threads = defaultdict(list)
    for event in trace(collect(list(pair(tmp_path))))["traceEvents"]:
        if event["ph"] == "X":
            threads[event["pid"], event["tid"]].append(
                (ns(event["ts"]), ns(event["ts"]) + ns(event["dur"]))
            )
    assert len(threads) == 8        # of four sides: a device, and the phases
    for slices in threads.values():
        slices.sort()
        for (_, end), (begin, _) in pairwise(slices):
            assert end <= begin


def test_stop_requests_coincide(tmp_path: Path) -> None:
    document = run_document(tmp_path)
    (run,) = document.runs
    assert run.zero_ns is not None
    later = replace(run, zero_ns=run.zero_ns + 10**12 + 1)
    both = Document.of((run, later))
    begins = [
        event["ts"] for event in of(both, "X", "phase")
        if event["name"] == run.phases[0].name
    ]
    assert len(begins) == 2
    assert begins[0] == begins[1]
    first, second = trace(both)["otherData"]["runs"]
    assert int(second["origin_ns"]) - int(first["origin_ns"]) == 10**12 + 1


@given(st.integers(0, 10**12))
def test_no_nanosecond_is_lost(time_ns: int) -> None:
    written = json.loads(json.dumps(perfetto._us(time_ns)))
    assert round(written * 1000) == time_ns
    assert int(written * 1000) == time_ns


def test_no_text_acts(tmp_path: Path) -> None:
    text = perfetto.render(evil_document(tmp_path / "1"))
    assert all(c == "\n" or c.isprintable() for c in text)
    assert "\\\\x1b]0;owned" in text

    def texts(value: object) -> list[str]:
        """Return all texts in a value."""
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            return [text for part in value for text in texts(part)]
        return [value] if isinstance(value, str) else []

    events = trace(evil_document(tmp_path / "2"))["traceEvents"]
    assert all(found.isprintable() for found in texts(events))


def test_without_lanes(tmp_path: Path) -> None:
    (run,) = run_document(tmp_path).runs
    bare = replace(run, zero_ns=None, lanes=())
    assert trace(Document.of((bare,)))["traceEvents"] == []
    many = seeds(run, {1: 0, 2: 1})
    pids = {event["pid"] for event in of(Document.of(many), "M")}
    assert pids == {1, 2, 3, 4}
