# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule about what devices send to one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, permutations

from harness.oracle.model import Broken, Expectation, Outcome
from harness.timeline import Timeline
from harness.trace import DeviceLog, Entry, printable
from harness.trace.device import Close, Live, Lost, Open, Peer
from harness.uapi import DeviceState, MigrationFlags

_SHOWN_LOST = 4


@dataclass(frozen=True, slots=True)
class _Party:
    """A device among its peers, from when a QEMU opened it to its end.

    :param device: Its name.
    :param number: Its number among them.
    :param entries: Its log of that time.
    """

    device: str
    number: int
    entries: tuple[Entry, ...]

    @property
    def peers(self) -> dict[int, Peer]:
        """What it had counted at the end, by its peers' numbers."""
        return {
            entry.peer: entry
            for entry in self.entries
            if isinstance(entry, Peer) and entry.when == "close"
        }

    @property
    def stopped(self) -> bool:
        """Whether its QEMU ended as it should.

        Of one that was killed, or never came to run, much is lost.
        """
        ends = [entry for entry in self.entries if isinstance(entry, Close)]
        return bool(ends) and ends[-1].state is DeviceState.STOP


def conservation(side: Timeline, expect: Expectation) -> Iterator[Outcome]:
    """What was sent was received, all of it and once.

    :param side: The timeline.
    :param expect: What it is measured against.
    """
    lives = [
        _lives(device, side.logs[device])
        for device in side.devices
        # Others cannot keep it, and so must not migrate together.
        if expect.flags_of(device) & MigrationFlags.P2P
        and device in side.logs
    ]
    for group in zip(*filter(None, lives), strict=False):
        if not all(party.stopped for party in group):
            continue
        for sender, receiver in permutations(group, 2):
            counted = sender.peers.get(receiver.number)
            if counted is not None:
                yield from _between(sender, counted, receiver)


def _lives(device: str, log: DeviceLog) -> list[_Party]:
    """The times that it was open; nothing of a device without peers."""
    live = log.of(Live)
    number = live[-1].peer_id if live else None
    if number is None:
        return []
    begins = [i for i, x in enumerate(log.entries) if isinstance(x, Open)]
    return [
        _Party(device, number, log.entries[begin:end])
        for begin, end in pairwise([*begins, len(log.entries)])
    ]


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
        for entry in sender.entries
        if isinstance(entry, Lost) and entry.receiver == receiver.number
    ]
    yield Broken(
        f"{printable(sender.device)} sent {counted.sent} to "
        f"{printable(receiver.device)}, which received {received}: "
        f"{lost} lost, {doubled} doubled, {missed} missed",
        (sender.device, receiver.device),
        (counted, *([heard] if heard else []), *struck[:_SHOWN_LOST]),
    )
