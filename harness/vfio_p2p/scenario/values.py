# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of values that scenarios and other files of users have."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from vfio_p2p import uapi

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}\Z")]
Seconds = Annotated[float, Meta(gt=0, le=3600)]
Count = Annotated[int, Meta(ge=1, le=32)]
Bytes = Annotated[int, Meta(ge=0, le=64 << 20)]
Integer = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
LatencyUs = Annotated[int, Meta(ge=0, le=60_000_000)]
NsPerKib = Annotated[int, Meta(ge=0, le=1_000_000_000)]
# How often something happens before there are new initial data.
Occasion = Annotated[int, Meta(ge=0, le=1000)]
# They become a part of QEMU's -device, where "," begins another property.
PropertyName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]*\Z")]
PropertyValue = Annotated[str, Meta(pattern=r"^[\w.:/+-]+\Z")]
# The same for -machine and -global.
MachineName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][\w.-]{0,62}\Z")]
GlobalName = Annotated[str, Meta(pattern=r"^[\w-]+\.[\w-]+\Z")]


class Strict(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """The base of everything that is read from a scenario's file."""


def check_arc(key: str, arc: str) -> None:
    """Check that a text is an arc: ``FROM>TO`` with the uAPI's names.

    :param key: The key whose value the text is, for the message.
    :param arc: The text.
    :raise ValueError: When it is not an arc.
    """
    states = arc.split(">")
    if len(states) != 2 or not all(
        state in uapi.DeviceState.__members__ for state in states
    ):
        raise ValueError(
            f"{key}: {arc!r} is not an arc such as 'RUNNING>RUNNING_P2P'"
        )
