# SPDX-License-Identifier: GPL-2.0-or-later
"""What is expected, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Blackout, Side, Timeline
from vfio_p2p.trace import Entry, Record, printable
from vfio_p2p.uapi import ALL_FLAGS, DeviceState, MigrationFlags

JSON_VERSION = 1

# The first release with the series.
SERIES = "8.2"

# A line of a trace, or of a device's own log, which names its file itself.
Line = Record | Entry


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the logs are measured against.

    The default is what the whole series promises, on logs of unknown
    origin.  `of_patches` is for trees that are known.

    :param devices: Number of devices that can migrate; None takes what
        QEMU reported at their realization.
    :param p2p: True: the P2P states must be seen; False: they must not;
        None: without them there is nothing to judge.
    :param stop_in_cleanup: Whether STOP_COPY is left in vfio_save_cleanup()
        (patch 1) or in vfio_save_complete_precopy(); None: in the former
        if there are P2P states, so that the series is there.
    :param migrates: Whether a migration has to succeed.
    :param runs: The source runs before it migrates.
    :param same_depth: All devices are known to be equally deep in the qdev
        tree, so that the forward order is that of their realization.
    :param deep: Devices one level deeper in it than the others, if
        `same_depth` holds for all but these.
    :param flags: What a device offers, by name; all flags if not listed.
    :param logs: Every device keeps a log of its own, and one that is missing
        is missing evidence; False: such logs are used if they are there.
    :param beats: Devices that a guest's heartbeats have to reach.
    :param peers: Devices that send to others while they run.
    :param ends: The run came to a regular end, and so must the logs; where
        it broke off they are searched for what is wrong, and no more.
    :param sequences: All states that a device is to be asked for, by name,
        less requests for the state that it is in.
    """

    devices: int | None = None
    p2p: bool | None = None
    stop_in_cleanup: bool | None = None
    migrates: bool = True
    runs: bool = True
    same_depth: bool = False
    deep: frozenset[str] = frozenset()
    flags: Mapping[str, MigrationFlags] = field(default_factory=dict)
    logs: bool = False
    beats: frozenset[str] = frozenset()
    peers: frozenset[str] = frozenset()
    ends: bool = True
    sequences: Mapping[str, tuple[DeviceState, ...]] = field(
        default_factory=dict
    )

    @classmethod
    def of_patches(
        cls,
        count: int,
        devices: int,
        *,
        p2p: bool = True,
        migrates: bool = True,
    ) -> Expectation:
        """What to expect of the base plus the first patches of the series.

        :param count: How many patches; 0 is the base.
        :param devices: Number of devices, all equally deep.
        :param p2p: Whether the devices offer P2P.
        :param migrates: Whether a migration has to succeed.
        """
        return cls(
            devices=devices,
            p2p=p2p and count >= 5,
            stop_in_cleanup=count >= 1,
            migrates=migrates,
            same_depth=True,
        )

    def flags_of(self, device: str) -> MigrationFlags:
        """What a device offers.

        :param device: Its name.
        """
        return self.flags.get(device, ALL_FLAGS)


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule broken, with the lines that show it.

    :param rule: Name of the rule.
    :param reason: Why it matters, one sentence.
    :param side: Where.
    :param message: What happened; names the devices.
    :param devices: The devices concerned.
    :param file: Name of the trace log.
    :param records: The offending lines; those of a device's own log name
        that themselves.
    """

    rule: str
    reason: str
    side: Side
    message: str
    devices: tuple[str, ...]
    file: str
    records: tuple[Line, ...]

    def lines(self) -> list[str]:
        """The offending lines as ``file:line: text``, fit to print."""
        return _lines(self.file, self.records)

    def as_json(self) -> dict[str, Any]:
        """Plain values for one finding."""
        return {
            "rule": self.rule,
            "reason": self.reason,
            "side": str(self.side),
            "message": self.message,
            "devices": list(self.devices),
            "lines": _json_lines(self.file, self.records),
        }


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a log cannot say that the rules hold.

    :param side: Whose log.
    :param message: What is missing, and what would help.
    :param file: Name of the log.
    :param records: Where that shows.
    """

    side: Side
    message: str
    file: str
    records: tuple[Line, ...] = ()

    def lines(self) -> list[str]:
        """The lines as ``file:line: text``, fit to print."""
        return _lines(self.file, self.records)

    def as_json(self) -> dict[str, Any]:
        """Plain values for one doubt."""
        return {
            "side": str(self.side),
            "message": self.message,
            "lines": _json_lines(self.file, self.records),
        }


