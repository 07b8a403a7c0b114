# SPDX-License-Identifier: GPL-2.0-or-later
"""What the runner found out, as it goes into the bundle."""

from __future__ import annotations

import msgspec

from vfio_p2p.scenario.course import Outcome

FORMAT = 1


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How one run ended, as the runner saw it; no judgement.

    `side` and `message` say whose error ended it and which, `at` in which
    step of the scenario, and `step` which of its parts was cut short.
    `exit_states` are those of `subprocess` by QEMU, None for one that had
    to be killed or never ran.  `killed` are those that a step killed, and
    `mute` those that did not answer any more when a time limit had struck.
    `guest` is what ``query-status`` said last, by QEMU, and `migration` all
    statuses that its migrations had.  `legs` are the migrations, each with
    the QEMU that it was from and the one that it was to; a QEMU's name is
    that of its folder.
    `stderr` is what QEMU said when it refused to start.
    `qmp_downtime_ms` is QMP's own figure for the last migration, which is
    not the blackout.
    """

    format: int = FORMAT
    outcome: Outcome
    side: str = ""
    at: str = ""
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
    """Inverse of `Result.to_json`.

    :raise msgspec.ValidationError: When it is not a result.
    """
    return msgspec.json.decode(data, type=Result)
