# SPDX-License-Identifier: GPL-2.0-or-later
"""What a change of QEMU does in one scenario, and the verdict on it."""

from __future__ import annotations

import pytest
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.judging.change import ChangeRuns, trial, verdict
from vfio_p2p.report.run import BlackoutPart, BrokenRule, Run
from vfio_p2p.report.sections import ChangeFate
from vfio_p2p.side import Side

F = ChangeFate


def run(
    found: Verdict = Verdict.PASS,
    summary: str = "migrated",
    broken: tuple[str, ...] = (),
    known: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    seed: int = 42,
    ram_ns: int | None = None,
) -> Run:
    """A run that broke rules; it has a blackout of two phases if asked."""
    phases: tuple[BlackoutPart, ...] = ()
    if ram_ns is not None:
        bounds = ((0, 10_000_000), (10_000_000, 10_000_000 + ram_ns))
        phases = tuple(
            BlackoutPart(name=name, side=side, start_ns=a, end_ns=b)
            for name, side, (a, b) in zip(
                ("p2p-arcs", "ram-saved"), [Side.SOURCE] * 2, bounds,
                strict=True,
            )
        )
    return Run(
        variant="stock",
        scenario="s",
        seed=seed,
        verdict=found,
        summary=summary,
        findings=tuple(map(finding, broken)),
        known=tuple(map(finding, known)),
        notes=notes,
        phases=phases,
        blackout_ns=phases[-1].end_ns if phases else None,
        zero_ns=0,
    )


def finding(rule: str) -> BrokenRule:
    return BrokenRule(
        rule=rule, reason="It matters.", side=Side.SOURCE, message="so"
    )


PASS = run()
BROKEN = run(Verdict.FAIL, broken=("order",))
# A known defect shows, as the scenario expects; and it is gone.
KNOWN = run(known=("barrier",))
GONE = run(Verdict.FAIL, broken=("expected",))
OTHER_COURSE = run(Verdict.FAIL, broken=("expected", "sequence"))
CRASHED = run(summary="crashed")
LIVES = run(
    Verdict.ERROR, "idle", notes=("idle, but must be crashed",)
)
ERROR = run(Verdict.ERROR, "not run", notes=("no disk",))
UNSURE = run(Verdict.INCONCLUSIVE, notes=("no log",))
SKIPPED = run(Verdict.SKIP, "skipped", notes=("no VF",))


@pytest.mark.parametrize(
    ("a", "b", "fate", "said"),
    [
        (PASS, PASS, F.KEPT, Verdict.PASS),
        (KNOWN, KNOWN, F.KEPT, Verdict.PASS),
        (PASS, BROKEN, F.BROKEN, Verdict.FAIL),
        (BROKEN, BROKEN, F.BROKEN_BEFORE, Verdict.PASS),
        (BROKEN, PASS, F.REPAIRED, Verdict.PASS),
        (KNOWN, GONE, F.REPAIRED, Verdict.PASS),
        (KNOWN, OTHER_COURSE, F.REPAIRED, Verdict.PASS),
        (PASS, OTHER_COURSE, F.BROKEN, Verdict.FAIL),
        (
            KNOWN,
            run(Verdict.FAIL, broken=("expected", "order")),
            F.BROKEN,
            Verdict.FAIL,
        ),
        (CRASHED, LIVES, F.REPAIRED, Verdict.PASS),
        (CRASHED, ERROR, F.NOT_JUDGED, Verdict.ERROR),
        (PASS, LIVES, F.NOT_JUDGED, Verdict.ERROR),
        (PASS, ERROR, F.NOT_JUDGED, Verdict.ERROR),
        (ERROR, PASS, F.NOT_JUDGED, Verdict.ERROR),
        (UNSURE, PASS, F.NOT_JUDGED, Verdict.INCONCLUSIVE),
        (BROKEN, UNSURE, F.NOT_JUDGED, Verdict.INCONCLUSIVE),
        # What is seen to be broken is broken, whatever A is.
        (UNSURE, BROKEN, F.BROKEN, Verdict.FAIL),
        (SKIPPED, SKIPPED, F.NOT_JUDGED, Verdict.SKIP),
    ],
)
def test_a_scenario(a: Run, b: Run, fate: ChangeFate, said: Verdict) -> None:
    found = trial(ChangeRuns("s", (a,), (b,)))
    assert (found.fate, found.verdict) == (fate, said)
    assert bool(found.detail) == (fate is F.NOT_JUDGED)


def test_the_rules_that_changed() -> None:
    a = run(Verdict.FAIL, broken=("order", "once"), known=("arcs",))
    b = run(Verdict.FAIL, broken=("order", "count", "expected"))
    found = trial(ChangeRuns("s", (a,), (b,)))
    assert found.breaks == ("count",)
    assert found.repairs == ("arcs", "once")
    assert found.a == "fail, migrated"


def test_one_seed_of_several_is_enough() -> None:
    found = trial(ChangeRuns("s", (PASS, PASS), (PASS, BROKEN)))
    assert found.fate is F.BROKEN
    assert found.b == "1 pass, 1 fail, migrated"
    also = trial(ChangeRuns("s", (PASS, BROKEN), (BROKEN, PASS)))
    assert also.fate is F.BROKEN_BEFORE


def blackouts(*ram_ns: int) -> tuple[Run, ...]:
    return tuple(
        run(seed=seed, ram_ns=each) for seed, each in enumerate(ram_ns)
    )


def test_the_phases_that_moved() -> None:
    found = trial(
        ChangeRuns("s", blackouts(30_000_000), blackouts(34_000_000))
    )
    assert (found.a_ns, found.b_ns) == (40_000_000, 44_000_000)
    assert {x.name: x.difference_ns for x in found.moved} == {
        "blackout": 4_000_000, "phase.ram-saved": 4_000_000,
    }


def test_a_thousandth_is_nothing() -> None:
    found = trial(
        ChangeRuns("s", blackouts(30_000_000), blackouts(30_039_000))
    )
    assert found.moved == ()
    assert found.b_ns == 40_039_000


def test_with_many_seeds_chance_is_left_out() -> None:
    a = [30_000_000 + 1_000_000 * x for x in range(10)]
    b = [x + (400_000 if n % 2 else -400_000) for n, x in enumerate(a)]
    shifted = [x + 400_000 + 1000 * n for n, x in enumerate(a)]
    noise = trial(ChangeRuns("s", blackouts(*a), blackouts(*b)))
    real = trial(ChangeRuns("s", blackouts(*a), blackouts(*shifted)))
    assert {x.change for x in noise.moved} <= {"not enough runs to tell"}
    assert {x.change for x in real.moved} == {"slower"}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([(PASS, PASS), (PASS, BROKEN)], Verdict.FAIL),
        ([(PASS, PASS), (BROKEN, BROKEN)], Verdict.PASS),
        ([(PASS, PASS), (SKIPPED, SKIPPED)], Verdict.PASS),
        ([(SKIPPED, SKIPPED)], Verdict.SKIP),
        ([(PASS, PASS), (PASS, ERROR)], Verdict.ERROR),
        ([(PASS, PASS), (PASS, UNSURE)], Verdict.INCONCLUSIVE),
    ],
)
def test_the_change(found: list[tuple[Run, Run]], said: Verdict) -> None:
    trials = [trial(ChangeRuns("s", (a,), (b,))) for a, b in found]
    assert verdict(trials) is said
