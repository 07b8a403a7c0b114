# SPDX-License-Identifier: GPL-2.0-or-later
"""From a bundle's traces to what the oracle says of them.

A run can have several migrations, or none; each is judged, and the two
QEMUs of a migration against one another.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from vfio_p2p.bundle.manifest import device_log, trace_file
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.oracle import RULES, Expectation, Finding, judge
from vfio_p2p.oracle.judge import apply
from vfio_p2p.oracle.model import Rule
from vfio_p2p.oracle.traffic import Flow, Traffic, flows
from vfio_p2p.scenario import model
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.step import Status
from vfio_p2p.timeline import Side, Timeline
from vfio_p2p.timeline import build as build_timeline
from vfio_p2p.trace import DeviceLog, Kind, TraceReader, read_device_log

SERIES_LENGTH = 6

_SEQUENCE = tuple(
    rule
    for rule in RULES
    if isinstance(rule, Rule) and rule.name == "sequence"
)


@dataclass(frozen=True)
class Judged:
    """What the oracle says of a run.

    :param findings: Rules broken.
    :param notes: Why nothing is known, if so.
    :param blackout_ns: Of the last migration, if there was one.
    :param traffic: What devices sent to one another over all migrations;
        None if they did not.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    blackout_ns: int | None
    traffic: Traffic | None


def completed(result: Result, leg: tuple[str, str]) -> bool:
    """Whether both QEMUs of a migration said that it was completed.

    :param result: The run.
    :param leg: One of its migrations.
    """
    return all(
        Status.COMPLETED in result.migration.get(name, ()) for name in leg
    )


def judge_bundle(
    bundle: Bundle,
    expected: model.Expectation,
    patches: int,
    *,
    whole: bool = True,
) -> Judged:
    """Judge every migration of a run, and a run without one.

    :param bundle: What the run left.
    :param expected: What should come of it.
    :param patches: How many of the series the tree has.
    :param whole: The run came to an end of its own; else both QEMUs are
        judged as far as they went.
    """
    result = bundle.manifest.result
    run = _read(bundle)
    due = partial(run.expectation, expected, patches)
    failed = not whole or result.outcome is model.Outcome.FAILED
    findings: list[Finding] = []
    notes: list[str] = []
    blackout_ns = None
    for leg in run.legs:
        migrates = whole and completed(result, leg)
        names = [
            name
            for name in (leg if migrates or failed else leg[:1])
            if name not in result.killed
        ]
        if leg[0] in names:
            judgement = judge(
                run.without_unplugged(leg[0], Side.SOURCE),
                run.without_unplugged(leg[1], Side.DESTINATION)
                if leg[1] in names
                else None,
                replace(due(leg), migrates=migrates, ends=not failed),
            )
            findings += judgement.findings
            notes += [f"{x.side}: {x.message}" for x in judgement.notes]
            if migrates and judgement.blackout:
                blackout_ns = judgement.blackout.duration_ns
        if whole:
            for name, side in zip(leg, Side, strict=True):
                if name not in names:
                    findings += _in_sequence(
                        run.timeline(name, side), due((name, name))
                    )
    return Judged(
        _unique(findings),
        tuple(dict.fromkeys(notes)),
        blackout_ns,
        Traffic.of(flows(run.last)),
    )


def timelines(bundle: Bundle) -> tuple[Timeline, Timeline]:
    """What the source and the destination of the last migration did.

    Devices that the scenario takes out first do not occur in them.

    :param bundle: What a run left.
    :raise BundleError: When its scenario is damaged or newer than we are.
    """
    run = _read(bundle)
    source, destination = run.legs[-1]
    return (
        run.without_unplugged(source, Side.SOURCE),
        run.without_unplugged(destination, Side.DESTINATION),
    )


# The verdict, the lanes and the downtime of a bundle are asked for one after
# another, and reading its logs is most of the work.
@lru_cache(maxsize=1)
def _read(bundle: Bundle) -> _Run:
    return _Run(bundle)


def last_flows(bundle: Bundle) -> tuple[Flow, ...]:
    """What had passed between devices in the end, for each ordered pair.

    Counters migrate, so that is over all migrations of the run.

    :param bundle: What it left.
    :raise BundleError: When its scenario is damaged or newer than we are.
    """
    return flows(_read(bundle).last)


def witnesses(bundle: Bundle) -> Iterator[tuple[str, Timeline]]:
    """Every QEMU of a run by its name, and what it did.

    :param bundle: What the run left.
    """
    run = _read(bundle)
    for name in bundle.manifest.result.exit_states:
        side = Side.SOURCE
        if name.startswith(Side.DESTINATION):
            side = Side.DESTINATION
        yield name, run.timeline(name, side)


def _in_sequence(
    timeline: Timeline, expect: Expectation
) -> Iterator[Finding]:
    """What is wrong with a QEMU that is not judged by all rules."""
    for rule in _SEQUENCE:
        for outcome in apply(rule, timeline, expect):
            if isinstance(outcome, Finding):
                yield outcome


