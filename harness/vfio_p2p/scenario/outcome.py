# SPDX-License-Identifier: GPL-2.0-or-later
"""Classify how a run ended, without judging it."""

from __future__ import annotations

from vfio_p2p.machine.errors import (
    CommandError,
    ConnectionLostError,
    LaunchError,
    OutputLimitError,
    StepTimeoutError,
    VMError,
)
from vfio_p2p.scenario.course import Outcome
from vfio_p2p.scenario.leg import Leg
from vfio_p2p.scenario.result import Result
from vfio_p2p.scenario.session import Session
from vfio_p2p.scenario.step import Status


def result(
    session: Session,
    error: VMError | None,
    exit_states: dict[str, int | None],
) -> Result:
    """Make the result of a run.

    :param session: The run.
    :param error: The error that ended the run before its last step, if any.
    :param exit_states: The exit statuses by QEMU, as in `Result`.
    """
    outcome, side, message = _ending(session)
    at = ""
    if error is not None:
        outcome, side, at = _outcome(error), error.side, session.at
        message = error.what
    last = session.legs[-1] if session.legs else None
    return Result(
        outcome=outcome,
        side=side,
        at=at,
        done=session.done,
        step=getattr(error, "step", ""),
        # The JSON of QMP can hold half a surrogate pair; ours must not.
        message=_text(message),
        stderr=getattr(error, "message", ""),
        exit_states=exit_states,
        killed=tuple(session.killed),
        mute=tuple(session.mute),
        guest={name: _text(x) for name, x in session.guest.items()},
        migration={
            vm.side: tuple(map(_text, vm.statuses)) for vm in session.vms
        },
        legs=tuple(
            (leg.source.side, leg.destination.side) for leg in session.legs
        ),
        qmp_downtime_ms=last.downtime_ms if last else None,
        qmp_total_time_ms=last.total_time_ms if last else None,
    )


def _text(said: str) -> str:
    return said.encode(errors="backslashreplace").decode()


def _ending(session: Session) -> tuple[Outcome, str, str]:
    """Return outcome, side and message of a run that did all its steps."""
    if not session.legs:
        return Outcome.IDLE, "", ""
    leg = session.legs[-1]
    match leg.status:
        case Status.COMPLETED if _arrived(leg):
            return Outcome.MIGRATED, "", ""
        case Status.CANCELLED:
            return Outcome.CANCELLED, "", ""
        case Status.COMPLETED:
            name = leg.destination.side
            last = next(reversed(leg.destination.statuses), "not begun")
            return Outcome.FAILED, name, f"{name}: migration {last}"
    side = leg.source.side
    why = leg.reason or "no reason"
    if side in session.killed:
        why = "killed"
    return Outcome.FAILED, side, f"{side}: migration {leg.status}: {why}"


def _arrived(leg: Leg) -> bool:
    """Return whether the destination read the file, if there is one.

    Otherwise, nobody else than the source need be asked.
    """
    told = leg.destination.statuses
    return leg.file is None or Status.COMPLETED in told


def _outcome(err: VMError) -> Outcome:
    match err:
        case LaunchError():
            return Outcome.REFUSED
        case CommandError():
            return Outcome.REJECTED
        case StepTimeoutError():
            return Outcome.TIMEOUT
        case OutputLimitError():
            return Outcome.OUTPUT
        case ConnectionLostError(crashed=True):
            return Outcome.CRASHED
        case ConnectionLostError():
            return Outcome.LOST
    return Outcome.FAILED
