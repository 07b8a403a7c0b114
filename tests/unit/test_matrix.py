# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix: an error in one cell does not affect the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bundles import MIGRATED, make_bundle
from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.bundle.read import Bundle, open_bundle
from vfio_p2p.errors import (
    BuildError,
    BundleError,
    HarnessError,
    HistoryError,
    NoSpaceError,
    TestbedError,
    UsageError,
)
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.places import Job
from vfio_p2p.plans.matrix import Cell, run_matrix
from vfio_p2p.progress import Progress
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Outcome, Scenario

CELLS = [
    Cell(
        Job.of(
            ProgramInput(
                variant=variant,
                build="0" * 32,
                version="10.0.99",
                sha256="0" * 64,
                libraries={},
            ),
            load("two-devices"),
            seed,
        )
    )
    for variant in ("patched", "stock")
    for seed in (1, 2, 3)
]


@dataclass(frozen=True)
class FakePlace:
    """A place that runs nothing.

    :param accident: Called with the seed; may raise an error.
    :param damages: Unusual parts of bundles, by seed; see `make_bundle`.
    :param capacity: How many jobs it takes at a time.
    :param refuses: Why it plays a scenario of that name not.
    """

    accident: Callable[[int], object] = int
    damages: Mapping[int, dict[str, Any]] = field(default_factory=dict)
    capacity: int | None = None
    name: str = "fake"
    exact: bool = True
    running: list[int] = field(default_factory=list)
    most: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    refuses: Mapping[str, str] = field(default_factory=dict)
    opens: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Do nothing: the place can always be used."""

    def prepare(
        self, progress: Progress, scenarios: Iterable[Scenario]
    ) -> None:
        """Do nothing: the place is always ready."""

    def refusal(self, scenario: Scenario) -> str:
        """Say what the field says."""
        return self.refuses.get(scenario.name, "")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Note the begin and the end of the block."""
        self.opens.append("begin")
        try:
            yield
        finally:
            self.opens.append("end")

    async def run(
        self, job: Job, out: Path, *, limit_s: float = 1.0
    ) -> Bundle:
        """Make a bundle; later jobs end sooner."""
        seed = job.seed
        self.running.append(seed)
        self.order.append(seed)
        self.most.append(len(self.running))
        for _ in range(10 - seed):
            await asyncio.sleep(0)
        self.running.remove(seed)
        self.accident(seed)
        make_bundle(
            out,
            scenario=job.scenario,
            variant=job.source.variant,
            **self.damages.get(seed, {}),
        )
        return open_bundle(out)


def accident(err: Exception, *, seed: int) -> Callable[[int], None]:
    """Raise `err` in the runs with that seed."""

    def happen(this: int) -> None:
        if this == seed:
            raise err

    return happen


async def test_runs_come_in_the_order_of_the_cells(tmp_path: Path) -> None:
    runs = await run_matrix(FakePlace(), CELLS, tmp_path, 4)
    assert [run.cell for run in runs] == CELLS
    for run in runs:
        assert run.assessment.verdict is Verdict.PASS
        assert run.bundle
        assert run.bundle == tmp_path / run.cell.name
    assert len({run.cell.name for run in runs}) == len(CELLS)


async def test_what_a_qemu_cannot_do_is_skipped(tmp_path: Path) -> None:
    first = CELLS[0].job
    runs = await run_matrix(
        FakePlace(), CELLS, tmp_path, 4,
        refuse=lambda job: "it has no GnuTLS" if job is first else "",
    )  # fmt: skip
    assert runs[0].assessment.verdict is Verdict.SKIP
    assert runs[0].assessment.notes == ("not run: it has no GnuTLS",)
    assert all(x.assessment.verdict is Verdict.PASS for x in runs[1:])


async def test_long_ones_first(tmp_path: Path) -> None:
    names = ["one-device", "ping-pong", "two-devices", "sixteen-devices"]
    cells = [
        Cell(Job.of(CELLS[0].job.source, load(name), seed))
        for seed, name in enumerate(names)
    ]
    place = FakePlace()
    runs = await run_matrix(place, cells, tmp_path, 1)
    assert [names[seed] for seed in place.order] == [
        "ping-pong", "sixteen-devices", "two-devices", "one-device",
    ]
    assert [run.cell for run in runs] == cells


@pytest.mark.parametrize("jobs", [1, 3, 99])
async def test_no_more_jobs_than_asked_for(tmp_path: Path, jobs: int) -> None:
    place = FakePlace()
    await run_matrix(place, CELLS, tmp_path, jobs)
    assert max(place.most) == min(jobs, len(CELLS))


