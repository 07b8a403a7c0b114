# SPDX-License-Identifier: GPL-2.0-or-later
"""One commit: build it, run it, and say what was measured."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec

from vfio_p2p.devices import Driver
from vfio_p2p.errors import SourceError
from vfio_p2p.history.database import Entry
from vfio_p2p.history.entry import entry_of
from vfio_p2p.machine.files import remove_tree
from vfio_p2p.places import CachedPlace, open_place
from vfio_p2p.places import Job as PlaceJob
from vfio_p2p.progress import Progress
from vfio_p2p.qemu import build, find_source
from vfio_p2p.qemu.program import KnownPrograms, Program
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Variant

# The tree as it is, whatever it has of the series.
_AS_IT_IS = Variant("stock", ())


class Job(msgspec.Struct, frozen=True):
    """What every step is told.

    :param metric: Name of the metric.
    :param seed: Of the sealed runs.
    :param project_revision: For the history.
    :param limit_ns: Where bad begins.
    :param rising: Whether bad is above that, or below.
    """

    metric: str
    seed: int
    project_revision: str
    limit_ns: float = 0
    rising: bool = True

    def is_bad(self, value_ns: float) -> bool:
        """Whether a value is on the side of the bad commit."""
        if self.rising:
            return value_ns > self.limit_ns
        return value_ns < self.limit_ns


class Tick(msgspec.Struct, frozen=True, tag="tick"):
    """Progress of a step; see `vfio_p2p.progress`."""

    done: int
    total: int
    text: str


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """A commit that was run."""

    entry: Entry


class Skipped(msgspec.Struct, frozen=True, tag="skipped"):
    """A commit of which nothing can be known."""

    commit: str
    why: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """An error with which no other commit would fare better."""

    what: str
    hint: str
    exit_code: int


Message = Tick | Measured | Skipped | Failed

# Begins a line with a message, as in RFC 7464: git and the tools that it
# runs say a lot besides.
MARK = b"\x1e"


class NoFigureError(SourceError):
    """The run of a commit does not tell the metric."""


def measure(
    tree: Path, home: Path, job: Job, scenario: Scenario, progress: Progress
) -> Entry:
    """Build and run what is checked out.

    :param tree: The work tree.
    :param home: Folder for the bundle, which is removed again.
    :raise NoFigureError: When the metric is not in what came of it.
    :raise BuildError: When it does not build.
    :raise HostError: When the testbed failed.
    :raise SourceError: When it is no QEMU that we can build.
    """
    source = find_source(tree, "", progress)
    made = build(source, _AS_IT_IS, progress)
    programs = KnownPrograms()
    what = programs.add(Program.of(made))
    place = CachedPlace(
        open_place("sealed", driver=Driver.P2PSIM, programs=programs)
    )
    place.prepare(progress)
    progress(0, 0, f"running {scenario.name}")
    path = home / "bundle"
    bundle = asyncio.run(
        place.run(PlaceJob.of(what, scenario, job.seed), path)
    )
    remove_tree(path)
    revision = source.revision
    entry = entry_of(
        bundle,
        qemu_revision=revision.commit if revision else "",
        qemu_revision_s=revision.time_s if revision else None,
        project_revision=job.project_revision,
        recorded_s=int(time.time()),
    )
    if entry.metric(job.metric) is None:
        result = bundle.manifest.result
        known = [x.name for x in entry.metrics]
        raise NoFigureError(
            f"no {job.metric} of {entry.qemu_revision[:12]}: "
            f"{scenario.name}: {result.outcome} {result.message}".rstrip(),
            f"metrics of that run: {', '.join(known) or 'none'}",
        )
    return entry
