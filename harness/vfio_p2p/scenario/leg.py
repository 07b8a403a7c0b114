# SPDX-License-Identifier: GPL-2.0-or-later
"""One migration of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.machine.qemu import Qemu


@dataclass
class Leg:
    """One migration, and everything that is known about it.

    :param source: The QEMU that is migrated from.
    :param destination: The QEMU that is migrated to.
    :param told: The number of statuses that the source had reported before
        this migration.
    :param cleaned: The number of device cleanups that the source had
        reported before this migration.
    :param file: The file that it goes through, if it does not go through a
        socket.
    :param read: Whether the destination has begun to read that file.
    :param reason: Why the migration failed, in QEMU's words.
    :param downtime_ms: The downtime that QMP reports.
    :param total_time_ms: The total time that QMP reports.
    """

    source: Qemu
    destination: Qemu
    told: int
    cleaned: int
    file: Path | None = None
    read: bool = False
    reason: str = ""
    downtime_ms: int | None = None
    total_time_ms: int | None = None

    @property
    def statuses(self) -> list[str]:
        """The statuses of this migration that the source has reported."""
        return self.source.statuses[self.told :]

    @property
    def status(self) -> str:
        """The last of these statuses; empty before the first."""
        return next(reversed(self.statuses), "")
