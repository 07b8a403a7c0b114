# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule about what devices send to one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

from harness.oracle.model import Broken, Expectation, Outcome
from harness.timeline import Timeline
from harness.trace import DeviceLog, printable
from harness.trace.device import Close, Live, Lost, Peer
from harness.uapi import DeviceState, MigrationFlags

_SHOWN_LOST = 4


@dataclass(frozen=True, slots=True)
class _Party:
    """A device among its peers.

    :param device: Its name.
    :param number: Its number among them.
    :param log: Its log.
    """

    device: str
    number: int
    log: DeviceLog

    @property
    def peers(self) -> dict[int, Peer]:
        """What it had counted at the end, by its peers' numbers."""
        return {x.peer: x for x in self.log.of(Peer) if x.when == "close"}

    @property
    def stopped(self) -> bool:
        """Whether its QEMU ended as it should.

        Of one that was killed, or never came to run, much is lost.
        """
        ends = self.log.of(Close)
        return bool(ends) and ends[-1].state is DeviceState.STOP


def conservation(side: Timeline, expect: Expectation) -> Iterator[Outcome]:
    """What was sent was received, all of it and once.

    :param side: The timeline.
    :param expect: What it is measured against.
    """
    group = [
        _Party(device, live.peer_id, side.logs[device])
        for device in side.devices
        # Others cannot keep it, and so must not migrate together.
        if expect.flags_of(device) & MigrationFlags.P2P
        and device in side.logs
        for live in side.logs[device].of(Live)[-1:]
        if live.peer_id is not None
    ]
    if not all(party.stopped for party in group):
        return
    for sender, receiver in permutations(group, 2):
        counted = sender.peers.get(receiver.number)
        if counted is not None:
            yield from _between(sender, counted, receiver)


def _between(
    sender: _Party, counted: Peer, receiver: _Party
) -> Iterator[Outcome]:
    """One direction of one pair."""
    heard = receiver.peers.get(sender.number)
    received = heard.received if heard else 0
    doubled = heard.doubled if heard else 0
    missed = heard.missed if heard else 0
    lost = counted.lost
    if counted.sent == received and not (lost or doubled or missed):
        return
    struck = [
        entry
        for entry in sender.log.of(Lost)
        if entry.receiver == receiver.number
    ]
    yield Broken(
        f"{printable(sender.device)} sent {counted.sent} to "
        f"{printable(receiver.device)}, which received {received}: "
        f"{lost} lost, {doubled} doubled, {missed} missed",
        (sender.device, receiver.device),
        (counted, *([heard] if heard else []), *struck[:_SHOWN_LOST]),
    )