def _unique(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Say once what two migrations of the same QEMU show."""
    found = {(x.rule, x.file, x.message): x for x in reversed([*findings])}
    return tuple(reversed(found.values()))


class _Run:
    """The QEMUs of a run, by name."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.legs = bundle.manifest.result.legs or (
            (str(Side.SOURCE), str(Side.DESTINATION)),
        )
        self._scenario = bundle.scenario
        self._unplugged = self._scenario.unplugged()
        # Number, table and spec of each that can migrate at all.
        self._devices = [
            (number, table, spec)
            for number, (table, spec) in enumerate(
                (table, spec)
                for table, spec in enumerate(self._scenario.devices)
                for _ in range(spec.count)
            )
            if spec.flags
        ]
        self._timelines: dict[tuple[str, Side], Timeline] = {}

    @property
    def last(self) -> Timeline:
        """Of the QEMU that has the VM in the end."""
        leg = self.legs[-1]
        if completed(self._bundle.manifest.result, leg):
            return self.timeline(leg[1], Side.DESTINATION)
        return self.timeline(leg[0], Side.SOURCE)

    def timeline(self, name: str, side: Side) -> Timeline:
        """Timeline of a QEMU."""
        known = self._timelines.get((name, side))
        if known is None:
            log = trace_file(name)
            # No file at all is an empty log, on which nothing holds.
            data = self._bundle.files.get(log, b"")
            known = build_timeline(TraceReader(io.BytesIO(data), log), side)
            known = replace(known, logs=dict(self._logs(known)))
            self._timelines[name, side] = known
        return known

    def _logs(self, timeline: Timeline) -> Iterator[tuple[str, DeviceLog]]:
        """What devices say themselves of the time that a QEMU had them."""
        for device in timeline.devices:
            path = device_log(device)
            if path not in self._bundle.files:
                continue
            log = read_device_log(io.BytesIO(self._bundle.files[path]), path)
            for mark in timeline.marks_of(Kind.REALIZE, device=device):
                if mark.time_ns is not None:
                    log = log.opened_at(mark.time_ns)
            yield device, log

    def _beats(self, name: str) -> bool:
        """Whether a guest ran in this QEMU that tells its devices so."""
        guest = self._scenario.guest
        if guest.program is not model.GuestProgram.HEARTBEAT:
            return False
        if self._bundle.manifest.result.guest.get(name) == "running":
            return True
        # A source says how it ended, stopped, and not how it began.
        return not guest.paused and any(name == leg[0] for leg in self.legs)

    def without_unplugged(self, name: str, side: Side) -> Timeline:
        """A timeline in which nothing is due of the devices taken out."""
        whole = self.timeline(name, side)
        gone = {
            device
            for device, number, _, _ in self._named(whole)
            if number in self._unplugged
        }
        return replace(
            whole,
            plugged=tuple(x for x in whole.plugged if x not in gone),
            devices=tuple(x for x in whole.devices if x not in gone),
        )

    def _named(
        self, timeline: Timeline
    ) -> Iterator[tuple[str, int, int, model.Device]]:
        """Devices by the names that they have on one side."""
        for name, device in zip(
            timeline.plugged, self._devices, strict=False
        ):
            yield name, *device

    def expectation(
        self,
        expected: model.Expectation,
        patches: int,
        leg: tuple[str, str],
    ) -> Expectation:
        """What the logs of a migration are measured against."""
        known = [
            device
            for name, side in zip(leg, Side, strict=True)
            for device in self._named(self.timeline(name, side))
        ]
        staying = [
            spec
            for number, _, spec in self._devices
            if number not in self._unplugged
        ]
        return replace(
            Expectation.of_patches(
                patches,
                len(staying),
                p2p=any(spec.has_p2p for _, _, spec in self._devices),
                migrates=False,
            ),
            # Linux's mtty keeps none.
            logs=self._bundle.manifest.inputs.testbed.driver == "p2psim",
            runs=not self._scenario.guest.paused,
            beats=frozenset(
                device
                for name, side in zip(leg, Side, strict=True)
                if self._beats(name)
                for device in self.timeline(name, side).plugged
            ),
            peers=frozenset(
                name
                for name, _, _, spec in known
                if spec.peers is not model.Peers.NONE
            ),
            deep=frozenset(
                name for name, _, _, spec in known if spec.root_port
            ),
            flags={name: spec.migration_flags for name, _, _, spec in known},
            sequences={
                device: sequence.requests
                for name, side in zip(leg, Side, strict=True)
                for device, _, table, _ in self._named(
                    self.timeline(name, side)
                )
                for sequence in self._sequences(expected, patches)
                if sequence.on == name and sequence.device in (None, table)
            },
        )

    def _sequences(
        self, expected: model.Expectation, patches: int
    ) -> Iterator[model.Sequence]:
        """Those that hold for this tree."""
        found = re.search(
            r"\d.*", self._bundle.manifest.inputs.qemu.version
        )
        # Half of the series has sequences that nobody wrote down.
        if found and patches in (0, SERIES_LENGTH):
            for sequence in expected.sequences:
                if sequence.holds_for(found[0]):
                    yield sequence
