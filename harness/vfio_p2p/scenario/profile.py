# SPDX-License-Identifier: GPL-2.0-or-later
"""Latency profiles: how long each arc of a kind of device takes, as data.

A profile is a model: p2psim sleeps where a card would work.  Hence, each
figure states its source, and reports say that the latencies are a model.
The files are images/p2psim/profiles/*.toml; docs/profiles.md compares them
with published measurements.
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


class ArcLatency(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """How long one arc takes.

    :param arc: The arc, as ``FROM>TO`` with the uAPI's names.
    :param us: Its duration in microseconds.
    :param source: The source of that figure, or the word ``assumed``.
    """

    arc: str
    us: LatencyUs
    source: Annotated[str, Meta(min_length=1)]


class Profile(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """The latencies of one kind of device.

    Arcs that are not listed take no time.

    :param format: The version of the format.
    :param name: The name of the profile.
    :param summary: What the profile models, in one line.
    :param arcs: The arcs that take time.
    """

    format: Annotated[int, Meta(ge=1)]
    name: Name
    summary: Annotated[str, Meta(min_length=1)]
    arcs: tuple[ArcLatency, ...]

    def __post_init__(self) -> None:
        check_format(self.format)
        seen: set[str] = set()
        for each in self.arcs:
            check_arc("arcs", each.arc)
            if each.arc in seen:
                raise ValueError(f"arcs: {each.arc} is listed twice")
            seen.add(each.arc)

    @property
    def latency_us(self) -> dict[str, int]:
        """The duration of each arc in microseconds, by its name."""
        return {each.arc: each.us for each in self.arcs}

    def of(self, device: Device) -> Device:
        """Return a device with these latencies.

        :param device: The device; its own latencies override the profile's.
        :raise ValueError: When the device does not have all flags.
        """
        if set(device.flags) != set(Flag):
            # Such a device takes other arcs, whose latencies are unknown.
            raise ValueError("profiles are for devices with all flags")
        own = ", ".join(device.latency_us)
        return msgspec.structs.replace(
            device,
            profile=f"{self.name}, but {own}" if own else self.name,
            latency_us=self.latency_us | device.latency_us,
        )

    def replace(self, scenario: Scenario) -> Scenario:
        """Return a scenario with these latencies in place of its own.

        :param scenario: The scenario.  The result has a name of its own.
        :raise ValueError: When a device does not have all flags.
        """
        suffix = f"-{self.name}"
        return msgspec.structs.replace(
            scenario,
            # A name has at most 63 characters.
            name=f"{scenario.name[: 63 - len(suffix)]}{suffix}",
            devices=tuple(
                self.of(msgspec.structs.replace(device, latency_us={}))
                for device in scenario.devices
            ),
        )


def latencies(scenario: Scenario) -> str:
    """Return what reports say about latencies that come from a profile.

    :param scenario: The scenario as it was run.
    :return: E.g. ``profile cx7, a model``; empty if there is no profile.
    """
    found = dict.fromkeys(x.profile for x in scenario.devices if x.profile)
    return "; ".join(f"profile {name}, {MODEL}" for name in found)
