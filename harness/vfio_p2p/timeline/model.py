# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened on one side of a migration, as values.

Lines of one log are totally ordered, so `Record.line` is the position of
everything here; times may be missing or equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from vfio_p2p.side import Side
from vfio_p2p.trace import DeviceLog, Kind, Record, Summary
from vfio_p2p.uapi import DeviceState


class Cause(Enum):
    """On whose behalf QEMU asked for a state."""

    PREPARE = "the prepare callback"
    MAIN = "the main callback"
    SETUP = "vfio_save_setup"
    COMPLETE = "vfio_save_complete_precopy"
    CLEANUP = "vfio_save_cleanup"
    LOAD = "vfio_load_setup"
    LOADED = "vfio_load_state"
    NOTIFIER = "the migration state notifier"


@dataclass(frozen=True, slots=True)
class TracedArc:
    """One request for a device state, with what became of it.

    :param device: Name of the device.
    :param before: Its state before; None when the log starts too late.
    :param requested: The state that was asked for.
    :param reached: The state it came to; None when that was not seen.
    :param attempt: The line before the request; up to 9.0 there is none.
    :param done: The line after it.
    :param cause: Who asked; None when no line tells.
    :param mark: The line that tells.
    """

    device: str
    before: DeviceState | None
    requested: DeviceState
    reached: DeviceState | None
    attempt: Record | None
    done: Record | None
    cause: Cause | None = None
    mark: Record | None = None

    @property
    def records(self) -> tuple[Record, ...]:
        """The lines that show it."""
        return tuple(r for r in (self.attempt, self.done) if r is not None)

    @property
    def line(self) -> int:
        """Number of its first line."""
        return self.records[0].line

    @property
    def moved(self) -> bool:
        """Whether the device changed its state."""
        return self.reached is not None and self.reached != self.before


class Pass(StrEnum):
    """The two passes over the devices in one run-state change."""

    PREPARE = "prepare"
    MAIN = "main"


@dataclass(frozen=True, slots=True)
class Callback:
    """One callback of one device in an epoch.

    :param device: Name of the device.
    :param pass_: The pass that it belongs to.
    :param requested: The state it says it asked for.
    :param arcs: Its request; not exactly one when lines are missing.
    :param record: The line that it prints at its end.
    """

    device: str
    pass_: Pass
    requested: DeviceState
    arcs: tuple[TracedArc, ...]
    record: Record

    @property
    def line(self) -> int:
        """Number of its first line."""
        # With more than one request only the last is surely its own.
        return self.arcs[-1].line if self.arcs else self.record.line

    @property
    def before(self) -> DeviceState | None:
        """State of the device before, if known."""
        return self.arcs[0].before if self.arcs else None


@dataclass(frozen=True, slots=True)
class Epoch:
    """One run-state change of one side.

    :param number: Its place in the log, 1 is the first.
    :param running: Whether the VM was started; else it was stopped.
    :param reason: Name of the new run state.
    :param steps: Callbacks in the order of the log.
    :param notify: The line at its very start, if traced.
    """

    number: int
    running: bool
    reason: str
    steps: tuple[Callback, ...]
    notify: Record | None

    def of(self, pass_: Pass) -> tuple[Callback, ...]:
        """Steps of one pass, in the order of the log.

        :param pass_: The pass.
        """
        return tuple(step for step in self.steps if step.pass_ is pass_)

    def __str__(self) -> str:
        what = "start" if self.running else "stop"
        return f"epoch {self.number} ({what}, {self.reason})"


@dataclass(frozen=True, slots=True)
class Gap:
    """A sign that the log does not hold all that QEMU printed.

    :param why: What is missing.
    :param records: Where that shows.
    """

    why: str
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class TracedMigration:
    """One migration, as this side reports its own part of it.

    :param begin: The line that reports its setup.
    :param end: The line that reports its end, if there is one.
    """

    begin: Record
    end: Record | None

    @property
    def completed(self) -> bool:
        """Whether this side reported it as completed."""
        return self.end is not None and (
            self.end.fields["status"] == "completed"
        )


_ENDS = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Timeline:
    """All that the log of one side tells about VFIO migration.

    :param side: Which side.
    :param summary: What the log is like as a whole.
    :param plugged: Devices that QEMU reported as able to migrate, in the
        order of their realization.
    :param devices: All devices that occur, in order of appearance.
    :param epochs: Run-state changes.
    :param arcs: Requests of all devices, in the order of the log.
    :param marks: Lines that are neither requests nor steps.
    :param end: Each device's last known state.
    :param gaps: Signs of missing lines.
    :param others: Lines that no rule needs, but that tell the time.
    :param dropped: Where QEMU says that it lost events.
    :param logs: What devices say themselves, by name; a second witness,
        which most sides do not have.
    """

    side: Side
    summary: Summary
    plugged: tuple[str, ...]
    devices: tuple[str, ...]
    epochs: tuple[Epoch, ...]
    arcs: tuple[TracedArc, ...]
    marks: tuple[Record, ...]
    end: dict[str, DeviceState]
    gaps: tuple[Gap, ...]
    others: tuple[Record, ...] = ()
    dropped: tuple[Record, ...] = ()
    logs: Mapping[str, DeviceLog] = field(default_factory=dict)

    @property
    def migrations(self) -> tuple[TracedMigration, ...]:
        """Migrations in their order, with or without success."""
        found: list[TracedMigration] = []
        for mark in self.marks_of(Kind.STATUS):
            status = mark.fields["status"]
            if status == "setup":
                found.append(TracedMigration(mark, None))
            elif status in _ENDS and found and found[-1].end is None:
                found[-1] = TracedMigration(found[-1].begin, mark)
        return tuple(found)

    def arcs_of(self, device: str) -> tuple[TracedArc, ...]:
        """Requests of one device, in the order of the log.

        :param device: Its name.
        """
        return tuple(arc for arc in self.arcs if arc.device == device)

    def has_gap(self, device: str) -> bool:
        """Whether lines about a device are missing or doubled.

        What is not in the log of such a device may have happened.

        :param device: Its name.
        """
        return any(
            record.device == device
            for gap in self.gaps
            for record in gap.records
        )

    def torn(self, device: str) -> bool:
        """As `has_gap`, but the last request may have no outcome.

        It has none when QEMU hung in it, or died.

        :param device: Its name.
        """
        last = self.arcs_of(device)[-1:]
        waiting = [arc.line for arc in last if arc.reached is None]
        return any(
            record.device == device and record.line not in waiting
            for gap in self.gaps
            for record in gap.records
        )

    def marks_of(
        self, *kinds: Kind, device: str | None = None
    ) -> tuple[Record, ...]:
        """Marks of some kinds, in the order of the log.

        :param kinds: Which kinds.
        :param device: Only this device's, if given.
        """
        return tuple(
            mark
            for mark in self.marks
            if mark.kind in kinds and device in (None, mark.device)
        )
