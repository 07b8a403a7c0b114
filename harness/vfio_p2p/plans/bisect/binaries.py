# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the first of several QEMUs, run as they are, that changed a downtime.

The QEMUs are in order, the oldest first.  The first one is good and the last
one bad, as the two commits of a search in a repository are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.choice import SEALED
from vfio_p2p.errors import HarnessError, HostError, UsageError
from vfio_p2p.history.database import Entry, default_path
from vfio_p2p.machine.temporary import temporary_folder
from vfio_p2p.places import Job
from vfio_p2p.plans.bisect.plan import SCENARIO, check_place, keep
from vfio_p2p.plans.bisect.search import (
    Above,
    Bisection,
    MeasuredCommit,
    settled,
)
from vfio_p2p.plans.bisect.step import NoFigureError, Probe, entry_with
from vfio_p2p.plans.history import METRIC
from vfio_p2p.plans.matrix import Cell
from vfio_p2p.plans.record import project_revision
from vfio_p2p.plans.setting import SEED, Setting
from vfio_p2p.plans.workshop import LOCAL, Workshop
from vfio_p2p.progress import SILENT, Reporter
from vfio_p2p.scenario.load import load
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.variant import QEMU

_FEWEST = 2


@dataclass(frozen=True)
class BinariesRequest:
    """The QEMUs and the metric of a search.

    :param qemus: The QEMUs, the oldest first: ``qemu:PATH`` or
        ``debian:VERSION``.
    :param metric: The metric that changed.
    :param scenario: The name or file of the scenario that is run.
    :param seed: The seed of the runs.
    :param at: The name of the place of the runs.
    :param above: The threshold over the first QEMU; None takes the midpoint
        between the first and the last.
    :param record: Whether the measurements are kept in the history.
    :param database: The file of the history; None is the usual one.
    """

    qemus: tuple[str, ...]
    metric: str = METRIC
    scenario: str = SCENARIO
    seed: int = SEED
    at: str = SEALED
    above: Above | None = None
    record: bool = False
    database: Path | None = None


def bisect_binaries(
    request: BinariesRequest,
    reporter: Reporter = SILENT,
    tell: Callable[[MeasuredCommit], None] = lambda sample: None,
    workshop: Workshop = LOCAL,
) -> Bisection:
    """Find the first QEMU that changed a metric.

    :param tell: Told of each QEMU that was tested.
    :return: The result, whose commits are the names of QEMUs.
    :raise UsageError: When there are fewer than two QEMUs, one is named twice
        or cannot be used, the first and the last do not differ, or the place
        is not exact.
    :raise NoFigureError: When the first or the last lacks the metric.
    :raise HostError: When the testbed failed with the first or the last.
    :raise HistoryError: When the history cannot be written to.
    """
    names = [x.removeprefix(QEMU) for x in request.qemus]
    if len(names) < _FEWEST:
        raise UsageError(
            "one QEMU alone cannot have changed anything",
            "Give --qemu several times, the oldest QEMU first.",
        )
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"{name} is named twice", "Name each QEMU only once."
            )
    scenario = load(request.scenario)
    if request.at != SEALED:
        check_place(request.at)
    workshop.check(Setting(at=request.at))
    path = (request.database or default_path()) if request.record else None
    if path:
        # Errors of the history are reported now, not after many runs.
        keep(path, [])
    search = _Search(
        names,
        [workshop.examine(x, reporter) for x in request.qemus],
        Probe(
            request.metric, request.seed, project_revision(), at=request.at
        ),
        scenario,
        reporter,
        tell,
        workshop,
        path,
    )
    return search.find(request.above)


@dataclass
class _Search:
    names: list[str]
    programs: list[ProgramInput]
    probe: Probe
    scenario: Scenario
    reporter: Reporter
    tell: Callable[[MeasuredCommit], None]
    workshop: Workshop
    history: Path | None
    samples: list[MeasuredCommit] = field(default_factory=list)

    def find(self, above: Above | None) -> Bisection:
        """Search, beginning with both ends."""
        good, bad = 0, len(self.names) - 1
        ends = [self.measure(number) for number in (good, bad)]
        values = [self.value_ns(entry) for entry in ends]
        self.probe = settled(self.probe, values[0], values[1], above)
        known: dict[int, MeasuredCommit | None] = {}
        for number, entry in zip((good, bad), ends, strict=True):
            known[number] = self.note(number, entry)
        while untested := [x for x in range(good + 1, bad) if x not in known]:
            middle = min(untested, key=lambda x: abs(2 * x - good - bad))
            try:
                found = self.note(middle, self.measure(middle))
            except (HostError, NoFigureError) as err:
                self.skip(middle, err)
                known[middle] = None
                continue
            known[middle] = found
            if found.bad:
                bad = middle
            else:
                good = middle
        whole = bad - good == 1
        return Bisection(
            self.scenario.name,
            self.probe,
            tuple(self.samples),
            known[bad] if whole else None,
            known[good] if whole else None,
            tuple(self.names[good + 1 : bad + 1]),
        )

    def value_ns(self, entry: Entry) -> int:
        """Read the metric of a run that has it."""
        found = entry.metric(self.probe.metric)
        assert found is not None
        return found.value

    def measure(self, number: int) -> Entry:
        """Run one QEMU.

        :raise NoFigureError: When the run does not have the metric.
        :raise HostError: When the run could not be made.
        """
        name, program = self.names[number], self.programs[number]
        cell = Cell(Job.of(program, self.scenario, self.probe.seed))
        with temporary_folder() as folder:
            setting = Setting(at=self.probe.at, jobs=1, out=Path(folder))
            (result,) = self.workshop.run([cell], setting, self.reporter)
            if result.bundle is None:
                raise HostError(
                    f"{name}: {'; '.join(result.assessment.notes)}",
                    "Run 'vfio-p2p run --qemu' with it to see more.",
                )
            return entry_with(
                open_bundle(result.bundle), self.probe, self.scenario, name
            )

    def note(self, number: int, entry: Entry) -> MeasuredCommit:
        """Keep a measurement."""
        value_ns = self.value_ns(entry)
        found = MeasuredCommit(
            self.names[number],
            self.programs[number].version,
            self.probe.is_bad(value_ns),
            value_ns,
            entry=entry,
        )
        self.samples.append(found)
        self.tell(found)
        if self.history:
            keep(self.history, [entry])
        return found

    def skip(self, number: int, err: HarnessError) -> None:
        """Note that a QEMU cannot be measured."""
        found = MeasuredCommit(
            self.names[number],
            self.programs[number].version,
            None,
            None,
            err.what,
        )
        self.samples.append(found)
        self.tell(found)
