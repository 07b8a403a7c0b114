# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened on one side of a migration, as values.

The lines of one log are totally ordered, so `Record.line` is the position of
everything here.  Times may be missing or equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from functools import cached_property
from typing import Protocol, TypeVar

from vfio_p2p.side import Side
from vfio_p2p.trace import ConsoleLog, DeviceLog, Kind, Record, Summary
from vfio_p2p.uapi import DeviceState


class Cause(Enum):
    """The function of QEMU that asked for a state."""

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
    """One request for a device state, and its outcome.

    :param device: The name of the device.
    :param before: The device's state before; None if the log starts too late.
    :param requested: The requested state.
    :param reached: The state that the device reached; None if it was not
        seen.
    :param attempt: The line before the request; there is none up to 9.0.
    :param done: The line after the request.
    :param cause: The function that made the request; None if no line tells.
    :param mark: The line that tells the cause.
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
        """The number of its first line."""
        return self.records[0].line

    @property
    def moved(self) -> bool:
        """Whether the device changed its state."""
        return self.reached is not None and self.reached != self.before


class Pass(StrEnum):
    """One of the two passes over the devices in a run-state change."""

    PREPARE = "prepare"
    MAIN = "main"


@dataclass(frozen=True, slots=True)
class Callback:
    """One callback of one device in an epoch.

    :param device: The name of the device.
    :param pass_: The pass that it belongs to.
    :param requested: The state that it says it asked for.
    :param arcs: Its request; if lines are missing, none or several.
    :param record: The line that it prints at its end.
    """

    device: str
    pass_: Pass
    requested: DeviceState
    arcs: tuple[TracedArc, ...]
    record: Record

    @property
    def line(self) -> int:
        """The number of its first line."""
        # Of several requests only the last one is surely its own.
        return self.arcs[-1].line if self.arcs else self.record.line

    @property
    def before(self) -> DeviceState | None:
        """The state of the device before, if it is known."""
        return self.arcs[0].before if self.arcs else None


@dataclass(frozen=True, slots=True)
class Epoch:
    """One run-state change of one side.

    :param number: Its position in the log; the first is 1.
    :param running: Whether the VM was started rather than stopped.
    :param reason: The name of the new run state.
    :param steps: Its callbacks in the order of the log.
    :param notify: The line at its very start, if that was traced.
    """

    number: int
    running: bool
    reason: str
    steps: tuple[Callback, ...]
    notify: Record | None

    def of(self, pass_: Pass) -> tuple[Callback, ...]:
        """Return the callbacks of one pass in the order of the log.

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
    :param records: The lines that show it.
    """

    why: str
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class TracedMigration:
    """One migration, as one side reports its own part of it.

    :param begin: The line that reports its setup, or that it is active.
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


@dataclass(slots=True)
class Amounts:
    """How much of one device's data a log shows.

    :param written_bytes: What the lines vfio_save_block add up to.
    :param blocks: How many of them there are.
    :param loaded_bytes: What the lines vfio_load_state_device_data add up
        to, except for failed ones.
    :param loads: How many of these there are.
    :param announced: How many lines vfio_load_state there are about it.
    :param buffers: How many lines there are of data that came by multifd.
    :param refused: The first vfio_load_state_device_data that failed.
    :param initial_bytes: The initial bytes that were left in the first and
        in the last estimate; None without any.
    :param pending_bytes: What the device reported to be left in total when
        QEMU last asked it; None if QEMU did not.
    :param bytes_after: What was written after that.
    :param blocks_after: In how many blocks.
    """

    written_bytes: int = 0
    blocks: int = 0
    loaded_bytes: int = 0
    loads: int = 0
    announced: int = 0
    buffers: int = 0
    refused: Record | None = None
    initial_bytes: tuple[int, int] | None = None
    pending_bytes: int | None = None
    bytes_after: int = 0
    blocks_after: int = 0


