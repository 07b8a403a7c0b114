# SPDX-License-Identifier: GPL-2.0-or-later
"""Chrome's trace JSON, which ui.perfetto.dev opens.

Each side of each run is a process and each device a thread; the first
thread is the VM and the migration.  Runs are laid one over the other so
that their stop requests coincide.  Times are therefore no wall-clock times;
``otherData`` has the time from which those of each run count.

Times are microseconds with fractions.  A double holds them to the
nanosecond up to 10^15 ns, which is the limit of the document.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from vfio_p2p.report.document import Document
from vfio_p2p.report.run import Lane, Run
from vfio_p2p.side import Side
from vfio_p2p.trace import printable

_Event = dict[str, Any]

_VM = 0


def render(document: Document) -> str:
    """Render the whole trace, one event on each line.

    :param document: The document.
    """
    runs = [run for run in document.runs if run.zero_ns is not None]
    first_ns = min(
        (time_ns for run in runs for time_ns in _times(run)), default=0
    )
    events = [
        json.dumps(event)
        for number, run in enumerate(runs)
        for event in _events(run, 2 * number + 1, first_ns)
    ]
    other = {
        "tool": "vfio-p2p",
        "verdict": str(document.verdict),
        "runs": [
            {
                "processes": [2 * number + 1, 2 * number + 2],
                "name": _name(run),
                "digest": run.digest,
                # As text, since it has more digits than a double.
                "origin_ns": str((run.zero_ns or 0) + first_ns),
            }
            for number, run in enumerate(runs)
        ],
    }
    listed = ",\n".join(events)
    return (
        '{"displayTimeUnit": "ns",\n'
        f'"otherData": {json.dumps(other)},\n'
        f'"traceEvents": [\n{listed}\n]}}\n'
    )


def _name(run: Run) -> str:
    name = f"s{run.seed}" if run.seed is not None else run.name
    return printable(f"{run.tree} {run.scenario} {name}")


def _times(run: Run) -> Iterator[int]:
    """All times of a run, which count from its zero."""
    for lane in run.lanes:
        yield from (state.start_ns for state in lane.states)
        yield from (arc.start_ns for arc in lane.arcs)
    yield from (mark.time_ns for mark in run.marks)
    for finding in run.findings:
        for line in finding.lines:
            if line.time_ns is not None and run.zero_ns is not None:
                yield line.time_ns - run.zero_ns


def _events(run: Run, first_pid: int, first_ns: int) -> Iterator[_Event]:
    pids = {Side.SOURCE: first_pid, Side.DESTINATION: first_pid + 1}
    for side, pid in pids.items():
        yield _meta(pid, _VM, "process_name", name=f"{_name(run)}: {side}")
        yield _meta(pid, _VM, "process_sort_index", sort_index=pid)
        yield _meta(pid, _VM, "thread_name", name="VM and migration")
    numbers = dict.fromkeys(pids, 0)
    for lane in run.lanes:
        numbers[lane.side] += 1
        tid = numbers[lane.side]
        pid = pids[lane.side]
        yield _meta(pid, tid, "thread_name", name=printable(lane.device))
        yield _meta(pid, tid, "thread_sort_index", sort_index=tid)
        yield from _slices(lane, pid, tid, first_ns)
    for phase in run.phases:
        yield {
            "ph": "X",
            "cat": "phase",
            "name": printable(phase.name),
            "pid": pids[phase.side],
            "tid": _VM,
            "ts": _us(phase.start_ns - first_ns),
            "dur": _us(phase.duration_ns),
        }
    for mark in run.marks:
        yield _instant(
            pids[mark.side],
            mark.kind,
            printable(f"{mark.kind}: {mark.text}"),
            mark.time_ns - first_ns,
        )
    for finding in run.findings:
        for line in finding.lines:
            if line.time_ns is not None and run.zero_ns is not None:
                yield _instant(
                    pids[finding.side],
                    "finding",
                    printable(f"broken: {finding.rule}"),
                    line.time_ns - run.zero_ns - first_ns,
                    message=printable(finding.message),
                    line=printable(f"{line.file}:{line.line}: {line.text}"),
                )


def _slices(lane: Lane, pid: int, tid: int, first_ns: int) -> Iterator[_Event]:
    for state in lane.states:
        yield {
            "ph": "X",
            "cat": "state",
            "name": printable(state.state),
            "pid": pid,
            "tid": tid,
            "ts": _us(state.start_ns - first_ns),
            "dur": _us(state.end_ns - state.start_ns),
        }
    for arc in lane.arcs:
        yield {
            "ph": "X",
            "cat": "arc",
            "name": printable(f"{arc.before}>{arc.requested}"),
            "pid": pid,
            "tid": tid,
            "ts": _us(arc.start_ns - first_ns),
            "dur": _us(arc.end_ns - arc.start_ns),
            "args": {"reached": printable(arc.reached) or "not seen"},
        }


def _instant(
    pid: int, category: str, what: str, time_ns: int, **args: str
) -> _Event:
    return {
        "ph": "i",
        "s": "p",
        "cat": category,
        "name": what,
        "pid": pid,
        "tid": _VM,
        "ts": _us(time_ns),
        "args": args,
    }


def _meta(pid: int, tid: int, what: str, **args: str | int) -> _Event:
    return {"ph": "M", "pid": pid, "tid": tid, "name": what, "args": args}


def _us(time_ns: int) -> float:
    whole, rest = divmod(time_ns, 1000)
    if not rest:
        return whole
    exact = time_ns / 1000
    # Perfetto multiplies by 1000 and truncates where others round.
    if int(exact * 1000) != time_ns:
        exact = math.nextafter(exact, math.inf)
    return exact
