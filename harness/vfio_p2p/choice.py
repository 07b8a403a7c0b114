# SPDX-License-Identifier: GPL-2.0-or-later
"""Where jobs are to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.devices import Driver

SEALED = "sealed"


@dataclass(frozen=True)
class Where:
    """The choice of a place; see `vfio_p2p.places.open_place`.

    :param name: Its name: `SEALED`, or that of a place in hosts.toml.
    :param driver: The kernel module whose devices the jobs are to get.
    :param hosts: The path of hosts.toml; None is the usual one.
    :param boot: Whether each sealed run boots a VM, rather than going on
        from a snapshot.
    """

    name: str = SEALED
    driver: Driver = Driver.P2PSIM
    hosts: Path | None = None
    boot: bool = False