async def test_no_more_jobs_than_the_place_takes(tmp_path: Path) -> None:
    place = FakePlace(capacity=2)
    await run_matrix(place, CELLS, tmp_path, 99)
    assert max(place.most) == 2


async def test_progress(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int, text: str) -> None:
        told.append((done, total))

    await run_matrix(FakePlace(), CELLS, tmp_path, 2, progress)
    assert told == [(done, len(CELLS)) for done in range(len(CELLS) + 1)]


@pytest.mark.parametrize(
    "err",
    [
        TestbedError("no boot", "look at the console"),
        HarnessError("no boot", "look at the console"),
        BuildError("no boot", Path("look at the console")),
    ],
)
async def test_one_cell_is_not_run(
    tmp_path: Path, err: HarnessError
) -> None:
    place = FakePlace(accident=accident(err, seed=2))
    runs = await run_matrix(place, CELLS, tmp_path, 2)
    verdicts = [run.assessment.verdict for run in runs]
    ok, bad = Verdict.PASS, Verdict.ERROR
    assert verdicts == [ok, bad, ok, ok, bad, ok]
    failed = runs[1]
    assert failed.bundle is None
    assert "no boot" in failed.assessment.notes[0]
    assert "look at the console" in failed.assessment.notes[1]


async def test_bad_input_stops_all(tmp_path: Path) -> None:
    err = NoSpaceError(tmp_path)
    place = FakePlace(accident=accident(err, seed=3))
    with pytest.raises(NoSpaceError) as caught:
        await run_matrix(place, CELLS, tmp_path, 2)
    assert caught.value is err
    # Running cells are stopped, and waiting cells are never started.
    assert len(place.most) < len(CELLS)


async def test_bad_input_of_several(tmp_path: Path) -> None:
    def happen(_: int) -> None:
        raise NoSpaceError(tmp_path)

    place = FakePlace(accident=happen)
    with pytest.raises(NoSpaceError):
        await run_matrix(place, CELLS, tmp_path, len(CELLS))


async def test_a_mistake_of_ours_is_one_cells_trouble(
    tmp_path: Path,
) -> None:
    place = FakePlace(accident=accident(ZeroDivisionError("x"), seed=1))
    runs = await run_matrix(place, CELLS, tmp_path, 2)
    verdicts = [run.assessment.verdict for run in runs]
    ok, bad = Verdict.PASS, Verdict.ERROR
    assert verdicts == [bad, ok, ok, bad, ok, ok]
    assert "ZeroDivisionError('x')" in runs[0].assessment.notes[0]
    assert f"{__file__}, line" in runs[0].assessment.notes[1]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("devices/src1.log", {"logs": {"src1": b"p2psim-log vers"}}),
        ("destination/trace.log", {"destination": b"\x7fELF\0\n"}),
    ],
)
async def test_a_log_that_cannot_be_read(
    tmp_path: Path, name: str, damage: dict[str, Any]
) -> None:
    place = FakePlace(damages={2: damage})
    runs = await run_matrix(place, CELLS, tmp_path, 2)
    verdicts = [run.assessment.verdict for run in runs]
    ok, bad = Verdict.PASS, Verdict.ERROR
    assert verdicts == [ok, bad, ok, ok, bad, ok]
    found = runs[1]
    assert found.assessment.summary == "not judged"
    assert name in found.assessment.notes[0]
    # The bundle can be examined.
    assert found.bundle is not None
    assert open_bundle(found.bundle)
    assert found.run.bundle == str(found.bundle)


async def test_a_bundle_that_cannot_be_made(tmp_path: Path) -> None:
    err = BundleError("the run left no result", "run it again")
    place = FakePlace(accident=accident(err, seed=2))
    runs = await run_matrix(place, CELLS, tmp_path, 2)
    verdicts = [run.assessment.verdict for run in runs]
    ok, bad = Verdict.PASS, Verdict.ERROR
    assert verdicts == [ok, bad, ok, ok, bad, ok]
    assert runs[1].assessment.notes == (err.what, err.hint)


async def test_what_is_there_is_seen_before_anything_runs(
    tmp_path: Path,
) -> None:
    (tmp_path / CELLS[-1].name).mkdir()
    place = FakePlace()
    with pytest.raises(UsageError, match="is there already"):
        await run_matrix(place, CELLS, tmp_path, 2)
    assert place.most == []


