# SPDX-License-Identifier: GPL-2.0-or-later
"""The format of ``series.toml``, which lists bases, mutants, follow-ups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from vfio_p2p import resources
from vfio_p2p.errors import UsageError
from vfio_p2p.foreign import NOT_JSON

FORMAT = 1

_Name = Annotated[str, msgspec.Meta(pattern=r"^[\w-]+$")]
FollowupDevices = Literal["simulated", "real"]


class BaseData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[base]]``, see `vfio_p2p.series.Base`."""

    name: str
    qemu: str
    folder: str | None = None
    binary: bool = False
    stock: bool = False


class MutantData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[mutant]]``, see `vfio_p2p.series.Mutant`."""

    name: _Name
    base: str
    trips: _Name
    scenarios: Annotated[list[_Name], msgspec.Meta(min_length=1)]
    waits_for: str = ""
    equivalent: str = ""
    also: list[str] = []
    trips_there: dict[str, _Name] = {}


class FollowupData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[followup]]``, see `vfio_p2p.series.Followup`."""

    name: _Name
    base: str
    fixes: Annotated[list[_Name], msgspec.Meta(min_length=1)]
    keeps: list[_Name] = []
    devices: FollowupDevices = "simulated"


class SeriesData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
    """Read the file ``series.toml`` of a folder of patches.

    :raise UsageError: When the file is damaged or has a newer format, or
                       when a mutant or follow-up names an unknown base or
                       has the name of another one.
    """
    path = folder / "series.toml"
    hint = "Install vfio-p2p again: the file is part of it."
    try:
        data = msgspec.toml.decode(path.read_bytes(), type=SeriesData)
    except (OSError, *NOT_JSON) as error:
        raise UsageError(f"{path}: {error}", hint) from error
    if data.format != FORMAT:
        raise UsageError(
            f"{path}: format {data.format} is unknown; this program reads "
            f"format {FORMAT}",
            hint,
        )
    bases = {x.name for x in data.base}
    # Mutants and follow-ups share a namespace: either can follow the "+" of
    # a variant's name.
    names: set[str] = set()
    patches: list[MutantData | FollowupData] = [*data.mutant, *data.followup]
    for x in patches:
        if x.name in names:
            raise UsageError(
                f"{path}: two patches are named {x.name!r}", hint
            )
        also = (
            [*x.also, *x.trips_there] if isinstance(x, MutantData) else []
        )
        for base in (x.base, *also):
            if base not in bases:
                raise UsageError(
                    f"{path}: {x.name!r} is for the unknown base {base!r}",
                    hint,
                )
        names.add(x.name)
    return data
