# SPDX-License-Identifier: GPL-2.0-or-later
"""Latency profiles: how long the arcs of a kind of device take, as data.

A profile is a model: p2psim sleeps where a card would work.  So each figure
says where it is from, and reports say that it is a model.  The files are
images/p2psim/profiles/*.toml; docs/profiles.md tells how near they come.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from vfio_p2p.scenario.model import (
    Device,
    Flag,
    LatencyUs,
    Name,
    Scenario,
    check_arc,
    check_format,
)

MODEL = "a model"


class Arc(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """What one arc takes.

    :param arc: The arc, as ``FROM>TO`` with the uAPI's names.
    :param us: What it takes, in microseconds.
    :param source: Where that is from, or the word ``assumed``.
    """

    arc: str
    us: LatencyUs
    source: Annotated[str, Meta(min_length=1)]


class Profile(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """One kind of device.  Arcs that are not listed take no time."""

    format: Annotated[int, Meta(ge=1)]
    name: Name
    summary: Annotated[str, Meta(min_length=1)]
    arcs: tuple[Arc, ...]

    def __post_init__(self) -> None:
        check_format(self.format)
        seen: set[str] = set()
        for each in self.arcs:
            check_arc("arcs", each.arc)
            if each.arc in seen:
                raise ValueError(f"arcs: {each.arc} is there twice")
            seen.add(each.arc)

    @property
    def latency_us(self) -> dict[str, int]:
        """What each arc takes, as `Device.latency_us`."""
        return {each.arc: each.us for each in self.arcs}

    def of(self, device: Device) -> Device:
        """A device with these latencies, but for those that it has itself.

        :raise ValueError: When it is not of the kind that profiles are of.
        """
        if set(device.flags) != set(Flag):
            # It would take other arcs, of which nothing is known.
            raise ValueError("it is of devices with all flags")
        own = ", ".join(device.latency_us)
        return msgspec.structs.replace(
            device,
            profile=f"{self.name}, but {own}" if own else self.name,
            latency_us=self.latency_us | device.latency_us,
        )

    def replace(self, scenario: Scenario) -> Scenario:
        """A scenario with these latencies in place of its own.

        That is another scenario, and has a name of its own.

        :raise ValueError: When one of its devices is not of the kind.
        """
        suffix = f"-{self.name}"
        return msgspec.structs.replace(
            scenario,
            # As long as a name may be.
            name=f"{scenario.name[: 63 - len(suffix)]}{suffix}",
            devices=tuple(
                self.of(msgspec.structs.replace(device, latency_us={}))
                for device in scenario.devices
            ),
        )


def latencies(scenario: Scenario) -> str:
    """What reports say of latencies that are from a profile.

    :param scenario: As it was run.
    :return: E.g. ``profile cx7, a model``; empty when there is none.
    """
    found = dict.fromkeys(x.profile for x in scenario.devices if x.profile)
    return "; ".join(f"profile {name}, {MODEL}" for name in found)
