# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule about the heartbeats of a guest.

A guest sends them to its devices, which log them, or to its console, which
the harness reads.
"""

from __future__ import annotations

from collections.abc import Iterator

from vfio_p2p.oracle.model import Criteria, Objection, Unclear, Violation
from vfio_p2p.timeline import Timeline
from vfio_p2p.trace import continued, printable
from vfio_p2p.trace.device import Close, Heartbeat

# A guest's counter has the size of a register.
_MODULUS = 1 << 32


def heartbeat(
    source: Timeline, destination: Timeline, criteria: Criteria
) -> Iterator[Objection]:
    """Check that a guest beats while it runs, and continues its count.

    :param source: The timeline of the source.
    :param destination: The timeline of the destination.
    :param criteria: What they are judged by.
    """
    sides = (source, destination)
    yield from _consoles(source, destination, criteria)
    for pair in zip(source.plugged, destination.plugged, strict=False):
        before, after = (
            [*side.logs[device].of(Heartbeat)] if device in side.logs else []
            for side, device in zip(sides, pair, strict=True)
        )
        for side, device, beats in zip(
            sides, pair, (before, after), strict=True
        ):
            yield from _own(device, beats)
            # A run that broke off may have ended before the first beat.
            if criteria.ends and device in criteria.beats:
                yield from _any(side, device, beats)
        if before and after and before[-1].count and after[0].count:
            yield from _next(pair, before[-1], after[0])


def _own(device: str, heard: list[Heartbeat]) -> Iterator[Objection]:
    for beats in heard:
        wrong = {
            "missed": beats.missed,
            "repeated": beats.repeated,
            "untimely": beats.untimely,
        }
        if any(wrong.values()):
            counts = ", ".join(f"{n} {what}" for what, n in wrong.items())
            yield Violation(
                f"among its guest's heartbeats {printable(device)} had "
                f"{counts}",
                (device,),
                (beats,),
            )


def _any(
    side: Timeline, device: str, heard: list[Heartbeat]
) -> Iterator[Objection]:
    # Without a log there is no evidence, which is a doubt of its own.
    if device in side.logs and not any(beats.count for beats in heard):
        ends = side.logs[device].of(Close)[-1:]
        yield Violation(
            f"the guest of {printable(device)} runs, and the device had no "
            "heartbeat",
            (device,),
            (*heard, *ends),
        )


def _consoles(
    source: Timeline, destination: Timeline, criteria: Criteria
) -> Iterator[Objection]:
    heard: list[Heartbeat] = []
    for side in (source, destination):
        name = f"the console of the {side.side}"
        log = side.console
        if log is None:
            # A reader that fails leaves no run.
            if criteria.ends and side.side in criteria.consoles:
                yield Unclear(f"there is no log of {name}")
            continue
        if log.how == "lost":
            yield Unclear(
                f"QEMU lost {name}, so that later heartbeats are not known",
                (log.beats,),
            )
            continue
        beats = log.beats
        if side is destination and source.console is not None:
            beats = continued(source.console, log)
        yield from _own(name, [beats])
        if beats.count:
            heard.append(beats)
        elif criteria.ends and side.side in criteria.consoles:
            yield Violation(
                f"the guest runs, and {name} had no heartbeat",
                (),
                (beats,),
            )
    if len(heard) > 1:
        yield from _next(("the source", "the destination"), *heard)


def _next(
    pair: tuple[str, str], before: Heartbeat, after: Heartbeat
) -> Iterator[Objection]:
    if after.first != (before.last + 1) % _MODULUS:
        yield Violation(
            f"the guest's heartbeat {before.last} at {printable(pair[0])} was "
            f"followed by {after.first} at {printable(pair[1])}",
            pair,
            (before, after),
        )
