# SPDX-License-Identifier: GPL-2.0-or-later
"""``series.toml``: what it may say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from vfio_p2p import resources
from vfio_p2p.errors import UsageError

FORMAT = 1

_Name = Annotated[str, msgspec.Meta(pattern=r"^[\w-]+$")]


class BaseData(msgspec.Struct, forbid_unknown_fields=True):
    """One ``[[base]]``, see `vfio_p2p.series.Base`."""

    name: str
    qemu: str
    folder: str | None = None


class MutantData(msgspec.Struct, forbid_unknown_fields=True):
    """One ``[[mutant]]``, see `vfio_p2p.series.Mutant`."""

    name: _Name
    base: str
    trips: _Name
    scenarios: Annotated[list[_Name], msgspec.Meta(min_length=1)]
    waits_for: str = ""


class FollowupData(msgspec.Struct, forbid_unknown_fields=True):
    """One ``[[followup]]``, see `vfio_p2p.series.Followup`."""

    name: _Name
    base: str
    fixes: Annotated[list[_Name], msgspec.Meta(min_length=1)]
    keeps: list[_Name] = []


class SeriesData(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    format: int
    mutants: str
    base: list[BaseData]
    mutant: list[MutantData] = []
    followups: str = "followups"
    followup: list[FollowupData] = []


def patches_folder() -> Path:
    """The project's own folder of patches."""
    return resources.patches()


def read_series(folder: Path) -> SeriesData:
    """Read a folder's ``series.toml``.

    :raise UsageError: When it is damaged or newer than us, or has a mutant
                       or follow-up without a base or a name of its own.
    """
    path = folder / "series.toml"
    try:
        data = msgspec.toml.decode(path.read_bytes(), type=SeriesData)
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{path}: {error}") from error
    if data.format != FORMAT:
        raise UsageError(
            f"{path}: format {data.format}, this program reads {FORMAT}",
            "update the checkout and run 'make setup' again",
        )
    bases = {x.name for x in data.base}
    # One namespace: either is what follows the "+" of a variant.
    names: set[str] = set()
    patches: list[MutantData | FollowupData] = [*data.mutant, *data.followup]
    for x in patches:
        if x.name in names:
            raise UsageError(f"{path}: two patches are named {x.name!r}")
        if x.base not in bases:
            raise UsageError(
                f"{path}: {x.name!r} is for the unknown base {x.base!r}"
            )
        names.add(x.name)
    return data
