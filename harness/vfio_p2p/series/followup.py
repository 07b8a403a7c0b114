# SPDX-License-Identifier: GPL-2.0-or-later
"""Follow-ups: patches on top of the series that mend what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.series.data import patches_folder, read_series


@dataclass(frozen=True)
class Followup:
    """A patch on top of the whole series that mends a defect of QEMU.

    :param name: E.g. ``patched+NAME``; scenarios say under this name, in
                 ``expect.followups``, what is due with it.
    :param base: Name of the base that it is for.
    :param path: The patch file.
    :param fixes: The scenarios that show the defect without it, and must
                  not with it, by name.
    :param keeps: Those that must pass with it all the same.
    """

    name: str
    base: str
    path: Path
    fixes: tuple[str, ...]
    keeps: tuple[str, ...] = ()


def load_followups(folder: Path | None = None) -> tuple[Followup, ...]:
    """All follow-ups, in the order of ``series.toml``.

    :param folder: The folder of patches; by default the project's own.
    :raise UsageError: When ``series.toml`` is damaged or newer than us.
    """
    folder = folder or patches_folder()
    data = read_series(folder)
    return tuple(
        Followup(
            name=x.name,
            base=x.base,
            path=folder / data.followups / f"{x.name}.patch",
            fixes=tuple(x.fixes),
            keeps=tuple(x.keeps),
        )
        for x in data.followup
    )
