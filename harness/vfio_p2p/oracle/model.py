# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs are judged by, and what the oracle finds, as values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vfio_p2p.oracle.verdict import Verdict
from vfio_p2p.timeline import Blackout, Side, Timeline
from vfio_p2p.trace import LogEntry, Record, printable
from vfio_p2p.trace.formats import release_number
from vfio_p2p.uapi import ALL_FLAGS, DeviceState, MigrationFlags
from vfio_p2p.variant import release_of

JSON_VERSION = 1

# The first release of QEMU with the series.
SERIES = "8.2"

# A line of a trace, or of a device's own log.  The latter names its file.
EvidenceLine = Record | LogEntry


@dataclass(frozen=True, slots=True)
class Criteria:
    """What the logs are judged by.

    The default is what the whole series promises, for logs of unknown
    origin.  `of_patches` is for trees that are known.

    :param devices: The number of devices that can migrate; None takes the
        number that QEMU reported at their realization.
    :param p2p: True if the P2P states must be seen, False if they must not;
        with None there is nothing to judge unless they are seen.
    :param stop_in_cleanup: True if STOP_COPY is left in
        vfio_save_cleanup() (patch 1), False if it is left in
        vfio_save_complete_precopy(); with None the former holds if P2P
        states, and so the series, are seen.
    :param migrates: Whether a migration has to succeed.
    :param runs: Whether the source runs before it migrates.
    :param same_depth: Whether all devices are known to be equally deep in
        the qdev tree, so that the forward order is that of their
        realization.
    :param deep: The devices that are one level deeper than the others, if
        `same_depth` holds for the others.
    :param flags: What a device offers, by its name; all flags for a device
        that is not listed.
    :param logs: Whether every device keeps a log of its own, so that a
        missing log is missing evidence.  If False, such logs are used where
        they exist.
    :param beats: The devices that a guest's heartbeats have to reach.
    :param consoles: The sides at whose consoles a guest's heartbeats have to
        arrive.
    :param peers: The devices that send to others while they run.
    :param dma: The devices that write to the guest's memory while they run.
    :param ends: Whether the run, and so its logs, came to a regular end.
        The logs of a run that broke off are only searched for mistakes.
    :param sequences: All states that a device is to be asked for, by its
        side and its name, without requests for the state that it is in.  On
        two hosts, both sides can have devices of one name.
    :param ack: Whether the migration has the capability switchover-ack; None
        if only the traces tell.
    :param witness: Whether the VM has a virtio device that its guest leaves
        alone.
    :param release: The release of QEMU under judgement, e.g. ``10.0.13``;
        empty if only the traces tell.
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
    consoles: frozenset[Side] = frozenset()
    peers: frozenset[str] = frozenset()
    dma: frozenset[str] = frozenset()
    ends: bool = True
    sequences: Mapping[tuple[Side, str], tuple[DeviceState, ...]] = field(
        default_factory=dict
    )
    ack: bool | None = None
    witness: bool = False
    release: str = ""

    @classmethod
    def of_patches(
        cls,
        count: int,
        devices: int,
        *,
        p2p: bool = True,
        migrates: bool = True,
    ) -> Criteria:
        """Make the criteria for the base plus the first patches.

        :param count: How many patches of the series; 0 is the base.
        :param devices: The number of devices, all equally deep.
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
        """Return what a device offers.

        :param device: Its name.
        """
        return self.flags.get(device, ALL_FLAGS)

    def releases(
        self, side: Timeline
    ) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """Return the oldest and the newest release that a side can be.

        :param side: The timeline of one side.
        :return: Major and minor numbers; None if nothing tells.
        """
        if self.release:
            oldest = newest = release_number(self.release)
        elif side.summary.versions is not None:
            oldest, newest = map(release_number, side.summary.versions)
        else:
            return None
        if self.p2p:
            # Whatever the series is on top of, it counts as this release.
            least = release_number(SERIES)
            return max(oldest, least), max(newest, least)
        return oldest, newest


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule, with the lines that show it.

    :param rule: The name of the rule.
    :param reason: Why the rule matters, in one sentence.
    :param side: The side that broke it.
    :param message: What happened, with the names of the devices.
    :param devices: The devices concerned.
    :param file: The name of the trace log.
    :param records: The offending lines; a line of a device's own log names
        its file itself.
    """

    rule: str
    reason: str
    side: Side
    message: str
    devices: tuple[str, ...]
    file: str
    records: tuple[EvidenceLine, ...]

    def lines(self) -> list[str]:
        """Return the offending lines as ``file:line: text``, printable."""
        return _lines(self.file, self.records)

    def as_json(self) -> dict[str, Any]:
        """Return the finding as plain values, for `json.dumps`."""
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
    """A reason why a log cannot show that the rules hold.

    :param side: The side whose log it is.
    :param message: What is missing, and what would help.
    :param file: The name of the log.
    :param records: The lines that show the lack.
    """

    side: Side
    message: str
    file: str
    records: tuple[EvidenceLine, ...] = ()

    def lines(self) -> list[str]:
        """Return the lines as ``file:line: text``, printable."""
        return _lines(self.file, self.records)

    def as_json(self) -> dict[str, Any]:
        """Return the doubt as plain values, for `json.dumps`."""
        return {
            "side": str(self.side),
            "message": self.message,
            "lines": _json_lines(self.file, self.records),
        }


@dataclass(frozen=True, slots=True)
class Violation:
    """What a rule's check yields where the rule is broken.

    :param message: What happened, with the names of the devices.
    :param devices: The devices concerned.
    :param records: The offending lines.
    """

    message: str
    devices: tuple[str, ...]
    records: tuple[EvidenceLine, ...]


@dataclass(frozen=True, slots=True)
class Unclear:
    """What a rule's check yields where missing lines prevent a decision.

    :param message: What is missing.
    :param records: The lines that show the lack.
    """

    message: str
    records: tuple[EvidenceLine, ...] = ()


Objection = Violation | Unclear


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a rule says, without how it is checked.

    :param name: A short name, used in reports.
    :param reason: Why the rule matters, in one sentence.
    :param source: Where the promise is made.
    :param sides: The sides on which it is checked.
    :param since: The first release of QEMU that keeps the promise, or whose
        trace shows whether it is kept.  Logs of an older QEMU are not held
        to it.  A base with the series counts as `SERIES`.
    :param shown: The first release whose runs can show it to be broken; 8.1
        prints nothing of a request that failed.  Older logs are judged all
        the same.
    :param needs: The flags that a device must offer to be concerned.
    :param logs: Whether only the devices' own logs show if it is kept.
    :param requests: Whether only a trace, which tells of requests, shows if
        it is kept.
    :param witness: Whether only a VM with a witness shows it, see `Criteria`.
    :param dma: Whether only devices that write to the guest's memory show it.
    """

    name: str
    reason: str
    source: str
    sides: tuple[Side, ...] = tuple(Side)
    since: str = "8.1"
    shown: str = "8.1"
    needs: MigrationFlags = MigrationFlags.STOP_COPY
    logs: bool = False
    requests: bool = False
    witness: bool = False
    dma: bool = False

    def concerns(self, side: Timeline, criteria: Criteria) -> bool:
        """Return whether the promise is about what is on a side.

        :param side: The timeline of one side.
        :param criteria: What it is judged by.
        """
        if side.side not in self.sides:
            return False
        if self.requests and not side.summary.backend.requests:
            return False
        if self.witness and not criteria.witness:
            return False
        if self.dma and not criteria.dma:
            return False
        if self.since == SERIES:
            # What counts is the series: an old base can have it, and a
            # new tree can lack it.
            if criteria.p2p is False:
                return False
        else:
            releases = criteria.releases(side)
            if releases and releases[1] < release_number(self.since):
                return False
        return any(
            self.needs in criteria.flags_of(device) for device in side.devices
        )

    def can_be_shown_by(self, version: str) -> bool:
        """Return whether a run of a QEMU can show it to be broken.

        :param version: The version of the QEMU; if its release is not known,
            it can.
        """
        release = release_of(version)
        if release is None:
            return True
        # What the series promises holds wherever the series is.
        kept = self.since == SERIES or release >= release_number(self.since)
        return kept and release >= release_number(self.shown)

    def surely_concerns(self, side: Timeline, criteria: Criteria) -> bool:
        """Return whether no QEMU older than the promise can be on a side.

        :param side: The timeline of one side, which `concerns` the rule.
        :param criteria: What it is judged by.
        """
        releases = criteria.releases(side)
        return (
            self.since == SERIES
            or releases is None
            or releases[0] >= release_number(self.since)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Promise):
    """A promise that the logs of one side can show to be broken.

    :param check: Yields every objection to the promise.
    """

    check: Callable[[Timeline, Criteria], Iterator[Objection]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRule(Promise):
    """A promise about both sides; its findings are the destination's.

    :param check: Yields every objection to the promise, from the timelines
        of the source and of the destination.
    """

    check: Callable[[Timeline, Timeline, Criteria], Iterator[Objection]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one migration.

    :param verdict: FAIL if there is a finding, else INCONCLUSIVE if there is
        a note, else PASS.
    :param findings: The rules that were broken.
    :param notes: Why the logs cannot show that the rules hold.
    :param blackout: The blackout; None without a destination.
    :param unseen: The names of the rules that only devices' own logs could
        show to be broken, if there are no such logs.
    :param untraced: The names of the rules that only a trace could show to
        be broken, if a side has none.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    notes: tuple[Doubt, ...]
    blackout: Blackout | None
    unseen: tuple[str, ...] = ()
    untraced: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the judgement as plain values, for `json.dumps`."""
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
            "untraced": list(self.untraced),
        }


def _lines(file: str, records: tuple[EvidenceLine, ...]) -> list[str]:
    return [
        f"{_file(file, record)}:{record.line}: {printable(record.text)}"
        for record in records
    ]


def _json_lines(
    file: str, records: tuple[EvidenceLine, ...]
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


def _file(trace: str, record: EvidenceLine) -> str:
    return printable(record.file if isinstance(record, LogEntry) else trace)
