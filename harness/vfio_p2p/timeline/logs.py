# SPDX-License-Identifier: GPL-2.0-or-later
"""The migrations in logs from anywhere.

A log can be of one QEMU or of several.  Each source is put together with the
destination that its devices went to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vfio_p2p.errors import TraceError
from vfio_p2p.side import Side
from vfio_p2p.timeline.build import MUTE, build_of, read_log
from vfio_p2p.timeline.model import Amounts, Timeline
from vfio_p2p.trace import (
    Record,
    Summary,
    TraceReader,
    is_events,
    printable,
)
from vfio_p2p.trace.processes import Writer, processes

# Events that are only counted, since there can be very many of them.
_COUNTED = frozenset(
    {
        "vfio_save_block",
        "vfio_state_pending_estimate",
        "vfio_state_pending_exact",
        "vfio_state_pending",
        "vfio_load_state_device_buffer_incoming",
        "vfio_load_state_device_buffer_load_end",
    }
)
_MUTE = MUTE - _COUNTED
_UNSURE = (
    "two QEMUs wrote this log, and its lines do not name a thread; whose a "
    "line is was told by its devices"
)

# Of all QEMUs that write one log.
_MOST_RECORDS = 200_000

_Key = tuple[int | None, str]


@dataclass(frozen=True)
class LoggedMigration:
    """One migration as logs show it.

    :param source: The timeline of the source.
    :param destination: The timeline of the destination, if there is one.
    """

    source: Timeline
    destination: Timeline | None

    @property
    def sides(self) -> tuple[Timeline, ...]:
        """The timelines, the source first."""
        if self.destination is None:
            return (self.source,)
        return self.source, self.destination


@dataclass(frozen=True)
class LoggedMigrations:
    """What logs show.

    :param migrations: The migrations, at least one.
    :param notes: What was left out, and what was told apart.
    """

    migrations: tuple[LoggedMigration, ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Log:
    """A log that was read.

    :param summary: What it is like as a whole.
    :param processes: The QEMUs that wrote it.
    :param amounts: The data that were counted, by thread and device.
    :param events: If it is a log of QMP events, its path.
    :param plugged: The devices that its QEMU was started with, if known.
    """

    summary: Summary
    processes: list[Writer]
    amounts: dict[_Key, Amounts] = field(default_factory=dict)
    events: Path | None = None
    plugged: tuple[str, ...] = ()

    def timeline(self, process: Writer | None, side: Side) -> Timeline:
        """Make the timeline of one of its QEMUs."""
        records = process.records if process else []
        if self.events is not None:
            return read_log(self.events, side)
        name = self.summary.name
        found = build_of(records, name, lambda: self.summary, side)
        several = process is not None and len(self.processes) > 1
        amounts: dict[str, Amounts] = {}
        for (thread, device), amount in self.amounts.items():
            if device in found.devices and not (
                several
                and process is not None
                and thread is not None
                and thread not in process.threads
            ):
                _add(amounts.setdefault(device, Amounts()), amount)
        unsure = "" if process is None or process.sure else _UNSURE
        found = replace(found, amounts=amounts, unsure=unsure)
        if found.plugged or several or not set(found.devices) <= {
            *self.plugged
        }:
            return found
        return replace(found, plugged=self.plugged)

    def of(self, side: Side) -> list[Writer]:
        """Return the QEMUs that were on a side; all if there is only one."""
        if len(self.processes) < 2:
            return self.processes
        return [x for x in self.processes if side in x.roles]


def read_migrations(
    source: Path,
    destination: Path | None = None,
    plugged: Mapping[Side, tuple[str, ...]] | None = None,
) -> LoggedMigrations:
    """Read the migrations of one or two logs.

    :param source: The log of the source, or of both sides.
    :param destination: The log of the destination, if it is another one.
    :param plugged: The devices that each side was started with, in order, for
        logs that begin later; empty where that is not known.
    :raise TraceError: When a log cannot be read, is no trace, or holds the
        lines of QEMUs that cannot be told apart.
    """
    first = _read(source)
    second = first if destination is None else _read(destination)
    if plugged is not None:
        second.plugged = plugged.get(Side.DESTINATION, ())
        first.plugged = plugged.get(Side.SOURCE, ())
    notes = [
        f"{printable(log.summary.name)}: {len(log.processes)} QEMUs wrote "
        f"this log ({_named(log.processes)})"
        for log in ([first] if second is first else [first, second])
        if len(log.processes) > 1
    ]
    savers = first.of(Side.SOURCE)
    loaders = second.of(Side.DESTINATION)
    if second is first:
        if len(first.processes) < 2:
            loaders = []
        loaders = [x for x in loaders if x not in savers]
    elif not savers:
        savers = first.processes[-1:]
    if second is not first and not loaders:
        loaders = second.processes[-1:]
    if not savers and loaders and second is first:
        # As the log of a destination alone always was.
        savers, loaders = loaders, []
    if not savers:
        alone = second is not first
        return LoggedMigrations(
            (
                LoggedMigration(
                    first.timeline(
                        first.processes[0] if first.processes else None,
                        Side.SOURCE,
                    ),
                    second.timeline(
                        loaders[0] if loaders else None, Side.DESTINATION
                    )
                    if alone
                    else None,
                ),
            ),
            tuple(notes),
        )
    pairs = list(_pairs(savers, loaders))
    if second is not first and len(pairs) > 1:
        # Two logs are of one migration; older ones have no counterpart.
        whole = [x for x in pairs if x[1] is not None]
        left = len(pairs) - len(whole[-1:])
        pairs = whole[-1:]
        notes.append(f"{left} more that have no counterpart are left out")
    elif second is not first and loaders and pairs[0][1] is None:
        pairs = [(pairs[0][0], loaders[-1])]
    return LoggedMigrations(
        tuple(
            LoggedMigration(
                first.timeline(saver, Side.SOURCE),
                second.timeline(loader, Side.DESTINATION)
                if loader is not None
                or (second is not first and not second.processes)
                else None,
            )
            for saver, loader in pairs
        ),
        tuple(notes),
    )


def saves(path: Path) -> bool:
    """Return whether a QEMU that saves devices wrote a log.

    :param path: The log.
    :raise TraceError: When it cannot be read, or is no trace.
    """
    return any(Side.SOURCE in x.roles for x in _read(path).processes)


def _named(found: Sequence[Writer]) -> str:
    return "; ".join(
        f"lines {x.records[0].line} to {x.records[-1].line}: "
        + (
            " and ".join(sorted(x.roles)) or "no migration"
        )
        for x in found
    )


def _pairs(
    savers: Sequence[Writer], loaders: Sequence[Writer]
) -> Iterator[tuple[Writer, Writer | None]]:
    """Yield each source with the destination that began at its time."""
    left = list(loaders)
    for saver in savers:
        begin = saver.begin(Side.SOURCE)
        partner = min(
            left,
            key=lambda x: _apart(begin, x.begin(Side.DESTINATION)),
            default=None,
        )
        if partner is not None:
            left.remove(partner)
        yield saver, partner


def _apart(first: Record, second: Record) -> int:
    if first.time_ns is None or second.time_ns is None:
        return abs(first.line - second.line)
    return abs(first.time_ns - second.time_ns)


def _read(path: Path) -> _Log:
    name = str(path)
    try:
        with path.open("rb") as stream:
            reader = TraceReader(stream, name)
            if is_events(stream.peek()):
                return _Log(reader.summary, [], events=path)
            amounts: dict[_Key, Amounts] = {}
            records = list(
                _limited(_counted(reader.without(_MUTE), amounts), name)
            )
    except OSError as err:
        raise TraceError(
            f"{printable(name)}: {err.strerror}",
            "Give a trace log that can be read.",
        ) from err
    return _Log(reader.summary, processes(records, name), amounts)


def _counted(
    records: Iterator[Record], amounts: dict[_Key, Amounts]
) -> Iterator[Record]:
    """Count the amounts of data, and yield the other records."""
    for record in records:
        event = record.event
        if event in _COUNTED or event.startswith("vfio_load_state"):
            key = record.thread, record.device
            _count(amounts.setdefault(key, Amounts()), record)
        # What the last query of QEMU 11.1 tells is part of a downtime, and
        # others ask for an acknowledgement.
        told = record.fields
        if event not in _COUNTED or told.get("final") or told.get("ack"):
            yield record


def _limited(records: Iterator[Record], name: str) -> Iterator[Record]:
    for count, record in enumerate(records):
        if count >= _MOST_RECORDS:
            raise TraceError(
                f"{printable(name)}: more than {_MOST_RECORDS} lines about "
                "VFIO states and times",
                "Give the log of one migration.",
            )
        yield record


def _count(amount: Amounts, record: Record) -> None:
    fields = record.fields
    match record.event:
        case "vfio_save_block":
            size_bytes = max(0, int(fields["n"]))
            amount.written_bytes += size_bytes
            amount.bytes_after += size_bytes
            amount.blocks += 1
            amount.blocks_after += 1
        case "vfio_load_state_device_data":
            amount.loads += 1
            if int(fields["ret"]) < 0:
                amount.refused = amount.refused or record
            else:
                amount.loaded_bytes += int(fields["n"])
        case "vfio_load_state":
            amount.announced += 1
        case event if event.startswith("vfio_load_state_device_buffer"):
            amount.buffers += 1
        case _ if "initial" in fields:
            # An estimate leaves out what the device was not asked for.
            if "stopcopy" in fields and fields.get("exact", 1):
                amount.pending_bytes = sum(
                    int(fields[x]) for x in ("stopcopy", "initial", "dirty")
                )
                amount.bytes_after = amount.blocks_after = 0
            left = int(fields["initial"])
            first = amount.initial_bytes[0] if amount.initial_bytes else left
            amount.initial_bytes = first, left


def _add(total: Amounts, more: Amounts) -> None:
    total.written_bytes += more.written_bytes
    total.blocks += more.blocks
    total.loaded_bytes += more.loaded_bytes
    total.loads += more.loads
    total.announced += more.announced
    total.buffers += more.buffers
    total.refused = total.refused or more.refused
    total.initial_bytes = total.initial_bytes or more.initial_bytes
    if more.pending_bytes is not None:
        total.pending_bytes = more.pending_bytes
        total.bytes_after = more.bytes_after
        total.blocks_after = more.blocks_after
    else:
        total.bytes_after += more.bytes_after
        total.blocks_after += more.blocks_after
