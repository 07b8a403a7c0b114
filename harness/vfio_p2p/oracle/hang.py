# SPDX-License-Identifier: GPL-2.0-or-later
"""Which device a QEMU waited for when its time was up, and in which arc."""

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
    """A device that did not come to where it was sent.

    :param device: Its name.
    :param before: Where the arc begins, or the request if no log of the
        device itself tells the arc; None if that is not known.
    :param target: Where that ends.
    :param requested: What QEMU asked for.
    :param records: The lines that show it.
    """

    device: str
    before: DeviceState | None
    target: DeviceState
    requested: DeviceState
    records: tuple[EvidenceLine, ...]

    @property
    def arc(self) -> str:
        """The arc, as scenarios have it."""
        return f"{_name(self.before)}>{self.target.name}"

    def __str__(self) -> str:
        said = f"{printable(self.device)} hung in {self.arc}"
        if self.requested is self.target:
            return said
        return f"{said}, on its way to {self.requested.name}"


def _name(state: DeviceState | None) -> str:
    return "unknown" if state is None else state.name


def hangs(side: Timeline) -> Iterator[Hang]:
    """The devices of one side that were asked for a state, with no answer.

    Only of a run whose time was up: a QEMU that dies leaves the same trace.

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
    """Whether the end of its QEMU ended it: no fault has this errno."""
    return call.result is None or call.result.ret == -errno.EINTR