@dataclass(frozen=True, slots=True)
class Broken:
    """What a rule's check yields when the rule is broken.

    :param message: What happened, with the devices' names.
    :param devices: The devices concerned.
    :param records: The offending lines.
    """

    message: str
    devices: tuple[str, ...]
    records: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Unclear:
    """What a rule's check yields when lines are missing to decide.

    :param message: What is missing.
    :param records: Where that shows.
    """

    message: str
    records: tuple[Line, ...] = ()


Outcome = Broken | Unclear


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a rule says.

    :param name: Short, used in reports.
    :param reason: Why it matters, one sentence.
    :param source: Where the promise is made.
    :param sides: On which sides it is checked.
    :param since: First of QEMU's versions that keeps it, or whose trace shows
        whether it does; a base with the series counts as 8.2.
    :param needs: It is about devices that offer all of these.
    :param logs: Only the devices' own logs show whether it holds.
    """

    name: str
    reason: str
    source: str
    sides: tuple[Side, ...] = tuple(Side)
    since: str = "8.1"
    needs: MigrationFlags = MigrationFlags.STOP_COPY
    logs: bool = False

    def concerns(self, side: Timeline, expect: Expectation) -> bool:
        """Whether it holds for what is on a side.

        :param side: The timeline.
        :param expect: What it is measured against.
        """
        if side.side not in self.sides:
            return False
        if self.since == SERIES and expect.p2p is False:
            return False
        return any(
            self.needs in expect.flags_of(device) for device in side.devices
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Promise):
    """A promise that the witnesses of one side can show to be broken.

    :param check: Yields what speaks against the promise.
    """

    check: Callable[[Timeline, Expectation], Iterator[Outcome]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRule(Promise):
    """A promise about both sides; it is broken on the destination's.

    :param check: Yields what speaks against the promise, from the source's
        and the destination's timeline.
    """

    check: Callable[[Timeline, Timeline, Expectation], Iterator[Outcome]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one migration.

    :param verdict: FAIL with any finding, else INCONCLUSIVE with any note,
        else PASS.
    :param findings: Rules broken.
    :param notes: Why the logs cannot say that the rules hold.
    :param blackout: None without a destination.
    :param unseen: Names of the rules that only devices' own logs could show
        to be broken, where there are none.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    notes: tuple[Doubt, ...]
    blackout: Blackout | None
    unseen: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `json.dumps`."""
        return {
            "format": JSON_VERSION,
            "verdict": str(self.verdict),
            "findings": [finding.as_json() for finding in self.findings],
            "notes": [note.as_json() for note in self.notes],
            "blackout": self.blackout
            and {
                "duration_ns": self.blackout.duration_ns,
                "exact": self.blackout.exact,
                "note": self.blackout.note,
            },
            "unseen": list(self.unseen),
        }


def _lines(file: str, records: tuple[Line, ...]) -> list[str]:
    return [
        f"{_file(file, record)}:{record.line}: {printable(record.text)}"
        for record in records
    ]


def _json_lines(
    file: str, records: tuple[Line, ...]
) -> list[dict[str, Any]]:
    return [
        {
            "file": _file(file, record),
            "line": record.line,
            "time_ns": record.time_ns,
            "text": printable(record.text),
        }
        for record in records
    ]


def _file(trace: str, record: Line) -> str:
    return printable(record.file if isinstance(record, Entry) else trace)
