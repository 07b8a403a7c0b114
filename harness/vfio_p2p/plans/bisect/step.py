# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure one commit: build it, run it, and read the metric."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec

from vfio_p2p.bundle.read import Bundle
from vfio_p2p.choice import SEALED, PlaceChoice
from vfio_p2p.errors import SourceError
from vfio_p2p.history.database import Entry
from vfio_p2p.history.entry import entry_of
from vfio_p2p.machine.files import remove_tree
from vfio_p2p.names import suggest
from vfio_p2p.places import CachedPlace, Job, open_place
from vfio_p2p.progress import Progress
from vfio_p2p.qemu import build, find_source
from vfio_p2p.qemu.program import KnownPrograms, Program
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.series import Variant
from vfio_p2p.series.git import Revision
from vfio_p2p.variant import STOCK

# The tree is built as it is, whatever part of the series it contains.
_AS_IT_IS = Variant(STOCK, ())


class Probe(msgspec.Struct, frozen=True):
    """The measurement that is made of every commit.

    :param metric: The name of the metric.
    :param seed: The seed of the runs.
    :param project_revision: The revision of this project, for the history.
    :param at: The place of the runs, which has to be exact.
    :param limit_ns: The value at which bad begins.
    :param rising: Whether bad values are above the limit, or below.
    """

    metric: str
    seed: int
    project_revision: str
    at: str = SEALED
    limit_ns: float = 0
    rising: bool = True

    def is_bad(self, value_ns: float) -> bool:
        """Tell whether a value is on the side of the bad commit."""
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
    """A commit that cannot be measured."""

    commit: str
    why: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """An error that every other commit would meet, too."""

    what: str
    hint: str
    exit_code: int


Message = Tick | Measured | Skipped | Failed

# A line with a message begins with this, as in RFC 7464, since git and the
# tools that it runs print lines of their own.
MARK = b"\x1e"


class NoFigureError(SourceError):
    """The run of a commit does not have the metric."""


def measure(
    tree: Path,
    home: Path,
    probe: Probe,
    scenario: Scenario,
    progress: Progress,
) -> Entry:
    """Build and run the commit that is checked out.

    :param tree: The work tree.
    :param home: A folder for the bundle, which is removed again.
    :param probe: What is measured.
    :param scenario: What is run.
    :param progress: Told how far it is.
    :raise NoFigureError: When the run does not have the metric.
    :raise BuildError: When the commit does not build.
    :raise HostError: When the testbed failed.
    :raise SourceError: When the tree is not a QEMU that we can build.
    """
    source = find_source(tree, "", progress)
    made = build(source, _AS_IT_IS, progress)
    program = Program.of(made)
    place = CachedPlace(
        open_place(PlaceChoice(probe.at), KnownPrograms([program]))
    )
    place.prepare(progress, [scenario])
    progress(0, 0, f"running {scenario.name}")
    path = home / "bundle"
    job = Job.of(program.what, scenario, probe.seed)
    bundle = asyncio.run(place.run(job, path))
    remove_tree(path)
    revision = source.revision
    name = revision.commit[:12] if revision else ""
    return entry_with(bundle, probe, scenario, name, revision)


def entry_with(
    bundle: Bundle,
    probe: Probe,
    scenario: Scenario,
    name: str,
    revision: Revision | None = None,
) -> Entry:
    """Make the entry of a run that has to have the metric.

    :param bundle: What the run left.
    :param probe: What is measured.
    :param scenario: What was run.
    :param name: What to call its QEMU in messages.
    :param revision: The commit of its source, if it is known.
    :raise NoFigureError: When the run does not have the metric.
    """
    entry = entry_of(
        bundle,
        qemu_revision=revision.commit if revision else "",
        qemu_revision_s=revision.time_s if revision else None,
        project_revision=probe.project_revision,
        recorded_s=int(time.time()),
    )
    if entry.metric(probe.metric) is None:
        result = bundle.manifest.result
        raise NoFigureError(
            f"no {probe.metric} of {name}: {scenario.name}: "
            f"{result.outcome} {result.message}".rstrip(),
            suggest(probe.metric, [x.name for x in entry.metrics]),
        )
    return entry
