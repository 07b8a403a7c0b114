# SPDX-License-Identifier: GPL-2.0-or-later
"""The interface of all places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from vfio_p2p.bundle.manifest import ProgramInput
from vfio_p2p.bundle.provenance import Provenance
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.places.job import Job
from vfio_p2p.progress import Progress
from vfio_p2p.scenario.model import Scenario
from vfio_p2p.side import Side

# Counted by this machine's clock.  A sealed run takes about 10 s on an idle
# machine.
LIMIT_S = 900.0


class Place(Protocol):
    """A place where jobs run.

    Call `check` before anything is built, and `prepare` before the first
    job.  Jobs run within `opened`.
    """

    @property
    def name(self) -> str:
        """The name by which `open_place` finds it."""

    @property
    def exact(self) -> bool:
        """Whether the same job always gives the same bundle."""

    @property
    def capacity(self) -> int | None:
        """How many jobs the place can run at a time.

        None means that the place has no limit of its own: each job takes
        one core of this machine.
        """

    def check(self) -> None:
        """Check at once, without building, that it can be used with builds.

        :raise InputError: When the place cannot be used.
        """

    def prepare(
        self, progress: Progress, scenarios: Iterable[Scenario]
    ) -> None:
        """Make what jobs need; the first time this may take minutes.

        :param progress: Told of each step.
        :param scenarios: The scenarios of the jobs.
        :raise HostError: When a part cannot be downloaded.
        :raise BuildError: When a part does not build.
        """

    def refusal(self, scenario: Scenario) -> str:
        """Say why the place cannot play a scenario; empty if it can.

        :param scenario: The scenario.
        :return: A clause.
        """

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Hold what all jobs share, such as connections, within a block.

        :raise HostError: When a machine does not answer.
        :raise SkipError: When somebody else uses the devices.
        """

    async def run(
        self, job: Job, out: Path, *, limit_s: float = LIMIT_S
    ) -> Bundle:
        """Run a job.

        :param job: The job.
        :param out: The folder that the bundle will be; it does not exist,
            or is a bundle, which is replaced.
        :param limit_s: The limit in seconds of this machine's time.
        :return: The bundle, checked.
        :raise HostError: When the place, and not the QEMU under test, is
            at fault.
        :raise SourceError: When the place lacks one of the programs.
        :raise NoSpaceError: When the disk is too full.
        """


@runtime_checkable
class EquippedPlace(Place, Protocol):
    """A place whose machines have QEMUs of their own."""

    def installed(self) -> Mapping[Side, ProgramInput]:
        """Check the place, as `check` does, for its own QEMUs.

        :return: The QEMU of each side, as jobs name it.
        :raise InputError: When the place or a QEMU cannot be used.
        :raise HostError: When a machine cannot be reached.
        """


@runtime_checkable
class ExactPlace(Place, Protocol):
    """A place whose runs are functions of their inputs.

    All that it contributes is known before a run.  Where runs are measured,
    it is known only afterwards.
    """

    def provenance(self, job: Job) -> Provenance:
        """Return what the place contributes to the result of a job.

        :param job: The job.
        """
