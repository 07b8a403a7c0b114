# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scenario expects of its run, as data."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from vfio_p2p import uapi
from vfio_p2p.scenario.course import Name, Outcome, Strict, check_arc
from vfio_p2p.scenario.step import Status

QemuName = Annotated[
    str, Meta(pattern=r"^(source|destination)(-\d{1,3})?\Z")
]
DeviceName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][\w.-]{0,31}\Z")]


def release(text: str) -> tuple[int, int]:
    """The numbers of a QEMU release, to be compared.

    :param text: Begins with them, e.g. ``10.0`` or ``10.0.13 (Debian)``.
    :raise ValueError: When it does not.
    """
    found = re.match(r"(\d{1,4})\.(\d{1,4})(?![0-9])", text)
    if not found:
        raise ValueError(f"{text!r} is not a release such as '10.0'")
    return int(found[1]), int(found[2])


class StateSequence(Strict, frozen=True, kw_only=True):
    """All states that one QEMU asks its devices for, in this order.

    A request for the state that the device is in does not count.

    :param on: The QEMU, by the name of its folder in the bundle.
    :param device: The number of the table [[devices]], from 0.  Without it the
        sequence holds for all devices.
    :param states: One text for each thing that happens to the VM, with blanks
        between the states that are requested then.
    :param since: The first release of QEMU for which the sequence holds.
    :param until: The last release of QEMU for which the sequence holds.
    """

    on: QemuName
    device: Annotated[int, Meta(ge=0)] | None = None
    states: tuple[str, ...]
    since: str = ""
    until: str = ""

    def __post_init__(self) -> None:
        for name in " ".join(self.states).split():
            if name not in uapi.DeviceState.__members__:
                raise ValueError(f"states: {name!r} is not a state")
        for key in ("since", "until"):
            try:
                release(getattr(self, key) or "0.0")
            except ValueError as err:
                raise ValueError(f"{key}: {err}") from None

    @property
    def requests(self) -> tuple[uapi.DeviceState, ...]:
        """The states."""
        names = " ".join(self.states).split()
        return tuple(uapi.DeviceState[name] for name in names)

    def holds_for(self, version: str) -> bool:
        """Whether it is about this release.

        :param version: Begins with the release's numbers.
        """
        number = release(version)
        return not (
            (self.since and number < release(self.since))
            or (self.until and number > release(self.until))
        )


class Expectation(Strict, frozen=True, kw_only=True):
    """What is expected of a run: an outcome, and what QEMU says in the end.

    :param outcome: How the run ends.
    :param message: A text that is part of QEMU's error.  It is required for
        outcomes with an error, since any fault of the machine would do
        otherwise.
    :param guest: The last answer to ``query-status``, by QEMU.
    :param migration: The last status of the migration, by QEMU.  A migration
        that is not to end as completed must never have been completed.
    :param sequences: The states that devices are asked for.
    :param ends: The state in which a device was left, by the device's name.
    :param hangs: The arc that a device was still taking when the time limit
        struck, by the device's name.  No other device may hang.
    :param breaks: The rules that the run must break.
    """

    outcome: Outcome = Outcome.MIGRATED
    message: str = ""
    guest: dict[QemuName, str] = msgspec.field(default_factory=dict)
    migration: dict[QemuName, Status] = msgspec.field(default_factory=dict)
    sequences: tuple[StateSequence, ...] = ()
    ends: dict[DeviceName, str] = msgspec.field(default_factory=dict)
    hangs: dict[DeviceName, str] = msgspec.field(default_factory=dict)
    breaks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for state in self.ends.values():
            if state not in uapi.DeviceState.__members__:
                raise ValueError(f"ends: {state!r} is not a state")
        for arc in self.hangs.values():
            check_arc("hangs", arc)
        if self.hangs and self.outcome is not Outcome.TIMEOUT:
            raise ValueError(f"hangs: it goes with {Outcome.TIMEOUT}")
        # QEMU itself says so of these, and the devices of a hang.
        if self.outcome in (
            Outcome.IDLE,
            Outcome.MIGRATED,
            Outcome.CANCELLED,
            Outcome.TIMEOUT,
        ):
            return
        if not self.message.strip():
            raise ValueError(f"message: none to tell this {self.outcome} by")


class Expect(Strict, frozen=True, kw_only=True):
    """What is expected of a run, by the tree under test.

    :param base: What is expected without the series.
    :param patched: What is expected with all six patches, ours or upstream's.
    :param followups: What is expected with the series and a follow-up, by the
        name of the follow-up, where that differs.
    """

    base: Expectation = Expectation()
    patched: Expectation = Expectation()
    followups: dict[Name, Expectation] = msgspec.field(default_factory=dict)

    @property
    def each(self) -> tuple[Expectation, ...]:
        """All of them."""
        return (self.base, self.patched, *self.followups.values())
