# SPDX-License-Identifier: GPL-2.0-or-later
"""What devices send to one another, and the rule about it.

A device's counters migrate with it.  So the counters that a QEMU leaves
behind cover all earlier migrations, too; the rule `checksum` checks that the
counters did migrate.
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
    """What one device sent to another, as counted when QEMU was gone.

    :param sender: The name of the sending device.
    :param receiver: The name of the receiving device.
    :param told: The counters of the sender.
    :param heard: The counters of the receiver; None if the receiver never
        heard of the sender.
    :param lost: The transactions that were lost while this QEMU had the
        sender.  A log holds at most the first 100 for all receivers.
    """

    sender: str
    receiver: str
    told: Peer
    heard: Peer | None
    lost: tuple[Lost, ...]

    @property
    def received(self) -> int:
        """The number of received transactions, repeated ones included."""
        return self.heard.received if self.heard else 0

    @property
    def doubled(self) -> int:
        """The number of transactions that were received again."""
        return self.heard.doubled if self.heard else 0

    @property
    def missed(self) -> int:
        """How many numbers were skipped by the receiver."""
        return self.heard.missed if self.heard else 0

    @property
    def conserved(self) -> bool:
        """Whether everything that was sent was received exactly once."""
        return self.told.sent == self.received and not (
            self.told.lost or self.doubled or self.missed
        )


@dataclass(frozen=True, slots=True)
class Traffic:
    """What all devices of a run sent to one another, from first to last.

    :param sent: The number of transactions sent.
    :param delivered: How many of them were received.
    :param lost: How many of them were never answered.
    :param doubled: How many were received again.
    """

    sent: int
    delivered: int
    lost: int
    doubled: int

    @classmethod
    def of(cls, flows: Iterable[Flow]) -> Traffic | None:
        """Return the sum of some flows; None if there are none.

        :param flows: The flows of one QEMU.
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
    """Return the flow of each ordered pair when a QEMU was gone.

    :param side: The timeline of that QEMU.
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
    """Return a device's last counters by the numbers of its peers."""
    return {x.peer: x for x in log.of(Peer) if x.when == "close"}


def _stopped(log: DeviceLog) -> bool:
    """Return whether the device's QEMU ended normally.

    If a QEMU was killed, or never came to run, much is lost.
    """
    ends = log.of(Close)
    return bool(ends) and ends[-1].state is DeviceState.STOP


def conservation(side: Timeline, criteria: Criteria) -> Iterator[Objection]:
    """Check that everything that was sent was received exactly once.

    :param side: The timeline of one side.
    :param criteria: What it is judged by.
    """
    # Devices without P2P cannot keep this promise, which is why they must
    # not migrate together.
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
