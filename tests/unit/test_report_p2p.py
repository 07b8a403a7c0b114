# SPDX-License-Identifier: GPL-2.0-or-later
"""The time that devices spend in P2P arcs, and the limit to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import make_bundle
from msgspec.structs import replace
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.cli.entry import main
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.document import Document
from vfio_p2p.report.formats import render
from vfio_p2p.report.p2p import P2pTime, gated, p2p_times
from vfio_p2p.report.run import Lane, Mark, Move, Run, Stay
from vfio_p2p.report.runs import run_of
from vfio_p2p.side import Side

MS = 10**6


def move(start_ms: int, end_ms: int, before: str, requested: str) -> Move:
    return Move(
        start_ns=start_ms * MS,
        end_ns=end_ms * MS,
        before=before,
        requested=requested,
        reached=requested,
    )


def mark(time_ms: int, text: str) -> Mark:
    return Mark(
        side=Side.SOURCE, time_ns=time_ms * MS, kind="run state", text=text
    )


LANE = Lane(
    side=Side.SOURCE,
    device="vf0",
    arcs=(
        move(0, 1, "RUNNING", "RUNNING_P2P"),
        move(2, 3, "RUNNING_P2P", "RUNNING"),
        move(100, 400, "PRE_COPY", "PRE_COPY_P2P"),
        move(450, 470, "PRE_COPY_P2P", "STOP_COPY"),
        move(900, 901, "RUNNING", "RUNNING_P2P"),
    ),
    states=(
        Stay(start_ns=400 * MS, end_ns=450 * MS, state="PRE_COPY_P2P"),
    ),
)
RUN = Run(
    variant="patched",
    scenario="one-device",
    seed=1,
    verdict=Verdict.PASS,
    summary="migrated",
    exact=False,
    lanes=(LANE,),
    marks=(
        mark(0, "start (running)"),
        mark(99, "stop (finish-migrate)"),
        mark(899, "stop (shutdown)"),
    ),
)


def test_only_a_vm_that_stops_counts() -> None:
    assert p2p_times(RUN) == (
        P2pTime(
            Side.SOURCE, "vf0", "PRE_COPY>PRE_COPY_P2P", 300 * MS, 50 * MS
        ),
    )
    # Nothing is known of the VM.
    assert len(p2p_times(replace(RUN, marks=()))) == 3


def test_an_arc_that_failed_has_no_time_after_it() -> None:
    arc = replace(LANE.arcs[2], reached="ERROR")
    run = replace(RUN, lanes=(replace(LANE, arcs=(arc,)),))
    assert p2p_times(run)[0].stay_ns is None
    (found,) = gated(run, MS).findings
    assert "it did not get there" in found.message


def test_the_limit() -> None:
    assert gated(RUN, 300 * MS) is RUN
    run = gated(RUN, 299.5 * MS)
    assert run.verdict is Verdict.FAIL
    (found,) = run.findings
    assert (found.rule, found.side, found.devices) == (
        "p2p-time", Side.SOURCE, ("vf0",)
    )  # fmt: skip
    assert found.message == (
        "vf0 took 300.000 ms for PRE_COPY>PRE_COPY_P2P, and 299.5 ms are "
        "allowed; it then stayed there for 50.000 ms until the next arc"
    )


@pytest.mark.parametrize("verdict", [Verdict.ERROR, Verdict.SKIP])
def test_a_run_that_was_not_judged_stays_so(verdict: Verdict) -> None:
    assert gated(replace(RUN, verdict=verdict), MS).verdict is verdict


@pytest.mark.parametrize("name", ["table", "text", "html"])
def test_every_format_for_people_has_the_table(name: str) -> None:
    other = replace(
        RUN,
        seed=2,
        lanes=(
            replace(
                LANE, arcs=(move(100, 300, "PRE_COPY", "PRE_COPY_P2P"),)
            ),
        ),
    )
    text = render(name, Document.of((RUN, other)))
    assert "Time in P2P arcs" in text
    assert "PRE_COPY&gt;PRE_COPY_P2P" in text or "PRE_COPY>PRE" in text
    assert "250.000 (max 300.000)" in " ".join(text.split())
    assert "Time in P2P arcs" not in render(
        name, Document.of((replace(RUN, exact=True),))
    )


def test_a_failure_is_in_the_table() -> None:
    text = render("text", Document.of((gated(RUN, MS),)))
    assert "one-device: fail (tree" in text
    assert "Broken: p2p-time (source)" in text


def test_the_lanes_of_a_bundle_have_all_that_is_needed(
    tmp_path: Path,
) -> None:
    run = run_of(open_bundle(make_bundle(tmp_path / "b")))
    found = p2p_times(run)
    assert {x.device for x in found} == {"src0", "src1"}
    assert {x.arc for x in found} == {"PRE_COPY>PRE_COPY_P2P"}


@pytest.mark.parametrize(
    "argv",
    [
        ["run", "one-device", "--fail-above-p2p", "0"],
        ["run", "one-device", "--fail-above-p2p", "fast"],
        ["validate", "--fail-above-p2p", "nan"],
        ["validate", "--mutants", "--fail-above-p2p", "10"],
    ],
)
def test_bad_limits(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(argv)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    assert status == 2
    assert "--fail-above-p2p" in capsys.readouterr().err
