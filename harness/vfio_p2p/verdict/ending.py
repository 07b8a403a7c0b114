# SPDX-License-Identifier: GPL-2.0-or-later
"""How a run ended, compared with how its scenario says it should end."""

from __future__ import annotations

import io
from collections.abc import Iterator

from vfio_p2p.bundle.manifest import RESULT
from vfio_p2p.bundle.read import Bundle
from vfio_p2p.oracle import Finding
from vfio_p2p.oracle.hang import Hang, hangs
from vfio_p2p.scenario.model import Expectation, Outcome
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.step import Status
from vfio_p2p.side import Side, side_of
from vfio_p2p.trace import printable, read_device_log
from vfio_p2p.trace.device import Close
from vfio_p2p.verdict.reading import RunReading, path_of_log

OUTCOME = "outcome"
# The step in which a QEMU is started.
_START = "start"
_REASON = (
    "A migration must succeed if the series supports it, and must be refused "
    "otherwise."
)


def wrong_end(side: Side, message: str) -> Finding:
    """Make the finding for a run that did not end as it should.

    :param side: The side that is concerned.
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


def stuck(run: RunReading) -> str:
    """Say what hung when the time was up, for each QEMU.

    :param run: The run.
    :return: Empty if no hang shows.
    """
    found = [(name, str(hang)) for name, hang in _hanging(run)]
    told = [name for name, _ in found]
    found += [
        (name, "QEMU does not answer")
        for name in run.bundle.manifest.result.mute
        if name not in told
    ]
    return "; ".join(f"{name}: {why}" for name, why in found)


def started_late(run: RunReading) -> bool:
    """Return whether a QEMU took too long to start, and no device of it hung.

    A machine with too much to do is the likely reason.

    :param run: The run.
    """
    result = run.bundle.manifest.result
    return (
        result.outcome is Outcome.TIMEOUT
        and result.step == _START
        and all(name != result.side for name, _ in _hanging(run))
    )


def _hanging(run: RunReading) -> Iterator[tuple[str, Hang]]:
    for name, timeline in run.witnesses:
        for hang in hangs(timeline):
            yield name, hang


def wrong_ends(run: RunReading, expected: Expectation) -> Iterator[Finding]:
    """Find guests, migrations and devices that ended in the wrong state.

    :param run: The run.
    :param expected: What the scenario expects of the run.
    """
    result = run.bundle.manifest.result
    for name, wanted in expected.guest.items():
        said = result.guest.get(name, "nothing")
        if said != wanted:
            yield wrong_end(
                side_of(name), f"{name}: the guest is {said}, not {wanted}"
            )
    yield from _migrations(result, expected)
    for device, state in expected.ends.items():
        side = _side_with(run, device)
        left = _left_in(run.bundle, side, device)
        if left != state:
            yield wrong_end(
                side,
                f"{device} was left in {left}, not in {state}",
            )
    # A run that is late for any other reason waits for no device.
    if expected.hangs or expected.outcome is Outcome.TIMEOUT:
        yield from _hangs(run, expected)


def _migrations(
    result: Result, expected: Expectation
) -> Iterator[Finding]:
    for name, status in expected.migration.items():
        told = result.migration.get(name) or ("nothing",)
        if told[-1] != status:
            yield wrong_end(
                side_of(name),
                f"{name}: the migration is {told[-1]}, not {status}",
            )
        elif status is not Status.COMPLETED and Status.COMPLETED in told:
            yield wrong_end(
                side_of(name), f"{name}: the migration was called completed"
            )


def _hangs(run: RunReading, expected: Expectation) -> Iterator[Finding]:
    found = [(name, hang.device, hang.arc) for name, hang in _hanging(run)]
    for name, device, arc in found:
        if expected.hangs.get(device) != arc:
            yield wrong_end(side_of(name), f"{device} hung in {arc}")
    for device, arc in expected.hangs.items():
        if (device, arc) not in [x[1:] for x in found]:
            yield wrong_end(
                _side_with(run, device), f"{device} did not hang in {arc}"
            )


def _left_in(bundle: Bundle, side: Side, device: str) -> str:
    """Return the state in which a device's log says its last user left it."""
    path = path_of_log(bundle, side, device)
    if path is None:
        return "no known state"
    data = io.BytesIO(bundle.files[path])
    closed = read_device_log(data, path).of(Close)
    return closed[-1].state.name if closed else "no known state"


def _side_with(run: RunReading, device: str) -> Side:
    """Return the side whose trace mentions a device."""
    for name, timeline in run.witnesses:
        if device in timeline.devices:
            return side_of(name)
    return Side.SOURCE
