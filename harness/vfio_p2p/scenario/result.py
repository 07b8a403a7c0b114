# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a run, as the bundle has it."""

from __future__ import annotations

import msgspec

from vfio_p2p.scenario.course import Outcome

FORMAT = 1


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How one run ended, as the runner saw it, without any judgement.

    QEMUs are named by their folders.

    :param outcome: How the run ended.
    :param side: The QEMU whose error ended the run; empty without an error.
    :param at: The step of the scenario in which the error occurred.
    :param done: The number of the scenario's steps that were done; None in
        older results, which count as whole.
    :param step: The part of that step that was cut short by a time limit.
    :param message: The message of the error.
    :param stderr: What QEMU printed when it refused to start.
    :param exit_states: The exit status of each QEMU, as in `subprocess`;
        None if it had to be killed, or has never run.
    :param killed: The QEMUs that a step killed.
    :param mute: The QEMUs that no longer answered when a time limit struck.
    :param guest: The last answer of each QEMU to ``query-status``.
    :param migration: All statuses of each QEMU's migrations.
    :param legs: The source and the destination of each migration.
    :param qmp_downtime_ms: QMP's own figure for the last migration, which is
        not the blackout.
    :param qmp_total_time_ms: QMP's own total time of the last migration.
    """

    format: int = FORMAT
    outcome: Outcome
    side: str = ""
    at: str = ""
    done: int | None = None
    step: str = ""
    message: str = ""
    stderr: str = ""
    exit_states: dict[str, int | None] = {}
    killed: tuple[str, ...] = ()
    mute: tuple[str, ...] = ()
    guest: dict[str, str] = {}
    migration: dict[str, tuple[str, ...]] = {}
    legs: tuple[tuple[str, str], ...] = ()
    qmp_downtime_ms: int | None = None
    qmp_total_time_ms: int | None = None

    def __post_init__(self) -> None:
        if self.format > FORMAT:
            raise ValueError(
                f"result format {self.format} is newer than this program, "
                f"which knows up to {FORMAT}"
            )

    def to_json(self) -> bytes:
        """One JSON document."""
        return msgspec.json.format(
            msgspec.json.encode(self, order="sorted"), indent=1
        )


def from_json(data: bytes) -> Result:
    """Decode a result, as `Result.to_json` encodes it.

    :raise msgspec.ValidationError: When it is not a result.
    """
    return msgspec.json.decode(data, type=Result)
