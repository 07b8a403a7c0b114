# SPDX-License-Identifier: GPL-2.0-or-later
"""The request of the modes of ``validate`` that choose their own runs."""

from __future__ import annotations

from dataclasses import dataclass

from vfio_p2p.devices import Driver
from vfio_p2p.errors import UsageError
from vfio_p2p.plans.setting import Origin, Setting


@dataclass(frozen=True)
class ModeRequest:
    """A source, and how its runs are made.

    :param origin: The source.
    :param setting: Where and how the runs are made.
    """

    origin: Origin = Origin()
    setting: Setting = Setting()


def check_fixed(mode: str, setting: Setting) -> None:
    """Refuse settings that would change what a mode judges, and how.

    :param mode: The option that selects the mode.
    :param setting: The setting that was asked for.
    :raise UsageError: When the mode does not take it.
    """
    setting.check()
    if setting.profile:
        raise UsageError(
            f"{mode} judges with latencies of its own",
            "Leave out --profile.",
        )
    if setting.seeds > 1:
        raise UsageError(
            f"{mode} judges with one seed",
            "Leave out --seeds, and choose the seed with --seed N.",
        )
    if setting.driver is not Driver.P2PSIM:
        raise UsageError(
            f"{mode} judges with p2psim",
            f"Judge single trees with --device {setting.driver}, as in "
            "--variant patched+MUTANT.",
        )
