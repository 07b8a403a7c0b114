# SPDX-License-Identifier: GPL-2.0-or-later
"""The list that a shard leaves beside its bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vfio_p2p.errors import InputError
from vfio_p2p.foreign import NOT_JSON, read_file
from vfio_p2p.oracle.verdict import Verdict

#: The name of its file.
SHARD = "shard.json"

#: A request is not divided into more shards.
MOST = 10_000

_FORMAT = 1
_MAX_BYTES = 16 << 20
_EXPECTED = "Give the folders that 'vfio-p2p validate --shard' has left."


class Unmade(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a run that left no bundle.

    :param verdict: SKIP or ERROR: a run that passed has left a bundle.
    :param summary: The reason in a few words.
    :param notes: The whole reason.
    :param scenario: The digest of the scenario.
    :param not_built: A digest of the tree that could not be built, if that
        is the reason.
    :param log: The path of the log of that build.
    """

    verdict: Verdict
    summary: str
    notes: tuple[str, ...] = ()
    scenario: str
    not_built: str = ""
    log: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in (Verdict.SKIP, Verdict.ERROR):
            raise ValueError(f"{self.verdict}, although there is no bundle")


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `SHARD`.

    :param number: The number of the shard, from 1.
    :param count: How many there are.
    :param runs: The names of all runs of the shard.
    :param unmade: Those of them that left no bundle.
    """

    format: Annotated[int, Meta(ge=1, le=_FORMAT)] = _FORMAT
    kind: Literal["vfio-p2p shard"] = "vfio-p2p shard"
    number: Annotated[int, Meta(ge=1, le=MOST)]
    count: Annotated[int, Meta(ge=1, le=MOST)]
    runs: tuple[str, ...]
    unmade: dict[str, Unmade]

    def to_json(self) -> bytes:
        """Encode it."""
        data = msgspec.json.encode(self)
        return msgspec.json.format(data, indent=1) + b"\n"


def read_listing(folder: Path) -> Listing:
    """Read what a shard has listed.

    :param folder: The folder of its bundles.
    :raise InputError: When it is no shard's.
    """
    path = folder / SHARD
    try:
        return msgspec.json.decode(
            read_file(path, _MAX_BYTES), type=Listing
        )
    except OSError as err:
        raise InputError(
            f"{path}: {err.strerror or err}", _EXPECTED
        ) from err
    except NOT_JSON as err:
        raise InputError(
            f"{path} is not the list of a shard: {err}", _EXPECTED
        ) from err
