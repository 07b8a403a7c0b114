# SPDX-License-Identifier: GPL-2.0-or-later
"""A job: the complete description of one run.

A job names its programs by content and holds no path, so that it can be
written down, hashed, and run by another machine.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vfio_p2p.bundle.manifest import Inputs, ProgramInput
from vfio_p2p.bundle.provenance import Provenance
from vfio_p2p.errors import UsageError
from vfio_p2p.foreign import NOT_JSON, format_of
from vfio_p2p.scenario.model import Scenario

FORMAT = 1


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run to make.

    :param source: The QEMU of the source.
    :param destination: The QEMU of the destination.
    :param scenario: What is to happen.
    :param seed: The seed, which fixes everything random.
    """

    format: Annotated[int, Meta(ge=1)] = FORMAT
    kind: Literal["vfio-p2p job"] = "vfio-p2p job"
    source: ProgramInput
    destination: ProgramInput
    scenario: Scenario
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]

    @classmethod
    def of(
        cls,
        source: ProgramInput,
        scenario: Scenario,
        seed: int,
        *,
        destination: ProgramInput | None = None,
    ) -> Job:
        """Make a job.

        :param source: The QEMU of the source.
        :param scenario: What is to happen.
        :param seed: The seed.
        :param destination: The QEMU of the destination; by default it is
            the source's.
        """
        return cls(
            source=source,
            destination=destination or source,
            scenario=scenario,
            seed=seed,
        )

    def to_json(self) -> bytes:
        """Encode it: the same job always gives the same bytes."""
        return msgspec.json.format(
            msgspec.json.encode(self, order="sorted"), indent=1
        )

    @property
    def digest(self) -> str:
        """The SHA-256 of `to_json`."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def inputs(self, place: Provenance) -> Inputs:
        """Name everything that determines the run of this job at a place.

        :param place: What the place contributes.
        """
        return Inputs(
            source=self.source,
            destination=self.destination,
            scenario=self.scenario.digest,
            seed=self.seed,
            place=place,
        )


def from_json(data: bytes) -> Job:
    """Decode a job.

    :param data: What `Job.to_json` returned, perhaps on another machine.
    :raise UsageError: When it is not a job, or newer than this program.
    """

    try:
        version = format_of(data)
        if version > FORMAT:
            raise UsageError(
                f"the job has the format {version}, and this program knows "
                f"formats up to {FORMAT}",
                "Use a newer vfio-p2p.",
            )
        return msgspec.json.decode(data, type=Job)
    except NOT_JSON as err:
        raise UsageError(
            f"this is not a job: {err}",
            "Give a file that vfio-p2p wrote.",
        ) from err
