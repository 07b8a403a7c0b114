# SPDX-License-Identifier: GPL-2.0-or-later
"""What the logs of a bundle say, read once.

Reading a run's logs is most of the work of judging it, and its verdict, its
lanes and its breakdown all need them.  Whoever needs more than one of these
makes one `RunReading` and passes it on.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from vfio_p2p.bundle.manifest import (
    ProgramInput,
    clock_file,
    console_file,
    device_log,
    device_log_of,
    trace_file,
    transcript_file,
)
from vfio_p2p.bundle.provenance import HostProvenance, SealedProvenance
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.clock import ClockOffset
from vfio_p2p.downtime import (
    Beside,
    Breakdown,
    NotObservable,
    guest_gap,
    phases,
    stop_to_resume_ns,
)
from vfio_p2p.errors import BundleError, UnevenError
from vfio_p2p.oracle.traffic import Flow, flows
from vfio_p2p.scenario import model
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.step import Plug, Status
from vfio_p2p.side import Side, side_of
from vfio_p2p.tells import Tells
from vfio_p2p.timeline import Blackout, Timeline, build_events
from vfio_p2p.timeline import build as build_timeline
from vfio_p2p.trace import (
    ConsoleLog,
    DeviceLog,
    EventReader,
    Kind,
    TraceReader,
    heard,
    read_console,
    read_device_log,
)

FILE_NOTE = (
    "the migration went through a file; how long that lay there is not QEMU's "
    "doing"
)


@dataclass(frozen=True, slots=True)
class NamedDevice:
    """A device of a scenario, by the name that it has on one side.

    :param name: Its name in the trace of that side.
    :param number: Its number among all devices of the scenario, from 0.
    :param table: The number of its table in the scenario, from 0.
    :param spec: That table.
    """

    name: str
    number: int
    table: int
    spec: model.Device


def completed(result: Result, leg: tuple[str, str]) -> bool:
    """Return whether both QEMUs of a migration reported it as completed.

    :param result: How the run ended.
    :param leg: One of its migrations: its source and its destination.
    """
    return all(
        Status.COMPLETED in result.migration.get(name, ()) for name in leg
    )


class RunReading:
    """The timelines and the breakdown of one run, each made at most once.

    :param bundle: What the run left.
    :raise BundleError: When the bundle's scenario is damaged, or newer than
        this program.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.scenario = bundle.scenario
        #: The migrations: the names of their sources and destinations.
        self.legs = bundle.manifest.result.legs or (
            (str(Side.SOURCE), str(Side.DESTINATION)),
        )
        every = [
            (table, spec)
            for table, spec in enumerate(self.scenario.devices)
            for _ in range(spec.count)
        ]
        done = bundle.manifest.result.done
        self._present = self.scenario.present(done)
        starting = self.scenario.starting()
        plugged = [
            step.device
            for step in self.scenario.steps[:done]
            if isinstance(step, Plug)
        ]
        # The number, the table and its number of each that can migrate, in
        # the order of their plugging.
        self._devices = [
            (number, *every[number])
            for number in (*starting, *plugged)
            if every[number][1].flags
        ]
        self._timelines: dict[tuple[str, Side], Timeline] = {}

    @property
    def specs(self) -> tuple[model.Device, ...]:
        """Every device that can migrate, as the scenario describes it."""
        return tuple(spec for _, _, spec in self._devices)

    @property
    def staying(self) -> tuple[model.Device, ...]:
        """Those of them that are there in the end."""
        return tuple(
            spec
            for number, _, spec in self._devices
            if number in self._present
        )

    @cached_property
    def timelines(self) -> tuple[Timeline, Timeline]:
        """The source's and the destination's timeline of the last migration.

        Devices that a step of the scenario unplugs do not occur in them.
        """
        source, destination = self.legs[-1]
        return (
            self.without_unplugged(source, Side.SOURCE),
            self.without_unplugged(destination, Side.DESTINATION),
        )

    @cached_property
    def flows(self) -> tuple[Flow, ...]:
        """What had passed between the devices in the end, by ordered pair.

        The counters migrate with their devices, so these flows cover all
        migrations of the run.
        """
        leg = self.legs[-1]
        if completed(self.bundle.manifest.result, leg):
            return flows(self.timeline(leg[1], Side.DESTINATION))
        return flows(self.timeline(leg[0], Side.SOURCE))

    @cached_property
    def witnesses(self) -> tuple[tuple[str, Timeline], ...]:
        """Every QEMU of the run: its name and its timeline."""
        return tuple(
            (name, self.timeline(name, side_of(name)))
            for name in self.bundle.manifest.result.exit_states
        )

    @cached_property
    def breakdown(self) -> Breakdown:
        """The blackout of the last migration, taken apart.

        :raise UnevenError: When its parts do not add up to the blackout.
        """
        files = self.bundle.files
        if self.scenario.through_file(len(self.legs)):
            whole = Blackout(None, exact=False, note=FILE_NOTE)
            return Breakdown(
                whole,
                not_observable=(NotObservable("blackout", FILE_NOTE),),
                beside=Beside(
                    qmp_downtime_ms=(
                        self.bundle.manifest.result.qmp_downtime_ms
                    )
                ),
            )
        source, destination = self.timelines
        clock = self._clock(Side.DESTINATION)
        beside = Beside(
            qmp_downtime_ms=self.bundle.manifest.result.qmp_downtime_ms,
            stop_to_resume_ns=stop_to_resume_ns(
                files.get(transcript_file(Side.SOURCE), b""),
                files.get(transcript_file(Side.DESTINATION), b""),
                clock.offset_ns if clock else 0,
            ),
        )
        try:
            found = phases(source, destination, beside)
        except ValueError as err:
            raise UnevenError(self.bundle.path, str(err)) from err
        gap = guest_gap(source, destination, found.blackout)
        if isinstance(gap, NotObservable):
            return replace(found, not_observable=(*found.not_observable, gap))
        return replace(found, beside=replace(found.beside, guest_gap=gap))

    def timeline(self, name: str, side: Side) -> Timeline:
        """Return the timeline of a QEMU, with its devices' own logs.

        :param name: The name of its folder in the bundle.
        :param side: Its role in the migration in question.
        :raise TraceError: When a log is damaged.
        """
        known = self._timelines.get((name, side))
        if known is None:
            clock = self._clock(name)
            shift_ns = -clock.offset_ns if clock else 0
            if self._program(name).tells is Tells.EVENTS:
                known = self._of_events(name, side, shift_ns)
            else:
                log = trace_file(name)
                # A missing file counts as an empty log, which proves
                # nothing.
                data = self.bundle.files.get(log, b"")
                ahead_ns = self._ahead_ns(name)
                known = build_timeline(
                    TraceReader(io.BytesIO(data), log, shift_ns + ahead_ns),
                    side,
                )
            known = replace(
                known,
                logs=dict(self._logs(known, name, shift_ns)),
                console=self._console(name, shift_ns),
                bound_ns=clock.bound_ns if clock else 0,
            )
            self._timelines[name, side] = known
        return known

    def _program(self, name: str) -> ProgramInput:
        """Return the program of a QEMU, which is named after its side."""
        inputs = self.bundle.manifest.inputs
        if side_of(name) is Side.SOURCE:
            return inputs.source
        return inputs.destination

    def _of_events(self, name: str, side: Side, shift_ns: int) -> Timeline:
        """Return the timeline of a QEMU that has no trace."""
        prefix = "vfio"
        place = self.bundle.manifest.inputs.place
        if isinstance(place, SealedProvenance) and place.driver == "p2psim":
            prefix = side_of(name).prefix
        names = {
            f"vfio{number}": f"{prefix}{number}"
            for number, _, _ in self._devices
        }
        path = transcript_file(name)
        known = heard(self.bundle.files.get(path, b""))
        data = known.data if known else b""
        reader = EventReader(io.BytesIO(data), path, shift_ns, names)
        found = replace(
            build_events(reader, side), plugged=tuple(names.values())
        )
        if known is None:
            return found
        window = (known.start_ns + shift_ns, known.end_ns + shift_ns)
        return replace(found, heard_ns=window)

    def _ahead_ns(self, name: str) -> int:
        """Return how far the wall clock was ahead of the trace's.

        The backend ``simple`` has the time since the host's start.
        """
        path = clock_file(name)
        try:
            return int(self.bundle.files.get(path, b"0"))
        except ValueError as err:
            raise BundleError(
                f"{self.bundle.path}: {path} is damaged: {err}",
                "Make the run again.",
            ) from err

    def _clock(self, name: str) -> ClockOffset | None:
        """Return the offset of a QEMU's clock to that of the source's host.

        A QEMU is named after the side whose devices it had, and so after
        its host.
        """
        place = self.bundle.manifest.inputs.place
        away = side_of(name) is Side.DESTINATION
        return place.clock if isinstance(place, HostProvenance) and away else (
            None
        )

    def _logs(
        self, timeline: Timeline, name: str, shift_ns: int
    ) -> Iterator[tuple[str, DeviceLog]]:
        """Yield the devices' own logs of the time that a QEMU had them."""
        for device in timeline.devices:
            path = path_of_log(self.bundle, side_of(name), device)
            if path is None:
                continue
            data = io.BytesIO(self.bundle.files[path])
            log = read_device_log(data, path, shift_ns)
            for mark in timeline.marks_of(Kind.REALIZE, device=device):
                if mark.time_ns is not None:
                    log = log.opened_at(mark.time_ns)
            yield device, log

    def _console(self, name: str, shift_ns: int) -> ConsoleLog | None:
        """Return the log of a guest's console, if there is one."""
        path = console_file(name)
        if path not in self.bundle.files:
            return None
        data = io.BytesIO(self.bundle.files[path])
        return read_console(data, path, shift_ns)

    def without_unplugged(self, name: str, side: Side) -> Timeline:
        """Return a timeline without the devices that a step unplugs.

        Nothing is expected of these, so no rule may look for them.

        :param name: The name of the QEMU's folder in the bundle.
        :param side: Its role in the migration in question.
        """
        whole = self.timeline(name, side)
        gone = {
            device.name
            for device in self.named(whole)
            if device.number not in self._present
        }
        return replace(
            whole,
            plugged=tuple(x for x in whole.plugged if x not in gone),
            devices=tuple(x for x in whole.devices if x not in gone),
        )

    def named(self, timeline: Timeline) -> Iterator[NamedDevice]:
        """Yield the devices by the names that they have on one side.

        :param timeline: The timeline of that side.
        """
        for name, device in zip(
            timeline.plugged, self._devices, strict=False
        ):
            yield NamedDevice(name, *device)


def path_of_log(bundle: Bundle, side: Side, device: str) -> str | None:
    """Return the path of a device's own log.

    Hosts have the logs of each side in a folder of that side, since the
    devices of two hosts can have the same names.

    :param bundle: What the run left.
    :param side: The side that has the device.
    :param device: Its name in QEMU's trace.
    :return: None if there is no log.
    """
    paths = device_log_of(side, device), device_log(device)
    return next((x for x in paths if x in bundle.files), None)


def read_run(bundle: Bundle) -> RunReading:
    """Read the logs of a run.

    :param bundle: What the run left.
    :raise BundleError: When the bundle's scenario is damaged, or newer than
        this program.
    """
    return RunReading(bundle)
