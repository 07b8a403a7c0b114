# SPDX-License-Identifier: GPL-2.0-or-later
"""How a run ended, against how its scenario says that it should."""

from __future__ import annotations

import io
from collections.abc import Iterator

from vfio_p2p.bundle.manifest import RESULT, device_log
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.oracle import Finding
from vfio_p2p.oracle.hang import Hang, hangs
from vfio_p2p.scenario.model import Expectation, Outcome
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.step import Status
from vfio_p2p.timeline import Side
from vfio_p2p.trace import printable, read_device_log
from vfio_p2p.trace.device import Close
from vfio_p2p.verdict.migrations import witnesses

OUTCOME = "outcome"
_REASON = (
    "a series must let migrate what it promises, and refuse what it cannot"
)


def broken(side: Side, message: str) -> Finding:
    """A run that did not end as it should.

    :param side: Where.
    :param message: What is wrong.
    """
    return Finding(
        rule=OUTCOME,
        reason=_REASON,
        side=side,
        message=printable(message),
        devices=(),
        file=RESULT,
        records=(),
    )


def side_of(name: str) -> Side:
    """Which of the two a QEMU was at first.

    :param name: That of its folder.
    """
    if name.startswith(Side.DESTINATION):
        return Side.DESTINATION
    return Side.SOURCE


def stuck(bundle: Bundle) -> str:
    """What hung when the time was up, by QEMU; empty if nothing shows.

    :param bundle: What the run left.
    """
    found = [(name, str(hang)) for name, hang in _hanging(bundle)]
    told = [name for name, _ in found]
    found += [
        (name, "QEMU does not answer")
        for name in bundle.manifest.result.mute
        if name not in told
    ]
    return "; ".join(f"{name}: {why}" for name, why in found)


def _hanging(bundle: Bundle) -> Iterator[tuple[str, Hang]]:
    for name, timeline in witnesses(bundle):
        for hang in hangs(timeline):
            yield name, hang


def wrong_ends(bundle: Bundle, expected: Expectation) -> Iterator[Finding]:
    """In what state guests, migrations and devices should be, and are not.

    :param bundle: What the run left.
    :param expected: What should come of it.
    """
    result = bundle.manifest.result
    for name, wanted in expected.guest.items():
        said = result.guest.get(name, "nothing")
        if said != wanted:
            yield broken(
                side_of(name), f"{name}: the guest is {said}, not {wanted}"
            )
    yield from _migrations(result, expected)
    for device, state in expected.ends.items():
        left = _left_in(bundle, device)
        if left != state:
            yield broken(
                _side_with(bundle, device),
                f"{device} was left in {left}, not in {state}",
            )
    # What is late for another reason waits for no device.
    if expected.hangs or expected.outcome is Outcome.TIMEOUT:
        yield from _hangs(bundle, expected)


def _migrations(
    result: Result, expected: Expectation
) -> Iterator[Finding]:
    for name, status in expected.migration.items():
        told = result.migration.get(name) or ("nothing",)
        if told[-1] != status:
            yield broken(
                side_of(name),
                f"{name}: the migration is {told[-1]}, not {status}",
            )
        elif status is not Status.COMPLETED and Status.COMPLETED in told:
            yield broken(
                side_of(name), f"{name}: the migration was called completed"
            )


def _hangs(bundle: Bundle, expected: Expectation) -> Iterator[Finding]:
    found = [(name, hang.device, hang.arc) for name, hang in _hanging(bundle)]
    for name, device, arc in found:
        if expected.hangs.get(device) != arc:
            yield broken(side_of(name), f"{device} hung in {arc}")
    for device, arc in expected.hangs.items():
        if (device, arc) not in [x[1:] for x in found]:
            yield broken(
                _side_with(bundle, device), f"{device} did not hang in {arc}"
            )


def _left_in(bundle: Bundle, device: str) -> str:
    """The state that a device says it was left in, by its last user."""
    path = device_log(device)
    data = bundle.files.get(path)
    if data is None:
        return "no known state"
    closed = read_device_log(io.BytesIO(data), path).of(Close)
    return closed[-1].state.name if closed else "no known state"


def _side_with(bundle: Bundle, device: str) -> Side:
    """The side whose trace knows a device."""
    for name, timeline in witnesses(bundle):
        if device in timeline.devices:
            return side_of(name)
    return Side.SOURCE
