# SPDX-License-Identifier: GPL-2.0-or-later
"""Follow-ups: patches on top of the series that fix remaining defects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.series.data import (
    FollowupDevices,
    patches_folder,
    read_series,
)


@dataclass(frozen=True)
class Followup:
    """A patch on top of the whole series that fixes a defect of QEMU.

    :param name: E.g. ``stopped-vm-stays-stopped``, as in
                 ``patched+stopped-vm-stays-stopped``.  Scenarios have their
                 expectations of such a tree under this name in
                 ``expect.followups``.
    :param base: The name of the base that the follow-up is for.
    :param path: The patch file.
    :param fixes: The names of the scenarios that show the defect without
                  the follow-up, and must not show it with the follow-up.
    :param keeps: The names of further scenarios that must pass with the
                  follow-up.
    :param devices: The devices that show the defect: simulated ones, which
                    the testbed has, or real ones.
    """

    name: str
    base: str
    path: Path
    fixes: tuple[str, ...]
    keeps: tuple[str, ...] = ()
    devices: FollowupDevices = "simulated"


def load_followups(folder: Path | None = None) -> tuple[Followup, ...]:
    """Return all follow-ups, in the order of ``series.toml``.

    :param folder: The folder of patches; by default the project's own.
    :raise UsageError: When ``series.toml`` is damaged, or has a newer
                       format.
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
            devices=x.devices,
        )
        for x in data.followup
    )
