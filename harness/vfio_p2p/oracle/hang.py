# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices, and their arcs, that a QEMU waited for at the time limit."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from vfio_p2p.oracle.model import EvidenceLine
from vfio_p2p.timeline import Timeline
from vfio_p2p.trace import printable
from vfio_p2p.trace.device import Call
from vfio_p2p.uapi import DeviceState


@dataclass(frozen=True, slots=True)
class Hang:
    """A device that did not reach the requested state.

    :param device: Its name.
    :param before: The state in which the arc begins; without a log of the
        device itself, the state before the request.  None if it is unknown.
    :param target: The state in which the arc ends.
    :param requested: The state that QEMU asked for.
    :param records: The lines that show it.
    """

    device: str
    before: DeviceState | None
    target: DeviceState
    requested: DeviceState
    records: tuple[EvidenceLine, ...]

    @property
    def arc(self) -> str:
        """The arc, as scenarios spell it."""
        return f"{_name(self.before)}>{self.target.name}"

    def __str__(self) -> str:
        said = f"{printable(self.device)} hung in {self.arc}"
        if self.requested is self.target:
            return said
        return f"{said}, on its way to {self.requested.name}"


def _name(state: DeviceState | None) -> str:
    return "unknown" if state is None else state.name


def hangs(side: Timeline) -> Iterator[Hang]:
    """Yield the devices of one side that did not answer a request.

    This is only right for a run whose time was up: a QEMU that dies leaves
    the same trace.

    :param side: The timeline of one side.
    """
    for device in side.devices:
        arcs = side.arcs_of(device)
        waiting = bool(arcs) and arcs[-1].reached is None
        log = side.logs.get(device)
        call = log.calls[-1] if log and log.calls else None
        if call is not None and (waiting or _broken_off(call)):
            requested = call.request.target
            if requested is None:
                continue
            before, target = call.request.before, requested
            if call.steps:
                before, target = call.steps[-1].before, call.steps[-1].target
            yield Hang(
                device,
                before,
                target,
                requested,
                (*(arcs[-1].records if waiting else ()), *call.entries),
            )
        elif waiting:
            last = arcs[-1]
            yield Hang(
                device,
                last.before,
                last.requested,
                last.requested,
                last.records,
            )


def _broken_off(call: Call) -> bool:
    """Return whether a request ended with its QEMU.

    No fault has this errno.
    """
    return call.result is None or call.result.ret == -errno.EINTR
