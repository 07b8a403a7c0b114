# SPDX-License-Identifier: GPL-2.0-or-later
"""Latency profiles: how a driver's devices behave, and how long they take.

A profile is a model: p2psim sleeps where a card would work.  Hence, each
figure states its source, and reports say that the latencies are a model.
The files are images/p2psim/profiles/*.toml; docs/profiles.md compares them
with published measurements.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta

from vfio_p2p.scenario.device import WAYS, LoadIn, OnBadStream, ResetWay
from vfio_p2p.scenario.model import (
    Device,
    Flag,
    LatencyUs,
    Name,
    Scenario,
    check_arc,
    check_format,
)
from vfio_p2p.scenario.values import NsPerKib

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


class DataTime(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """How long a device's state takes.

    :param read_ns_per_kib: The time that 1024 bytes take while they are read.
    :param write_ns_per_kib: The time that 1024 bytes take while they are
        written.
    :param source: The source of these figures.
    """

    read_ns_per_kib: NsPerKib = 0
    write_ns_per_kib: NsPerKib = 0
    source: Annotated[str, Meta(min_length=1)]


class DriverWays(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """The driver that a profile stands for, and its ways.

    The other keys are those of [[devices]] of a scenario.

    :param name: The name of the driver.
    :param flags: The migration flags that it offers.
    :param load_in: Where it checks and takes over what is loaded.
    :param on_bad_stream: The state of a device that refuses its state.
    :param reset: What a reset does while a request is running.
    :param source: The source of these facts.
    """

    name: Annotated[str, Meta(min_length=1)]
    flags: tuple[Flag, ...] = tuple(Flag)
    load_in: LoadIn = LoadIn.RESUMING_STOP
    on_bad_stream: OnBadStream = OnBadStream.ERROR
    reset: ResetWay = ResetWay.WAIT
    source: Annotated[str, Meta(min_length=1)]


class Profile(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """One kind of device.

    Arcs that are not listed take no time.  Without a driver, the device has
    all migration flags and p2psim's own ways.

    :param format: The version of the format.
    :param name: The name of the profile.
    :param summary: What the profile models, in one line.
    :param driver: The driver whose devices the profile models, if it is one.
    :param data: The time that the state takes, if it takes any.
    :param arcs: The arcs that take time.
    """

    format: Annotated[int, Meta(ge=1)]
    name: Name
    summary: Annotated[str, Meta(min_length=1)]
    driver: DriverWays | None = None
    data: DataTime | None = None
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

    @property
    def flags(self) -> tuple[Flag, ...]:
        """The migration flags of the devices that the profile is for."""
        return self.driver.flags if self.driver else tuple(Flag)

    def of(self, device: Device) -> Device:
        """Return a device with these latencies and ways.

        :param device: The device; its own latencies and ways override the
            profile's.
        :raise ValueError: When the device does not have the profile's flags.
        """
        if set(device.flags) != set(self.flags):
            # Such a device takes other arcs, whose latencies are unknown.
            raise ValueError(
                f"the profile {self.name} is for devices with the flags "
                f"{', '.join(self.flags)}"
            )
        given = {
            name: value
            for part in (self.driver, self.data)
            if part is not None
            for name, value in msgspec.structs.asdict(part).items()
            if name in WAYS
        }
        own = [name for name in WAYS if getattr(device, name) is not UNSET]
        changed = ", ".join([*own, *device.latency_us])
        return msgspec.structs.replace(
            device,
            profile=f"{self.name}, but {changed}" if changed else self.name,
            latency_us=self.latency_us | device.latency_us,
            **{x: y for x, y in given.items() if x not in own},
        )

    def replace(self, scenario: Scenario) -> Scenario:
        """Return a scenario with these latencies in place of its own.

        :param scenario: The scenario.  The result has a name of its own.
        :raise ValueError: When a device does not have the profile's flags.
        """
        plain = dict.fromkeys(WAYS, UNSET)
        suffix = f"-{self.name}"
        return msgspec.structs.replace(
            scenario,
            # A name has at most 63 characters.
            name=f"{scenario.name[: 63 - len(suffix)]}{suffix}",
            devices=tuple(
                self.of(
                    msgspec.structs.replace(device, latency_us={}, **plain)
                )
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