async def test_two_of_one_name(tmp_path: Path) -> None:
    first, *_ = CELLS
    place = FakePlace()
    with pytest.raises(UsageError, match="would be named"):
        await run_matrix(place, [first, first], tmp_path, 2)
    other = replace(first, prefix="v10.2-")
    runs = await run_matrix(place, [first, other], tmp_path, 2)
    assert len({run.bundle for run in runs}) == 2


async def test_no_cells(tmp_path: Path) -> None:
    assert await run_matrix(FakePlace(), [], tmp_path, 2) == []


async def test_each_bundle_is_recorded_as_soon_as_it_is_there(
    tmp_path: Path,
) -> None:
    recorded: list[str] = []
    before: list[int] = []

    def progress(done: int, total: int, text: str) -> None:
        before.append(len(recorded))

    def record(bundle: Bundle, verdict: Verdict) -> None:
        assert verdict is Verdict.PASS
        recorded.append(bundle.path.name)

    place = FakePlace(accident=accident(TestbedError("no"), seed=2))
    runs = await run_matrix(
        place, CELLS, tmp_path, 1, progress, record=record
    )
    made = [x for x in runs if x.bundle]
    assert recorded == [x.cell.name for x in made]
    assert len(made) == len(CELLS) - 2
    assert before == [0, 1, 1, 2, 3, 3, 4]


async def test_what_cannot_be_recorded_ends_it(tmp_path: Path) -> None:
    def record(bundle: Bundle, verdict: Verdict) -> None:
        raise HistoryError("db: another program has locked it")

    with pytest.raises(HistoryError, match="locked"):
        await run_matrix(FakePlace(), CELLS, tmp_path, 2, record=record)


@pytest.mark.parametrize(
    "err", [ValueError("no sum"), BundleError("no sum", "report it")]
)
async def test_one_that_cannot_be_recorded(
    tmp_path: Path, err: Exception
) -> None:
    told: list[Verdict] = []

    def record(bundle: Bundle, verdict: Verdict) -> None:
        told.append(verdict)
        if bundle.manifest.inputs.seed == 2:
            raise err

    damage = {"result": msgspec.structs.replace(
        MIGRATED, outcome=Outcome.FAILED
    )}  # fmt: skip
    place = FakePlace(
        damages={2: {"seed": 2}, 3: damage}
    )
    runs = await run_matrix(place, CELLS[:3], tmp_path, 2, record=record)
    verdicts = [run.assessment.verdict for run in runs]
    assert verdicts == [Verdict.PASS, Verdict.ERROR, Verdict.FAIL]
    assert sorted(told) == [Verdict.FAIL, Verdict.PASS, Verdict.PASS]
    assert runs[1].assessment.summary == "not recorded"
    assert "no sum" in runs[1].assessment.notes[0]
    assert runs[1].bundle is not None


async def test_a_scenario_that_cannot_be_played_is_skipped(
    tmp_path: Path,
) -> None:
    place = FakePlace(refuses={"two-devices": "there is one device"})
    runs = await run_matrix(place, CELLS, tmp_path, 2)
    assert place.order == []
    assert {run.assessment.verdict for run in runs} == {Verdict.SKIP}
    assert runs[0].assessment.notes == ("not run: there is one device",)
    assert runs[0].run.verdict is Verdict.SKIP


async def test_a_release_that_a_scenario_is_not_for(tmp_path: Path) -> None:
    older = msgspec.structs.replace(CELLS[0].job.source, version="9.2.0")
    scenario = msgspec.structs.replace(
        CELLS[0].job.scenario, since="10.0"
    )
    ours = Job.of(CELLS[0].job.source, scenario, 1)
    theirs = Job.of(CELLS[0].job.source, scenario, 2, destination=older)
    place = FakePlace()
    runs = await run_matrix(place, [Cell(ours), Cell(theirs)], tmp_path, 1)
    assert [x.run.verdict for x in runs] == [Verdict.PASS, Verdict.SKIP]
    assert place.order == [1]
    assert "10.0 and later, not for 9.2" in runs[1].assessment.notes[0]


async def test_all_jobs_run_while_the_place_is_open(tmp_path: Path) -> None:
    def check(seed: int) -> None:
        assert place.opens == ["begin"]

    place = FakePlace(accident=check)
    await run_matrix(place, CELLS, tmp_path, 2)
    assert place.opens == ["begin", "end"]


async def test_measured_runs_take_turns(tmp_path: Path) -> None:
    place = FakePlace(exact=False, capacity=1)
    await run_matrix(place, CELLS, tmp_path, 4)
    assert place.order == [1, 1, 2, 2, 3, 3]
    assert max(place.most) == 1
