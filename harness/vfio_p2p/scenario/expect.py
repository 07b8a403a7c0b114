# SPDX-License-Identifier: GPL-2.0-or-later
"""The expected result of a scenario, as data."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from vfio_p2p import uapi
from vfio_p2p.scenario.course import Outcome
from vfio_p2p.scenario.step import Status
from vfio_p2p.scenario.values import Name, Strict, check_arc

QemuName = Annotated[
    str, Meta(pattern=r"^(source|destination)(-\d{1,3})?\Z")
]
Release = Annotated[str, Meta(pattern=r"^\d{1,4}\.\d{1,4}\Z")]
DeviceName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][\w.:-]{0,31}\Z")]


def release(text: str) -> tuple[int, int]:
    """Parse the numbers of a QEMU release, for comparisons.

    :param text: A text that begins with them, e.g. ``10.0`` or
        ``10.0.13 (Debian)``.
    :raise ValueError: When the text does not begin with a release.
    """
    found = re.match(r"(\d{1,4})\.(\d{1,4})(?![0-9])", text)
    if not found:
        raise ValueError(f"{text!r} is not a release such as '10.0'")
    return int(found[1]), int(found[2])


class StateSequence(Strict, frozen=True, kw_only=True):
    """All states that one QEMU requests of its devices, in this order.

    Requests for the state in which the device already is do not count.

    :param on: The QEMU, by the name of its folder in the bundle.
    :param device: The number of the table [[devices]], from 0; without it,
        the sequence applies to all devices.
    :param states: One text for each event in the VM's life; it contains the
        states, separated by blanks.
    :param since: The first release of QEMU to which the sequence applies.
    :param until: The last release of QEMU to which it applies.
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
        """The states, of all texts together."""
        names = " ".join(self.states).split()
        return tuple(uapi.DeviceState[name] for name in names)

    def holds_for(self, version: str) -> bool:
        """Whether the sequence applies to a release of QEMU.

        :param version: A text that begins with the release's numbers.
        """
        number = release(version)
        return not (
            (self.since and number < release(self.since))
            or (self.until and number > release(self.until))
        )


class Expectation(Strict, frozen=True, kw_only=True):
    """The expected result: an outcome, and more that must be true then.

    :param outcome: How the run ends.
    :param message: A part of QEMU's message, in QMP or on its standard
        error, or a list of parts of which it has one: which error QEMU names
        can depend on which of its threads sees it first.  An unsuccessful
        outcome needs a message, since otherwise any fault of the machine
        would satisfy it.
    :param guest: The last answer to ``query-status``, by QEMU.
    :param migration: The last status of the migration, by QEMU.  Unless this
        is completed, the QEMU must never have reported completed.
    :param sequences: The sequences of states that QEMU requests.
    :param ends: The state in which a device was left according to its own
        log, by the device's name.
    :param hangs: The arc, as in `latency_us`, that a device had not finished
        when the time limit struck, by the device's name.  No other device
        may hang.
    :param breaks: The rules that the run must break.
    """

    outcome: Outcome = Outcome.MIGRATED
    message: str | tuple[str, ...] = ""
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
            raise ValueError(f"hangs: the outcome must be {Outcome.TIMEOUT}")
        if isinstance(self.message, tuple):
            if not self.message:
                raise ValueError("message: the list is empty")
            if not all(x.strip() for x in self.message):
                raise ValueError("message: a part of the list is empty")
        # QEMU itself reports these outcomes, and the devices a hang.
        if self.outcome in (
            Outcome.IDLE,
            Outcome.MIGRATED,
            Outcome.CANCELLED,
            Outcome.TIMEOUT,
        ):
            return
        if not all(x.strip() for x in self.messages):
            raise ValueError(
                f"message: the outcome {self.outcome} needs one"
            )

    @property
    def messages(self) -> tuple[str, ...]:
        """The parts of QEMU's message, of which it has to have one."""
        if isinstance(self.message, str):
            return (self.message,)
        return self.message

    def said_in(self, text: str) -> bool:
        """Return whether QEMU has said what it should.

        :param text: All that it has said.
        """
        return any(part in text for part in self.messages)


class Expect(Strict, frozen=True, kw_only=True):
    """The expected results, by the abilities of the tree under test.

    :param base: The result without the series.
    :param patched: The result with all six patches, ours or upstream's.
    :param followups: The result with these patches and a follow-up, by its
        name, if it differs.
    :param since: The result of a QEMU with upstream's series, from a release
        on, if it differs from `patched`.
    """

    base: Expectation = Expectation()
    patched: Expectation = Expectation()
    followups: dict[Name, Expectation] = msgspec.field(default_factory=dict)
    since: dict[Release, Expectation] = msgspec.field(default_factory=dict)

    @property
    def each(self) -> tuple[Expectation, ...]:
        """All of these results."""
        return (
            self.base,
            self.patched,
            *self.followups.values(),
            *self.since.values(),
        )

    def upstream(self, version: tuple[int, int] | None) -> Expectation:
        """Return the result with upstream's series.

        :param version: The numbers of the release; None if not known.
        """
        found = self.patched
        if version is not None:
            reached = [x for x in self.since if release(x) <= version]
            if reached:
                found = self.since[max(reached, key=release)]
        return found
