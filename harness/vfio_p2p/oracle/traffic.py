# SPDX-License-Identifier: GPL-2.0-or-later
"""What devices send to one another, and the rule about it.

A device's counters migrate with it, so those that a QEMU leaves behind are of
all the migrations before it, too; the rule `checksum` sees to it that they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations

from vfio_p2p.oracle.model import Criteria, Objection, Unclear, Violation
from vfio_p2p.timeline import Timeline
from vfio_p2p.trace import DeviceLog, printable
from vfio_p2p.trace.device import Close, Live, Lost, Peer
from vfio_p2p.uapi import DeviceState, MigrationFlags

_SHOWN_LOST = 4


@dataclass(frozen=True, slots=True)
class Flow:
    """What went from one device to another, counted when QEMU was gone.

    :param sender: Name of the device that sent.
    :param receiver: Name of the device that it sent to.
    :param told: What the sender had counted.
    :param heard: What the receiver had; None if it never heard of it.
    :param lost: What was lost while this QEMU had the sender, one by one; a
        log has no more than the first 100 of all receivers.
    """

    sender: str
    receiver: str
    told: Peer
    heard: Peer | None
    lost: tuple[Lost, ...]

    @property
    def received(self) -> int:
        """Transactions that arrived, those that came twice included."""
        return self.heard.received if self.heard else 0

    @property
    def doubled(self) -> int:
        """Transactions that came again."""
        return self.heard.doubled if self.heard else 0

    @property
    def missed(self) -> int:
        """Numbers that the receiver never saw, though later ones came."""
        return self.heard.missed if self.heard else 0

    @property
    def conserved(self) -> bool:
        """Whether all that was sent was received, and once."""
        return self.told.sent == self.received and not (
            self.told.lost or self.doubled or self.missed
        )


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed between all devices of a run, from first to last.

    :param sent: Transactions.
    :param delivered: Of these, that were received.
    :param lost: Of these, that nobody answered.
    :param doubled: Received again.
    """

    sent: int
    delivered: int
    lost: int
    doubled: int

    @classmethod
    def of(cls, flows: Iterable[Flow]) -> Traffic | None:
        """The sum; None of nothing.

        :param flows: Those of one QEMU.
        """
        each = tuple(flows)
        if not each:
            return None
        return cls(
            sent=sum(flow.told.sent for flow in each),
            delivered=sum(flow.received - flow.doubled for flow in each),
            lost=sum(flow.told.lost for flow in each),
            doubled=sum(flow.doubled for flow in each),
        )

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.sent + other.sent,
            self.delivered + other.delivered,
            self.lost + other.lost,
            self.doubled + other.doubled,
        )


def flows(side: Timeline) -> tuple[Flow, ...]:
    """What had passed when a QEMU was gone, for each ordered pair.

    :param side: Its timeline.
    """
    numbers = {
        device: live.peer_id
        for device in side.devices
        if device in side.logs
        for live in side.logs[device].of(Live)[-1:]
        if live.peer_id is not None
    }
    counted = {device: _at_close(side.logs[device]) for device in numbers}
    return tuple(
        Flow(
            sender,
            receiver,
            told,
            counted[receiver].get(numbers[sender]),
            tuple(
                entry
                for entry in side.logs[sender].of(Lost)
                if entry.receiver == numbers[receiver]
            ),
        )
        for sender, receiver in permutations(numbers, 2)
        if (told := counted[sender].get(numbers[receiver])) is not None
    )


def _at_close(log: DeviceLog) -> dict[int, Peer]:
    """What a device had counted at the end, by its peers' numbers."""
    return {x.peer: x for x in log.of(Peer) if x.when == "close"}


def _stopped(log: DeviceLog) -> bool:
    """Whether the device's QEMU ended as it should.

    Of one that was killed, or never came to run, much is lost.
    """
    ends = log.of(Close)
    return bool(ends) and ends[-1].state is DeviceState.STOP


def conservation(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """What was sent was received, all of it and once.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    # Others cannot keep it, and so must not migrate together.
    able = {
        device
        for device in side.devices
        if criteria.flags_of(device) & MigrationFlags.P2P
    }
    found = [x for x in flows(side) if {x.sender, x.receiver} <= able]
    taking_part = {x for flow in found for x in (flow.sender, flow.receiver)}
    due = criteria.peers & able & side.logs.keys()
    if not all(_stopped(side.logs[device]) for device in taking_part | due):
        return
    for device in sorted(due - {x.sender for x in found if x.told.sent}):
        yield Unclear(
            f"{printable(device)} has not counted what it sent to its peers"
        )
    for flow in found:
        if not flow.conserved:
            yield _broken(flow)


def _broken(flow: Flow) -> Violation:
    heard = [flow.heard] if flow.heard else []
    return Violation(
        f"{printable(flow.sender)} sent {flow.told.sent} to "
        f"{printable(flow.receiver)}, which received {flow.received}: "
        f"{flow.told.lost} lost, {flow.doubled} doubled, "
        f"{flow.missed} missed",
        (flow.sender, flow.receiver),
        (flow.told, *heard, *flow.lost[:_SHOWN_LOST]),
    )
