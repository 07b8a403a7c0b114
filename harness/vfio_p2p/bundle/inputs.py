# SPDX-License-Identifier: GPL-2.0-or-later
"""Compare the recorded inputs of a run with those of another run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from vfio_p2p.bundle.manifest import Inputs

# The other inputs explain where these came from.  If these are equal, the
# runs are equal.
_DETERMINE = (
    "source.sha256",
    "source.libraries",
    "destination.sha256",
    "destination.libraries",
    "scenario",
    "seed",
    "place.place",
    "place.image",
    "place.outer_sha256",
    "place.arguments",
    "place.snapshot",
    "place.driver",
)
NONE = "none"


@dataclass(frozen=True)
class Difference:
    """An input that has changed.

    :param name: Its place in the manifest's ``inputs``, with dots.
    :param recorded: The recorded value, in most cases a hash.
    :param present: The present value.
    """

    name: str
    recorded: str
    present: str

    @property
    def matters(self) -> bool:
        """Whether it can change the run; otherwise, it only explains."""
        return any(
            self.name == each or self.name.startswith(f"{each}.")
            for each in _DETERMINE
        )


def differences(
    recorded: Inputs | msgspec.Struct,
    present: Inputs | msgspec.Struct,
    within: str = "",
) -> list[Difference]:
    """List the inputs that differ, in the order of the manifest.

    :param recorded: The recorded inputs, or a part of them.
    :param present: The present inputs, or the same part of them.
    :param within: The name of that part.
    """
    was = dict(_flat(within, msgspec.to_builtins(recorded)))
    now = dict(_flat(within, msgspec.to_builtins(present)))
    return [
        Difference(name, was.get(name, NONE), now.get(name, NONE))
        for name in dict.fromkeys((*was, *now))
        if was.get(name) != now.get(name)
    ]


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    prefix = f"{name}." if name else ""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _flat(f"{prefix}{key}", each)
    elif isinstance(value, (list, tuple)):
        if all(isinstance(each, dict) for each in value):
            for each in value:
                yield f"{prefix}{each['name']}", each["sha256"]
        else:
            yield name, " ".join(map(str, value))
    elif value not in (None, ""):
        yield name, str(value)
