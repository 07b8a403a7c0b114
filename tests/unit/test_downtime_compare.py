# SPDX-License-Identifier: GPL-2.0-or-later
"""Comparisons find all true differences of A and B, and no others."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import make_bundle
from qemu_log import FakeQemu, devices, migrate, receive
from vfio_p2p.cli import main
from vfio_p2p.downtime import (
    BlackoutPhase,
    Breakdown,
    CriticalLink,
    Interval,
    PhaseName,
)
from vfio_p2p.downtime.compare import Change, Comparison, RunSample, compare
from vfio_p2p.downtime.effect import LEVEL
from vfio_p2p.downtime.model import OPTIONAL_PHASES
from vfio_p2p.downtime.stats import paired
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.plans.matrix import Cell
from vfio_p2p.report.comparison import compared_sets, comparison_lines
from vfio_p2p.report.sections import ComparedRuns
from vfio_p2p.timeline import Blackout
from workshops import FakeWorkshop

Capture = pytest.CaptureFixture[str]
N = PhaseName
MS = 10**6
# The phases that each run has.
USUAL = dict.fromkeys((x for x in N if x not in OPTIONAL_PHASES), 5 * MS)


def sample(seed: int, lengths: Mapping[PhaseName, int]) -> RunSample:
    """Make a run whose phases have these lengths, with one busy device."""
    at_ns = begin_ns = 10**18
    parts, links = [], []
    for name in PhaseName:
        if name not in lengths:
            continue
        end_ns = at_ns + lengths[name]
        parts.append(BlackoutPhase(name, at_ns, end_ns))
        work = Interval(name.side, f"{name.side}0", name, name, at_ns, end_ns)
        links.append(CriticalLink(name, work, at_ns, end_ns))
        at_ns = end_ns
    return RunSample(
        seed,
        Breakdown(
            Blackout(at_ns - begin_ns, True, "", begin_ns),
            tuple(parts),
            critical_path=tuple(links),
        ),
    )


def runs(
    count: int, change: Mapping[PhaseName, int] | None = None, scatter: int = 0
) -> list[RunSample]:
    """Make runs that scatter by seed, with a change in some phases."""
    found = []
    for seed in range(count):
        rng = random.Random(seed)
        lengths = {
            name: value + rng.randrange(2 * MS)
            for name, value in USUAL.items()
        }
        own = random.Random(1000 + seed)
        for name in lengths if scatter else ():
            lengths[name] += own.randrange(-scatter, scatter)
        for name, by_ns in (change or {}).items():
            lengths[name] += by_ns
        found.append(sample(seed, lengths))
    return found


def test_identical_runs_show_no_change() -> None:
    for count in range(1, 21):
        found = compare(runs(count), runs(count))
        assert found.change is Change.IDENTICAL
        assert found.where == ()
        assert found.gate(float("-inf"), 0) is Verdict.PASS


def test_one_percent_is_found_where_it_is() -> None:
    found = compare(runs(5), runs(5, {N.START_P2P_ARCS: 660_000}))
    assert found.change is Change.SLOWER
    assert found.whole is not None
    assert found.percent(found.whole.effect.difference_ns) == pytest.approx(
        1, abs=0.1
    )
    assert {row.name for row in found.where} == {
        "phase.start-p2p-arcs",
        "device.destination0.start-p2p-arcs",
    }
    assert compare(runs(4), runs(4, {N.RAM: MS})).change is Change.UNCLEAR


def test_scatter_makes_a_change_unclear() -> None:
    found = compare(runs(5), runs(5, {N.RAM: 660_000}, scatter=4 * MS))
    assert found.change is Change.UNCLEAR
    assert found.gate(float("-inf"), 1) is Verdict.INCONCLUSIVE
    found = compare(runs(60), runs(60, scatter=20_000))
    assert found.change is Change.NONE
    assert found.gate(float("-inf"), 1) is Verdict.PASS


def test_a_negligible_change() -> None:
    found = compare(runs(10), runs(10, {N.RAM: 5_000}))
    assert found.change is Change.NONE
    assert found.where == ()


def test_parts_answer_for_one_another() -> None:
    found = compare(runs(10), runs(10, scatter=MS))
    parts = [x for x in found.rows[1:] if x.name.startswith("phase.")]
    alone = []
    for part in parts:
        name = PhaseName(part.name.removeprefix("phase."))
        pairs = [
            [x.breakdown.phase(name) for x in group]
            for group in (runs(10), runs(10, scatter=MS))
        ]
        alone.append(
            paired(
                [
                    y.duration_ns - x.duration_ns
                    for x, y in zip(*pairs, strict=True)
                    if x and y
                ]
            ).p
        )
    # One of them looks odd by itself, but not among all of them.
    assert min(alone) <= LEVEL
    assert min(x.effect.p for x in parts) > LEVEL


def test_gates() -> None:
    found = compare(runs(10), runs(10, {N.DEVICE_SAVED: -3 * MS}))
    assert found.gate(-6, -4) is Verdict.PASS
    assert found.gate(-4, 4) is Verdict.FAIL
    assert found.gate(-9, -6) is Verdict.FAIL
    assert found.gate(float("-inf"), 1) is Verdict.PASS
    back = compare(runs(10, {N.DEVICE_SAVED: -3 * MS}), runs(10))
    assert back.gate(float("-inf"), 1) is Verdict.FAIL
    assert back.gate(float("-inf"), 9) is Verdict.PASS
    # A phase can show what the scatter of the whole hides.
    rest = 66 * MS - USUAL[N.RAM]
    found = compare(
        [sample(x, {N.RAM: 5 * MS, N.LOAD_DONE: rest}) for x in range(5)],
        [
            sample(x, {N.RAM: 6 * MS, N.LOAD_DONE: rest + way * MS})
            for x, way in enumerate((-9, 8, -7, 6, 9))
        ],
    )
    assert found.change is Change.UNCLEAR
    assert found.gate(float("-inf"), 1) is Verdict.FAIL
    assert found.gate(float("-inf"), 2) is Verdict.INCONCLUSIVE
    assert Comparison((), 0, 0, ()).gate(-1, 1) is Verdict.INCONCLUSIVE


def test_pairs_are_of_one_seed() -> None:
    found = compare(runs(8)[2:], runs(6))
    assert found.seeds == (2, 3, 4, 5)
    assert found.change is Change.IDENTICAL
    assert found.notes == (
        "these seeds have only one run of two: [0, 1, 6, 7]",
    )
    twice = compare(runs(8) + runs(8), runs(8) + runs(8))
    assert twice.seeds == ()
    assert twice.change is not Change.IDENTICAL
    assert compare(runs(3), runs(3), pairs=False).seeds == ()


def test_without_pairs() -> None:
    found = compare(
        runs(20), runs(20, {N.RAM: 10 * MS}), pairs=False
    )
    assert found.change is Change.SLOWER
    assert [row.name for row in found.where] == [
        "phase.ram-saved", "device.source0.ram-saved"
    ]
    odd = runs(20)
    odd[3] = sample(3, {**USUAL, N.RAM: 500 * MS})
    found = compare(odd, runs(20), pairs=False)
    assert found.outliers_ns == ((555 * MS,), ())
    assert found.count_a == 20
    few = compare(runs(2), runs(2, {N.RAM: 50 * MS}), pairs=False)
    assert few.change is Change.UNCLEAR


def host_runs(
    path: Path, name: str, begins_s: list[int], ends_ns: list[int]
) -> str:
    """Write runs of real hosts: only logs, each later than the one before."""
    for begin_s, end_ns in zip(begins_s, ends_ns, strict=True):
        source = FakeQemu(devices("0000:3b:00.1"))
        target = FakeQemu(devices("0000:3b:00.1"))
        source.begin_ns += begin_s * 10**9
        target.begin_ns += begin_s * 10**9 + end_ns
        for side, qemu in (
            ("source", migrate(source)), ("destination", receive(target))
        ):
            log = path / name / f"run{begin_s}" / side / "trace.log"
            log.parent.mkdir(parents=True)
            log.write_bytes(qemu.log())
    return str(path / name)


def test_real_hosts(tmp_path: Path, capsys: Capture) -> None:
    rng = random.Random(1)
    scatter = [rng.randrange(MS) for _ in range(16)]
    a = host_runs(tmp_path, "a", [*range(0, 160, 20)], scatter[:8])
    slow = [x + 5 * MS for x in scatter[8:]]
    slow[3] += 900 * MS
    b = host_runs(tmp_path, "b", [*range(10, 170, 20)], slow)
    assert main(["compare", a, b]) == 0
    out = capsys.readouterr().out
    assert "8 runs of A and 8 of B, not paired" in out
    assert f"A: {a}, logs of real hosts, QEMU 9.2 to 10.0" in out
    assert "apart, but counted, in B: 1" in out
    assert "as exact as the clocks of its two hosts agree" in " ".join(
        out.split()
    )
    assert "not run alternately" not in out
    assert "blackout: slower by" in out
    assert main(["compare", a, b, "--fail-above", "1%"]) == 1
    capsys.readouterr()
    # All A, then all B: a host that warms up would look the same.
    late = host_runs(tmp_path, "late", [*range(1000, 1160, 20)], slow)
    assert main(["compare", a, late, "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert "not run alternately" in notes[1]


def test_real_hosts_may_not_tell(tmp_path: Path, capsys: Capture) -> None:
    a = host_runs(tmp_path, "a", [0, 20, 40], [0, 9 * MS, 3 * MS])
    b = host_runs(tmp_path, "b", [10, 30, 50], [2 * MS, 9 * MS, 7 * MS])
    assert main(["compare", a, b]) == 3
    assert "blackout: not enough runs to tell" in capsys.readouterr().out
    # Equal values can be chance, and do not prove that nothing changed.
    assert main(["compare", a, a, "--fail-above", "1%"]) == 3


def test_without_a_seed_there_are_no_pairs() -> None:
    (one,) = (replace(x, seed=None) for x in runs(1))
    found = compare([one], [one])
    assert (found.count_a, found.count_b, found.seeds) == (1, 1, ())
    assert found.change is Change.UNCLEAR
    assert compare([one] * 5, [one] * 5, pairs=True).seeds == ()


def test_clocks_that_disagree(tmp_path: Path, capsys: Capture) -> None:
    a = host_runs(tmp_path, "a", [0, 20], [0, -3600 * 10**9])
    assert main(["compare", a, a]) == 3
    assert "run20: no blackout: the clocks" in capsys.readouterr().out


def test_logs_and_bundles_are_kept_apart(
    tmp_path: Path, capsys: Capture
) -> None:
    logs = host_runs(tmp_path, "logs", [0], [0])
    bundles = folder(tmp_path, "bundles")
    for args in (
        [logs, bundles], [bundles, logs], [logs, "base"], ["base", logs],
    ):
        assert main(["compare", *args]) == 2
        assert "cannot be compared" in capsys.readouterr().err
    host_runs(tmp_path, "bundles", [0], [0])
    assert main(["compare", bundles, bundles]) == 2
    assert "but is no bundle" in capsys.readouterr().err
    assert main(["compare", logs, logs, "--scenario", "one-device"]) == 2
    assert "but is no bundle" in capsys.readouterr().err
    (Path(logs) / "run0" / "destination" / "trace.log").unlink()
    assert main(["compare", logs, logs]) == 2
    err = capsys.readouterr().err
    assert "destination/trace.log: No such file" in err
    assert len(err.splitlines()) == 2


def test_runs_that_tell_different_things() -> None:
    less = [
        sample(
            seed,
            {
                part.name: part.duration_ns
                for part in x.breakdown.phases
                if part.name is not N.STREAM_END
            },
        )
        for seed, x in enumerate(runs(5))
    ]
    found = compare(runs(5), less)
    assert "phase.stream-end" not in {row.name for row in found.rows}
    assert found.notes == (
        "stream-end: not told in every run; it is part of the next phase",
    )


def test_runs_without_a_blackout() -> None:
    lost = RunSample(9, Breakdown(Blackout(None, False, "refused")), "x-s9")
    found = compare([lost], [lost])
    assert found.rows == ()
    assert found.change is Change.UNCLEAR
    assert found.notes[0] == "x-s9: no blackout: refused"


def test_text_is_of_79_columns() -> None:
    kinds = [
        compare(runs(10), runs(10, {N.RAM: 900 * MS})),
        compare(runs(4), runs(4, scatter=MS)),
        compare(runs(20), runs(20), pairs=False),
        compare([], []),
        compare(
            [replace(x, seed=None) for x in runs(8)],
            [
                replace(x, seed=None)
                for x in runs(8, {N.RAM: 9 * MS})
            ],
        ),
    ]
    usual = ComparedRuns(
        name="base",
        qemu="QEMU emulator version 10.0.13",
        scenario="one-device",
    )
    for found in kinds:
        lines = comparison_lines(compared_sets(usual, usual, found))
        assert max(map(len, lines)) <= 79
    evil = ComparedRuns(name="\x1b[2J", qemu="", scenario="")
    lines = comparison_lines(compared_sets(evil, usual, kinds[0]))
    text = "\n".join(lines)
    assert "\x1b" not in text
    assert "  phase ram-saved: slower by 900.000 ms" in text


def folder(path: Path, name: str, slow_ns: int = 0) -> str:
    """Make a folder with one bundle, whose blackout is slow_ns longer."""
    target = FakeQemu(devices("dst0", "dst1"))
    target.begin_ns += slow_ns
    make_bundle(
        path / name / "x-s42",
        destination=receive(target),
    )
    return str(path / name)


def test_folders(tmp_path: Path, capsys: Capture) -> None:
    a, b = folder(tmp_path, "a"), folder(tmp_path, "b", 5 * MS)
    assert main(["compare", a, a, "--fail-above", "1%"]) == 0
    out = capsys.readouterr().out
    assert "identical, and so is every part" in out
    assert main(["compare", a, b]) == 3
    assert "not enough runs to tell" in capsys.readouterr().out
    assert main(["compare", a, b, "--expect", "-6% .. -4%", "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "inconclusive"
    assert document["rows"][0]["difference_ns"] == 5 * MS


def test_a_run_that_is_being_written_is_ignored(
    tmp_path: Path, capsys: Capture
) -> None:
    a = folder(tmp_path, "a")
    host_runs(tmp_path / "a", ".x-s43.partial", [0], [0])
    Path(a, ".x-s43.partial", "run0").rename(Path(a, ".run"))
    assert main(["compare", a, a]) == 0
    # A run that is named explicitly is still taken.
    Path(a, "x-s42").rename(tmp_path / ".kept")
    assert main(["compare", *[str(tmp_path / ".kept")] * 2]) == 0
    assert capsys.readouterr().out.count("1 pair, of seed 42") == 2


def test_variants_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    slower = tmp_path / "slower.toml"
    slower.write_text(
        'name = "one-device"\n[[devices]]\nlatency_us = '
        '{ "RESUMING>STOP" = 5500 }\n'
    )

    def make(cell: Cell, path: Path) -> None:
        make_bundle(path, seed=cell.job.seed)

    workshop = FakeWorkshop(make=make)

    def asked() -> list[tuple[str, int, str]]:
        found = [(x.variant, x.job.seed, x.suffix) for x in workshop.ran]
        workshop.ran.clear()
        return found

    command = ["compare", "base", "patch-1", "--seeds", "2"]
    assert main(command, workshop) == 0
    assert asked() == [
        ("base", 42, ""), ("patch-1", 42, ""),
        ("base", 43, ""), ("patch-1", 43, ""),
    ]
    command = ["compare", "patched", "patched"]
    more = ["--scenario-b", str(slower), "--seeds", "1", "--seed", "7"]
    assert main([*command, *more], workshop) == 0
    assert asked() == [("patched", 7, ""), ("patched", 7, "-b")]
    # Equal runs of both sides are made only once.
    assert main([*command, "--seeds", "3"], workshop) == 0
    assert len(asked()) == 3
    assert "identical" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["no-such"], "neither a variant nor a folder of bundles"),
        (["{empty}"], "no such bundles"),
        (["{mixed}"], "more than one kind"),
        (["{a}", "--scenario", "one-device"], "no such bundles"),
        (["{a}", "--scenario", "nope"], "no scenario 'nope'"),
    ],
)
def test_bad_input(
    tmp_path: Path, capsys: Capture, more: list[str], said: str
) -> None:
    a = folder(tmp_path, "a")
    (tmp_path / "empty").mkdir()
    for variant in ("base", "patched"):
        make_bundle(tmp_path / "mixed" / variant, variant=variant)
    names = {x: str(tmp_path / x) for x in ("a", "empty", "mixed")}
    arguments = [x.format(**names) for x in more]
    assert main(["compare", a, *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize(
    "gate",
    [
        ["--fail-above", "1"],
        ["--fail-above", "-1%"],
        ["--expect", "-4%"],
        ["--expect", "-4% .. -6%"],
        ["--expect", "nan% .. 1%"],
    ],
)
def test_bad_gates(tmp_path: Path, gate: list[str]) -> None:
    a = folder(tmp_path, "a")
    with pytest.raises(SystemExit) as caught:
        main(["compare", a, a, *gate])
    assert caught.value.code == 2


def test_a_damaged_bundle_is_bad_input(
    tmp_path: Path, capsys: Capture
) -> None:
    a = folder(tmp_path, "a")
    log = Path(a) / "x-s42" / "source" / "trace.log"
    log.write_bytes(migrate(FakeQemu(devices("z"))).log())
    assert main(["compare", a, a]) == 2
    assert "damaged" in capsys.readouterr().err