@dataclass(frozen=True)
class Timeline:
    """All that the log of one side tells about VFIO migration.

    :param side: The side.
    :param summary: What the log is like as a whole.
    :param plugged: The devices that QEMU reported as able to migrate, in the
        order of their realization.
    :param devices: All devices that occur, in order of appearance.
    :param epochs: The run-state changes.
    :param arcs: The requests of all devices, in the order of the log.
    :param marks: The lines that are neither requests nor callbacks.
    :param end: Each device's last known state.
    :param gaps: The signs of missing lines.
    :param others: Lines that no rule needs, but that tell the time.
    :param dropped: The places where QEMU reports that it lost events.
    :param logs: The devices' own logs by name: a second witness, which most
        sides do not have.
    :param console: The guest's console, if somebody read it.
    :param bound_ns: How far its times may be off on the clock of the other
        side, in nanoseconds; 0 if both sides have one clock.
    :param amounts: How much data each device wrote or loaded, as far as that
        was counted.
    :param unsure: Why some lines may be another QEMU's; else empty.
    :param heard_ns: The time from which and until which the log shows what
        happened, in nanoseconds since 1970; None if it shows all.
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
    console: ConsoleLog | None = None
    bound_ns: int = 0
    amounts: Mapping[str, Amounts] = field(default_factory=dict)
    unsure: str = ""
    heard_ns: tuple[int, int] | None = None

    @cached_property
    def _arcs(self) -> Mapping[str, tuple[TracedArc, ...]]:
        """The requests by device: rules ask for them again and again."""
        return _grouped(self.arcs)

    @cached_property
    def _marks(self) -> Mapping[str, tuple[Record, ...]]:
        """The marks by device; those of none are under the empty name."""
        return _grouped(self.marks)

    @cached_property
    def _gaps(self) -> Mapping[str, tuple[Record, ...]]:
        """The lines that show that others are missing, by device."""
        return _grouped(x for gap in self.gaps for x in gap.records)

    @cached_property
    def statuses(self) -> tuple[Record, ...]:
        """The marks that tell a migration's status, in their order."""
        return self.marks_of(Kind.STATUS)

    @cached_property
    def cleaned(self) -> int | None:
        """The line from which on every device was cleaned up once."""
        done = Kind.LOAD_CLEANUP, Kind.SAVE_CLEANUP
        first = [
            next((x.line for x in self.marks_of(*done, device=device)), None)
            for device in self.devices
        ]
        told = [line for line in first if line is not None]
        return max(told) if told and len(told) == len(first) else None

    @cached_property
    def migrations(self) -> tuple[TracedMigration, ...]:
        """The migrations in their order, with or without success."""
        found: list[TracedMigration] = []
        for mark in self.statuses:
            status = mark.fields["status"]
            running = bool(found) and found[-1].end is None
            begins = status == "setup" or (
                # The destination of 8.1 has no setup.
                status == "active"
                and self.side is Side.DESTINATION
                and not running
            )
            if begins:
                found.append(TracedMigration(mark, None))
            elif status in _ENDS and running:
                found[-1] = TracedMigration(found[-1].begin, mark)
        return tuple(found)

    def arcs_of(self, device: str) -> tuple[TracedArc, ...]:
        """Return the requests of one device in the order of the log.

        :param device: Its name.
        """
        return self._arcs.get(device, ())

    def has_gap(self, device: str) -> bool:
        """Return whether lines about a device are missing or doubled.

        If so, events that its log does not show may have happened.

        :param device: Its name.
        """
        return device in self._gaps

    def torn(self, device: str) -> bool:
        """Return whether lines other than the last outcome are missing.

        The last request of a device has no outcome if QEMU hung in it, or
        died; `has_gap` counts that as a gap.

        :param device: Its name.
        """
        last = self.arcs_of(device)[-1:]
        waiting = [arc.line for arc in last if arc.reached is None]
        return any(
            record.line not in waiting
            for record in self._gaps.get(device, ())
        )

    def marks_of(
        self, *kinds: Kind, device: str | None = None
    ) -> tuple[Record, ...]:
        """Return the marks of some kinds in the order of the log.

        :param kinds: The kinds.
        :param device: If given, only this device's marks.
        """
        marks = self.marks
        if device is not None:
            marks = self._marks.get(device, ())
        return tuple(mark for mark in marks if mark.kind in kinds)


class _OfDevice(Protocol):
    @property
    def device(self) -> str: ...


_Part = TypeVar("_Part", bound=_OfDevice)


def _grouped(parts: Iterable[_Part]) -> dict[str, tuple[_Part, ...]]:
    """Group parts of a log by their devices; each group keeps its order."""
    found: dict[str, list[_Part]] = {}
    for part in parts:
        found.setdefault(part.device, []).append(part)
    return {device: tuple(group) for device, group in found.items()}
