# SPDX-License-Identifier: GPL-2.0-or-later
"""One run, as reports know it.

All texts are kept as QEMU or a device wrote them; a renderer escapes the
texts that it shows.  All times but `Run.zero_ns` and `LogLine.time_ns`
count from the run's `zero_ns`.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

import msgspec

from vfio_p2p.bundle.manifest import Inputs
from vfio_p2p.oracle.traffic import Traffic
from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.side import Side
from vfio_p2p.trace import printable

# A run takes seconds; a time that is further away is damage.
NearNs = Annotated[int, msgspec.Meta(ge=-(10**15), le=10**15)]
LengthNs = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all parts of a document."""


class LogLine(Value, frozen=True, kw_only=True):
    """A line of a log.

    `time_ns` is wall-clock time since 1970, in nanoseconds.
    """

    file: str
    line: int
    time_ns: int | None = None
    text: str

    def __str__(self) -> str:
        return printable(f"{self.file}:{self.line}: {self.text}")


class BrokenRule(Value, frozen=True, kw_only=True):
    """A rule that a run broke, with the lines that show it."""

    rule: str
    reason: str
    side: Side
    message: str
    devices: tuple[str, ...] = ()
    lines: tuple[LogLine, ...] = ()


class Stay(Value, frozen=True, kw_only=True):
    """A time that a device spent in one state."""

    start_ns: NearNs
    end_ns: NearNs
    state: str


class Move(Value, frozen=True, kw_only=True):
    """A device's way from the state `before` to the state `requested`.

    `reached` is the state in which it arrived; it is empty if no line of
    the log shows that.
    """

    start_ns: NearNs
    end_ns: NearNs
    before: str
    requested: str
    reached: str


class Lane(Value, frozen=True, kw_only=True):
    """The life of one device on one side."""

    side: Side
    device: str
    states: tuple[Stay, ...] = ()
    arcs: tuple[Move, ...] = ()


class Mark(Value, frozen=True, kw_only=True):
    """A moment of a run.

    `kind` is ``run state`` for a change of the VM's run state, and
    ``migration`` for a change of the migration's status.
    """

    side: Side
    time_ns: NearNs
    kind: Literal["run state", "migration"]
    text: str


class DeviceCount(Value, frozen=True, kw_only=True):
    """A number of devices of one kind."""

    count: int
    kind: str


class BlackoutPart(Value, frozen=True, kw_only=True):
    """A phase of the blackout, as `vfio_p2p.downtime` defines them.

    `bound_ns` says how far its duration may be off because it began on one
    host and ended on another; it is null for all other phases.
    """

    name: str
    side: Side
    start_ns: NearNs
    end_ns: NearNs
    bound_ns: LengthNs | None = None

    @property
    def duration_ns(self) -> int:
        """The part of the blackout that this phase costs, nanoseconds."""
        return self.end_ns - self.start_ns


class PathPiece(Value, frozen=True, kw_only=True):
    """A piece of the critical path: the work that all else waited for.

    `device` and `activity` are empty where QEMU itself was busy, or where
    the logs do not tell.
    """

    phase: str
    side: Side
    start_ns: NearNs
    end_ns: NearNs
    device: str = ""
    activity: str = ""


class Unseen(Value, frozen=True, kw_only=True):
    """A figure that the logs cannot tell.

    `within` names the phase that contains its time, if there is one.
    """

    what: str
    why: str
    within: str = ""


class GuestAbsence(Value, frozen=True, kw_only=True):
    """How long the guest was absent, by its heartbeats.

    `duration_ns` is the time from the last heartbeat on the source to the
    first on the destination.  It consists of `rest_ns` (until QEMU began to
    stop the VM), `pause_ns` (until the run state changed),
    `stop_request_ns` (until the blackout began), the blackout, and
    `after_ns`.  `period_ns` is the usual time between two heartbeats;
    `longest_ns` is the longest time between any two, which exceeds
    `duration_ns` if the guest stalled for longer elsewhere.  `bound_ns` says
    how far `duration_ns` may be off because it began on one host and ended on
    another; it is null with one clock.  `device` is ``console`` if the beats
    came to the guest's console.
    """

    device: str
    period_ns: LengthNs
    duration_ns: LengthNs
    rest_ns: LengthNs
    pause_ns: LengthNs
    stop_request_ns: LengthNs
    after_ns: LengthNs
    longest_ns: LengthNs
    bound_ns: LengthNs | None = None


class Loss(Value, frozen=True, kw_only=True):
    """A transaction that was lost.

    `sender_state` and `receiver_state` are the states of both devices;
    the latter is ``CLOSED`` if nobody had the receiver open.  `during` says
    which change of the VM's run state was under way.
    """

    side: Side
    time_ns: NearNs
    sender_state: str
    receiver_state: str
    during: str


