# SPDX-License-Identifier: GPL-2.0-or-later
"""What the runner found out, as it goes into the bundle."""

from __future__ import annotations

import msgspec

from harness.scenario.model import Outcome

FORMAT = 1


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How one run ended, as the runner saw it; no judgement.

    `side` and `message` say whose error ended it and which.  `step` names
    the step that was cut short.  `exit_states` are those of `subprocess`
    by side, None for a QEMU that had to be killed or never ran.
    `stderr` is what QEMU said when it refused to start.
    `qmp_downtime_ms` is QMP's own figure, which is not the blackout.
    """

    format: int = FORMAT
    outcome: Outcome
    side: str = ""
    step: str = ""
    message: str = ""
    stderr: str = ""
    exit_states: dict[str, int | None] = {}
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
