# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants: patches that break one thing on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.series.data import patches_folder, read_series


@dataclass(frozen=True)
class Mutant:
    """A patch on top of the whole series that the suite must catch.

    :param name: E.g. ``one-pass``, as in ``patched+one-pass``.
    :param base: The name of the base that the mutant is for.
    :param path: The patch file.
    :param trips: The rule that must catch the mutant; ``outcome`` if the
                  outcome of the migration must.
    :param scenarios: The names of the scenarios in which it must be caught.
    :param waits_for: What is still missing before the mutant can be caught;
                      empty if it can be caught now.
    :param equivalent: Why nothing can tell the mutant from the tree without
                       it; empty if something can.  It has to survive then.
    """

    name: str
    base: str
    path: Path
    trips: str
    scenarios: tuple[str, ...]
    waits_for: str = ""
    equivalent: str = ""


def load_mutants(folder: Path | None = None) -> tuple[Mutant, ...]:
    """Return all mutants, in the order of ``series.toml``.

    One that is also for another base occurs once for each base.  Its patch
    for that base is in a folder of the base's name.

    :param folder: The folder of patches; by default the project's own.
    :raise UsageError: When ``series.toml`` is damaged, or has a newer
                       format.
    """
    folder = folder or patches_folder()
    data = read_series(folder)
    mutants = folder / data.mutants
    return tuple(
        Mutant(
            name=x.name,
            base=base,
            path=(mutants if base == x.base else mutants / base)
            / f"{x.name}.patch",
            trips=x.trips_there.get(base, x.trips),
            scenarios=tuple(x.scenarios),
            waits_for=x.waits_for,
            equivalent=x.equivalent,
        )
        for x in data.mutant
        for base in (x.base, *x.also)
    )