class PairTraffic(Value, frozen=True, kw_only=True):
    """The transactions that one device sent to another.

    `sender` and `receiver` are the devices' numbers, which are the same on
    both sides.  `losses` may be fewer than `lost`: logs do not keep all.
    """

    sender: Count
    receiver: Count
    sent: Count
    lost: Count
    losses: tuple[Loss, ...] = ()


class Run(Value, frozen=True, kw_only=True):
    """One run.

    :param variant: The name of the tree under test, or of those of both
        sides, e.g. ``base to patched``; ``logs`` if the run is only known by
        its logs.
    :param scenario: The name of the scenario.
    :param seed: The seed; null if the run was not sealed.
    :param verdict: The verdict on the run.
    :param summary: How the run ended, in a few words.
    :param blackout_ns: The time from the source's first stop request to
        the last device running on the destination, in nanoseconds; null if
        there was no blackout, or if the logs do not tell.
    :param blackout_bound_ns: How far the blackout may be off, in nanoseconds,
        because it began on one host and ended on another; null if it was
        measured with one clock.
    :param qmp_downtime_ms: The downtime that QMP reports, which is another
        figure.
    :param bundle: The path of the run's bundle or logs; empty without one.
    :param digest: The bundle's digest; empty without a bundle.
    :param findings: The rules that the run broke.
    :param known: The rules that the run broke as its scenario expects.
    :param notes: The reasons why something is not known.
    :param latencies: The model that the latencies are taken from; empty if
        they are the scenario's own.
    :param traffic: The transactions between devices, over all migrations;
        null if the devices have no peers.
    :param tree: The set of runs that the run belongs to; see
        `Document.trees`.
    :param exact: Whether the run was sealed, so that the same inputs give
        the same figures.  Otherwise its figures were measured.
    :param qemu: The version string of QEMU, or of both sides' QEMUs.
    :param machine: The machine type that the scenario names; empty if it
        names none, so that each QEMU chooses.
    :param inputs: All that determined a sealed run; null if not known.
    :param devices: The devices that the run had.
    :param zero_ns: The wall-clock time from which all others count: that of
        the source's first stop request, or else of the first line.
    :param lanes: The life of each device.
    :param marks: The moments of the VM and of the migration.
    :param phases: The parts of the blackout, in order, without a gap.
    :param critical_path: What was waited for, from begin to end.
    :param not_observable: The figures that the logs cannot tell.
    :param stop_to_resume_ns: The time from the source's QMP event STOP to
        the destination's event RESUME, in nanoseconds.
    :param guest_gap: How long the guest was absent; null if unknown.
    :param pairs: The traffic of each ordered pair of devices, of the last
        migration.
    """

    variant: str
    scenario: str
    seed: int | None
    verdict: Verdict
    summary: str
    blackout_ns: LengthNs | None = None
    blackout_bound_ns: LengthNs | None = None
    qmp_downtime_ms: LengthNs | None = None
    bundle: str = ""
    digest: str = ""
    findings: tuple[BrokenRule, ...] = ()
    known: tuple[BrokenRule, ...] = ()
    notes: tuple[str, ...] = ()
    latencies: str = ""
    traffic: Traffic | None = None
    tree: str = ""
    exact: bool = True
    qemu: str = ""
    machine: str = ""
    inputs: Inputs | None = None
    devices: tuple[DeviceCount, ...] = ()
    zero_ns: int | None = None
    lanes: tuple[Lane, ...] = ()
    marks: tuple[Mark, ...] = ()
    phases: tuple[BlackoutPart, ...] = ()
    critical_path: tuple[PathPiece, ...] = ()
    not_observable: tuple[Unseen, ...] = ()
    stop_to_resume_ns: LengthNs | None = None
    guest_gap: GuestAbsence | None = None
    pairs: tuple[PairTraffic, ...] = ()

    @property
    def name(self) -> str:
        """A name that tells the run from others of its tree and scenario."""
        if self.seed is not None:
            return f"seed {self.seed}"
        return PurePath(self.bundle).name or "no seed"


class SharedInputs:
    """Lets many runs share what is equal in their inputs.

    That is most of what a run takes in memory.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, Any] = {}

    def of(self, run: Run) -> Run:
        """Return an equal run, which may share its inputs with others.

        :param run: The run.
        """
        if run.inputs is None:
            return run
        parts = {
            name: self._known.setdefault(msgspec.json.encode(part), part)
            for name in ("source", "destination", "place")
            for part in [getattr(run.inputs, name)]
        }
        inputs = msgspec.structs.replace(run.inputs, **parts)
        return msgspec.structs.replace(run, inputs=inputs)
