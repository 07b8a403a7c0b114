# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule about the capability switchover-ack."""

from __future__ import annotations

from collections.abc import Iterator

from vfio_p2p.oracle.evidence import partners
from vfio_p2p.oracle.model import Criteria, Objection, Unclear, Violation
from vfio_p2p.timeline import Timeline, TracedArc
from vfio_p2p.trace import Record, printable
from vfio_p2p.uapi import DeviceState, MigrationFlags

# VFIO_MIG_FLAG_DEV_INIT_DATA_SENT (hw/vfio/migration.c): the source sends it
# behind a device's initial data, and only with the capability.
_INITIAL_SENT = 0xFFFFFFFFEF100005
# The run state in which QEMU stops a VM that it has migrated.
_SWITCHOVER = "finish-migrate"


def switchover_ack(
    source: Timeline, destination: Timeline, criteria: Criteria
) -> Iterator[Objection]:
    """Check that no device is stopped before all have their initial data.

    A VM that does not run is not waited for (migration_can_switchover()).
    New initial data, which QEMU 11.1 asks for an acknowledgement of again,
    count like the first.

    :param source: The timeline of the source.
    :param destination: The timeline of the destination.
    :param criteria: What they are judged by.
    """
    loaded = [
        x
        for x in destination.others
        if x.event == "vfio_load_state"
        and x.fields.get("flag") == _INITIAL_SENT
    ]
    wanted = bool(loaded) if criteria.ack is None else criteria.ack
    if not wanted or not source.summary.backend.requests:
        return
    stop = _stop(source, destination)
    if stop is None:
        return
    for device, partner in partners(source, destination):
        if MigrationFlags.PRE_COPY not in criteria.flags_of(device):
            continue
        yield from _waited(
            source,
            destination,
            stop,
            _asked(source, device, stop),
            [x for x in loaded if x.device == partner],
            (device, partner),
        )


def _stop(source: Timeline, destination: Timeline) -> TracedArc | None:
    """Return the first request of the switchover to this destination.

    A source can have had several destinations, one after the other.
    """
    loading = [
        arc.records[0].time_ns
        for arc in destination.arcs
        if arc.requested is DeviceState.RESUMING
    ]
    if not loading:
        return None
    found = None
    stops = (
        step.arcs[0]
        for epoch in source.epochs
        if not epoch.running and epoch.reason == _SWITCHOVER
        for step in epoch.steps[:1]
        if step.arcs
    )
    begins = [x.begin for x in source.migrations]
    for stop in stops:
        begin = [x for x in begins if x.line < stop.line][-1:]
        later = [x for x in begins if x.line > stop.line][:1]
        if (
            begin
            and _in_order(begin[0].time_ns, loading[0], source)
            and not (
                later
                and not _in_order(loading[0], later[0].time_ns, source)
            )
        ):
            found = stop
    return found


def _in_order(
    first_ns: int | None, second_ns: int | None, side: Timeline
) -> bool:
    """Whether two times can be in this order; they can if one is missing."""
    if first_ns is None or second_ns is None:
        return True
    return first_ns <= second_ns + side.bound_ns


def _asked(
    source: Timeline, device: str, stop: TracedArc
) -> Record | None:
    """Return the last line in which a device asks for an acknowledgement.

    QEMU prints it from 11.1 on.
    """
    asked = [
        x
        for x in source.others
        if x.event == "vfio_state_pending"
        and x.device == device
        and x.fields.get("ack")
        and x.line < stop.line
    ]
    return asked[-1] if asked else None


def _waited(
    source: Timeline,
    destination: Timeline,
    stop: TracedArc,
    asked: Record | None,
    loaded: list[Record],
    pair: tuple[str, str],
) -> Iterator[Objection]:
    """Judge one device.

    :param source: The timeline of the source.
    :param destination: The timeline of the destination.
    :param stop: The first request of the switchover.
    :param asked: When the device last asked for an acknowledgement.
    :param loaded: When its initial data were loaded, each time.
    :param pair: Its names on both sides.
    """
    name = printable(pair[1])
    bound_ns = source.bound_ns + destination.bound_ns
    stop_ns = stop.records[0].time_ns
    asked_ns = asked.time_ns if asked else None
    times_ns = [x.time_ns for x in loaded]
    if stop_ns is None or None in times_ns:
        yield Unclear(
            "without times, nobody can say whether the initial data of "
            f"{name} were loaded before the switchover",
            tuple(loaded[-1:]),
        )
        return
    in_time = [
        x
        for x in times_ns
        if x is not None
        and x <= stop_ns + bound_ns
        and (asked_ns is None or x + bound_ns >= asked_ns)
    ]
    if in_time:
        return
    if destination.has_gap(pair[1]):
        yield Unclear(f"lines about {name} are missing", tuple(loaded[-1:]))
        return
    late = [x for x in loaded if x.time_ns and x.time_ns > stop_ns][:1]
    when = ", and they never were"
    if late and late[0].time_ns:
        when = f" {(late[0].time_ns - stop_ns) / 1e6:.3f} ms later"
    yield Violation(
        f"the source asked {printable(stop.device)} for "
        f"{stop.requested.name} (line {stop.line} of its log) before the "
        f"initial data of {name} were loaded{when}",
        pair,
        tuple(late),
    )
