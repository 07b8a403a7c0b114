# SPDX-License-Identifier: GPL-2.0-or-later
"""Documents for the tests of reports, some of them hostile."""

from __future__ import annotations

from pathlib import Path

from bundles import MIGRATED, make_bundle
from msgspec.structs import replace
from qemu_log import FakeQemu, devices, migrate, receive
from vfio_p2p.downtime.compare import Change
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.report.collect import collect
from vfio_p2p.report.document import Document
from vfio_p2p.report.run import BrokenRule, LogLine, Loss, PairTraffic, Run
from vfio_p2p.report.sections import (
    ComparedFigure,
    ComparedRuns,
    ComparedSets,
    Fate,
    FollowupTrial,
    JudgedPatch,
    MutantTrial,
)
from vfio_p2p.scenario.load import load
from vfio_p2p.side import Side

SCRIPT = "<script>document.title='owned'</script>"
CDATA = "]]><b>"
ESCAPE = "\x1b]0;owned\x07\x1b[31m"
RIGHT_TO_LEFT = "\u202eelif\u2066"
CONTROLS = "\x00\x08\r\n\x7f\x9b"
JINJA = "{{ 7 * 7 }}{% raw %}"
LONG = "A" * (64 << 10)
HOSTILE = (SCRIPT, CDATA, ESCAPE, RIGHT_TO_LEFT, CONTROLS, JINJA, LONG)
EVIL = "".join(HOSTILE[:-1])

# This can be a device's name: fields in trace lines have no brackets.
DEVICE = "<script>x</script>]]>&\u202e"


def run_document(tmp_path: Path) -> Document:
    """Make the report of a whole run with two devices."""
    return collect([make_bundle(tmp_path / "b")])


def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Make bundles of one device, without the series and with it."""
    return one(tmp_path / "base", "base"), one(tmp_path / "new", "patched")


def one(path: Path, variant: str) -> Path:
    """A bundle of one device."""
    series = variant != "base"
    make_bundle(
        path,
        variant=variant,
        scenario=load("one-device"),
        source=migrate(FakeQemu(devices("src0"), series=series)),
        destination=receive(FakeQemu(devices("dst0"), series=series)),
    )
    return path


def evil_bundle(path: Path) -> Path:
    """A bundle whose devices have a hostile name."""
    return make_bundle(
        path,
        scenario=load("one-device"),
        source=migrate(FakeQemu(devices(DEVICE))).log(),
        destination=receive(FakeQemu(devices(DEVICE))).log(),
        result=replace(MIGRATED, exit_states={"source": 0}),
    )


def evil_document(tmp_path: Path) -> Document:
    """A document in which every text is hostile."""
    run = run_document(tmp_path).runs[0]
    finding = BrokenRule(
        rule=EVIL,
        reason=EVIL,
        side=Side.SOURCE,
        message=EVIL + LONG,
        devices=(EVIL, LONG),
        lines=(
            LogLine(file=EVIL, line=1, time_ns=run.zero_ns, text=EVIL + LONG),
            LogLine(file=EVIL, line=2, text=LONG),
        ),
    )
    evil = replace(
        run,
        variant=EVIL,
        scenario=EVIL,
        tree=EVIL,
        verdict=Verdict.FAIL,
        summary=EVIL,
        bundle=EVIL,
        digest=EVIL,
        findings=(finding,),
        known=(finding,),
        notes=(EVIL, LONG),
        devices=tuple(replace(x, kind=EVIL) for x in run.devices),
        lanes=tuple(
            replace(
                lane,
                device=f"{EVIL}{lane.device}",
                states=tuple(replace(x, state=EVIL) for x in lane.states),
                arcs=tuple(
                    replace(x, before=EVIL, requested=EVIL, reached=EVIL)
                    for x in lane.arcs
                ),
            )
            for lane in run.lanes
        ),
        marks=tuple(replace(x, text=EVIL) for x in run.marks),
        phases=tuple(replace(x, name=f"{x.name}{EVIL}") for x in run.phases),
        pairs=(
            PairTraffic(
                sender=0,
                receiver=1,
                sent=9,
                lost=2,
                losses=(
                    Loss(
                        side=Side.SOURCE,
                        time_ns=0,
                        sender_state=EVIL,
                        receiver_state=EVIL,
                        during=EVIL,
                    ),
                ),
            ),
        ),
        critical_path=tuple(
            replace(x, device=EVIL, activity=EVIL)
            for x in run.critical_path
        ),
    )
    return Document.of(
        (evil,),
        qemu=EVIL,
        base=EVIL,
        origin=EVIL,
        unproven=[EVIL],
        patches=[
            JudgedPatch(
                patch=1,
                subject=EVIL,
                verdict=Verdict.FAIL,
                columns={EVIL: "BROKEN"},
            )
        ],
        control={EVIL: Verdict.FAIL},
        mutants=[
            MutantTrial(
                name=EVIL,
                trips=EVIL,
                scenarios=(EVIL,),
                fate=Fate.BY_ANOTHER,
                rules=(EVIL,),
                detail=EVIL,
            )
        ],
        followups=[
            FollowupTrial(
                followup=EVIL,
                scenario=EVIL,
                fixes=True,
                verdict=Verdict.ERROR,
                detail=EVIL,
                without=EVIL,
                mended=EVIL,
            )
        ],
        comparison=evil_comparison(),
    )


def evil_comparison() -> ComparedSets:
    """A comparison in which every text is hostile."""
    side = ComparedRuns(
        name=EVIL, qemu=EVIL, scenario=EVIL, latencies=EVIL, runs=1
    )
    row = ComparedFigure(
        name=f"device.{EVIL}",
        change=Change.SLOWER,
        a_ns=1e6,
        b_ns=2e6,
        difference_ns=1e6,
        percent=100,
        interval_ns=(1e6, 1e6),
        p=0.01,
    )
    return ComparedSets(
        a=side,
        b=side,
        seeds=(),
        confidence=0.9,
        change=Change.SLOWER,
        rows=(row, row),
        where=(row.name,),
        notes=(EVIL,),
    )


def seeds(run: Run, durations_ns: dict[int, int]) -> tuple[Run, ...]:
    """Runs that differ in their seed and the length of the first phase."""
    first, *rest = run.phases
    assert run.blackout_ns is not None
    made = []
    for seed, more_ns in durations_ns.items():
        longer = replace(first, end_ns=first.end_ns + more_ns)
        made.append(
            replace(
                run,
                seed=seed,
                blackout_ns=run.blackout_ns + more_ns,
                critical_path=(),
                phases=(
                    longer,
                    *(
                        replace(
                            x,
                            start_ns=x.start_ns + more_ns,
                            end_ns=x.end_ns + more_ns,
                        )
                        for x in rest
                    ),
                ),
            )
        )
    return tuple(made)
