# SPDX-License-Identifier: GPL-2.0-or-later
"""A scenario, as data: the course of a run, and its expected result.

A scenario file is TOML.  It is strict: an unknown key or a wrong type is an
error that names the key and its line.  Every quantity has its unit in its
name.  ``vfio-p2p scenario list`` prints the scenarios that come with the tool.

All classes are frozen, so that the hash of a scenario can be a part of the
identity of a run.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from msgspec import Meta

from vfio_p2p.scenario.course import (
    Course,
    Guest,
    GuestProgram,
    Limits,
    Migration,
    Outcome,
)
from vfio_p2p.scenario.device import Device, Flag, Peers
from vfio_p2p.scenario.expect import (
    DeviceName,
    Expect,
    Expectation,
    QemuName,
    StateSequence,
    release,
)
from vfio_p2p.scenario.needs import Need
from vfio_p2p.scenario.step import Cancel, Migrate, Step
from vfio_p2p.scenario.values import (
    Bytes,
    Count,
    Integer,
    LatencyUs,
    Name,
    Seconds,
    check_arc,
)
from vfio_p2p.variant import release_of

__all__ = [
    "FORMAT",
    "Bytes",
    "Count",
    "Course",
    "Device",
    "DeviceName",
    "Expect",
    "Expectation",
    "Flag",
    "Guest",
    "GuestProgram",
    "Integer",
    "LatencyUs",
    "Limits",
    "Migration",
    "Name",
    "Need",
    "Outcome",
    "Peers",
    "QemuName",
    "Scenario",
    "Seconds",
    "StateSequence",
    "check_arc",
    "check_format",
    "from_json",
    "release",
]

FORMAT = 1


def check_format(version: object) -> None:
    """Refuse a file that only a newer program can read.

    Call this before the file is decoded, since a newer format also causes
    other errors, which would be misleading.

    :param version: The value of the key ``format``.
    :raise ValueError: When the format is newer.
    """
    if isinstance(version, int) and version > FORMAT:
        raise ValueError(
            f"format {version} is newer than this program, "
            f"which knows up to {FORMAT}"
        )


# The step without which a run cannot have the outcome.
_DUE: dict[Outcome, type[Step]] = {
    Outcome.MIGRATED: Migrate,
    Outcome.CANCELLED: Cancel,
}


class Scenario(Course, frozen=True, kw_only=True):
    """A course of events, and what is expected of it.

    :param format: The version of the format.
    :param summary: What the scenario is for, one line.
    :param since: The first release of QEMU that the scenario is for, e.g.
        ``10.2``.  Runs of older ones are skipped.
    :param until: The last release that it is for.  Runs of newer ones are
        skipped.
    :param needs: What the kernel has to offer, besides what the devices need.
        Where it does not, runs are skipped.
    :param expect: What is expected of its run.
    """

    format: Annotated[int, Meta(ge=1)] = FORMAT
    summary: str = ""
    since: str = ""
    until: str = ""
    needs: tuple[Need, ...] = ()
    expect: Expect = Expect()

    def __post_init__(self) -> None:
        check_format(self.format)
        for key in ("since", "until"):
            try:
                release(getattr(self, key) or "0.0")
            except ValueError as err:
                raise ValueError(f"{key}: {err}") from None
        super().__post_init__()
        done = {type(step) for step in self.steps}
        for expected in self.expect.each:
            due = _DUE.get(expected.outcome)
            if due and due not in done:
                raise ValueError(
                    f"expect: no step can lead to {expected.outcome}"
                )
            for sequence in expected.sequences:
                if (sequence.device or 0) >= len(self.devices):
                    raise ValueError(
                        "expect: a sequence names a device that does not "
                        "exist"
                    )

    def to_json(self) -> bytes:
        """Encode it: the same scenario always gives the same bytes.

        A key that says nothing is left out if older scenarios did not have
        it, so that they keep their digests.
        """
        every = msgspec.json.decode(super().to_json())
        if not self.expect.since:
            del every["expect"]["since"]
        for key in ("since", "until"):
            if not every[key]:
                del every[key]
        if not self.needs:
            del every["needs"]
        return msgspec.json.format(
            msgspec.json.encode(every, order="sorted"), indent=1
        )

    def not_for(self, version: str) -> str:
        """Say why the scenario is not for a QEMU.

        :param version: What the QEMU says of its version.
        :return: A clause; empty if it is for that release, or the release
            is not known.
        """
        number = release_of(version)
        if number is None:
            return ""
        text = ".".join(map(str, number))
        if self.since and number < release(self.since):
            return f"it is for QEMU {self.since} and later, not for {text}"
        if self.until and number > release(self.until):
            return f"it is for QEMU {self.until} and older, not for {text}"
        return ""

    @property
    def needed(self) -> frozenset[Need]:
        """Everything that the kernel has to offer."""
        found = set(self.needs)
        if any(device.iommufd for device in self.devices):
            found.add(Need.IOMMUFD)
        if any(
            device.dma_bytes and device.dma_logging for device in self.devices
        ):
            found.add(Need.DMA_LOGGING)
        return frozenset(found)

    def through_file(self, number: int) -> bool:
        """Return whether a migration goes through a file.

        :param number: Which migration it is, from 1.
        """
        migrations = [x for x in self.steps if isinstance(x, Migrate)]
        return any(x.through for x in migrations[number - 1 : number])

    @property
    def machine(self) -> str:
        """The machine type, if it is not left to QEMU."""
        return "" if self.guest.machine == Guest().machine else (
            self.guest.machine
        )

    @property
    def course(self) -> Course:
        """The scenario without what its runner need not know."""
        return Course(
            **{key: getattr(self, key) for key in Course.__struct_fields__}
        )

    @property
    def digest(self) -> str:
        """The SHA-256 of its content; comments and spelling do not count."""
        return hashlib.sha256(self.to_json()).hexdigest()


def from_json(data: bytes) -> Scenario:
    """Decode a scenario, as `Scenario.to_json` encodes it.

    :raise msgspec.ValidationError: When it is not a scenario.
    """
    return msgspec.json.decode(data, type=Scenario)
