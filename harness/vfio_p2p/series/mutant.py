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
    :param base: Name of the base that it is for.
    :param path: The patch file.
    :param trips: The rule that must catch it; ``outcome`` if the
                  migration's outcome tells.
    :param scenarios: Where it must be caught, by name.
    :param waits_for: What has to come before it can be caught; empty if
                      it is caught now.
    """

    name: str
    base: str
    path: Path
    trips: str
    scenarios: tuple[str, ...]
    waits_for: str = ""


def load_mutants(folder: Path | None = None) -> tuple[Mutant, ...]:
    """All mutants, in the order of ``series.toml``.

    :param folder: The folder of patches; by default the project's own.
    :raise UsageError: When ``series.toml`` is damaged or newer than us.
    """
    folder = folder or patches_folder()
    data = read_series(folder)
    return tuple(
        Mutant(
            name=x.name,
            base=x.base,
            path=folder / data.mutants / f"{x.name}.patch",
            trips=x.trips,
            scenarios=tuple(x.scenarios),
            waits_for=x.waits_for,
        )
        for x in data.mutant
    )
