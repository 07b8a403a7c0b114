# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of a request that many plans share."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from vfio_p2p.choice import SEALED, PlaceChoice, VmKernel
from vfio_p2p.devices import Driver
from vfio_p2p.errors import UsageError

SEED = 42
OUT = Path("out")

# QEMU's -seed is an unsigned long, and SQLite's integers are signed.
SEED_LIMIT = 1 << 63


@dataclass(frozen=True)
class Origin:
    """The choice of the QEMU source.

    :param base: The name of the base whose patches are used; None selects
        the one for the version of the source.
    :param source: A QEMU checkout or release tarball; None takes the tarball
        that Debian has.
    :param refresh: Look for a newer tarball in Debian even if one is cached.
    """

    base: str | None = None
    source: Path | None = None
    refresh: bool = False


def _cores() -> int:
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Setting:
    """The place and the parameters of runs, and the folder for their bundles.

    :param at: The name of the place, see `vfio_p2p.places.open_place`.
    :param hosts: The file that describes places of real devices; None is the
        usual one.
    :param driver: The kernel module whose devices QEMU is given.
    :param boot: Whether each run in the testbed boots a VM, rather than
        going on from a snapshot.
    :param kernel: The kernel of the testbed's VM; None takes for each
        scenario the first one that has what it needs.
    :param profile: The name or file of a latency profile that replaces the
        latencies of the scenarios; None keeps those.
    :param seed: The seed of the first run of each kind.
    :param seeds: The number of runs of each kind, with consecutive seeds.
    :param rerun: Repeat runs that are in the cache, and require the same
        bytes.
    :param jobs: The number of runs at a time.
    :param out: The folder for bundles and reports.
    :param history: A history file that keeps every result that passes; None
        keeps none.
    """

    at: str = SEALED
    hosts: Path | None = None
    driver: Driver = Driver.P2PSIM
    boot: bool = False
    kernel: VmKernel | None = None
    profile: str | None = None
    seed: int = SEED
    seeds: int = 1
    rerun: bool = False
    jobs: int = field(default_factory=_cores)
    out: Path = OUT
    history: Path | None = None

    @property
    def where(self) -> PlaceChoice:
        """Where the runs are made."""
        return PlaceChoice(
            self.at, self.driver, self.hosts, self.boot, self.kernel
        )

    @property
    def every_seed(self) -> range:
        """All seeds."""
        return range(self.seed, self.seed + self.seeds)

    def check(self) -> None:
        """See that the numbers make sense.

        :raise UsageError: When they do not.
        """
        if self.seed < 0 or self.seeds < 1 or self.jobs < 1:
            raise UsageError(
                f"seed {self.seed}, {self.seeds} seeds, {self.jobs} jobs",
                "Give a seed from 0, and at least one seed and one job.",
            )
        if self.every_seed.stop > SEED_LIMIT:
            raise UsageError(
                f"--seed {self.seed} --seeds {self.seeds}: the last seed is "
                "too large",
                f"The largest seed is {SEED_LIMIT - 1}.",
            )
