# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMUs that wrote one log.

On one host, both sides of a migration can write into one file, and libvirt
appends every start of a domain to its log.  The thread, or the process id that
somebody put before the line, tells one QEMU from another; so does what each
does: one saves, the other loads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vfio_p2p.errors import TraceError
from vfio_p2p.side import Side
from vfio_p2p.trace import words
from vfio_p2p.trace.formats import Kind
from vfio_p2p.trace.record import Record, printable

_SAVES = (
    "vfio_save_", "vfio_state_pending", "vfio_query_", "vmstate_downtime_save",
    "migration_completion_vm_stop", "vfio_migration_state_notifier",
    "vfio_send_init_data_flag", "source_return_path_", "migration_cleanup",
    "migrate_fd_cleanup", "migration_return_path_", "migration_bitmap_sync_",
)  # fmt: skip
_LOADS = ("vfio_load_", "vmstate_downtime_load", "process_incoming_")
_STATES = {
    "PRE_COPY": Side.SOURCE,
    "PRE_COPY_P2P": Side.SOURCE,
    "STOP_COPY": Side.SOURCE,
    "RESUMING": Side.DESTINATION,
}
_CHECKPOINTS = {"src": Side.SOURCE, "dst": Side.DESTINATION}
_REQUESTS = {Kind.ATTEMPT, Kind.CHANGED, Kind.SUCCEEDED}
_CALLBACKS = {Kind.PREPARE, Kind.MAIN}
# Of one start by libvirt; each thread is compared with all of them.
_MOST_QEMUS = 256
_SPLIT = (
    "Give each QEMU a log of its own with -D FILE, or separate the lines by "
    "hand."
)


@dataclass(slots=True)
class Writer:
    """The lines of one QEMU.

    :param records: Its records in the order of the log.
    :param threads: The ids that its lines have.
    :param sure: Whether each line is surely its own.
    """

    records: list[Record] = field(default_factory=list)
    threads: set[int | None] = field(default_factory=set)
    sure: bool = True

    @property
    def roles(self) -> set[Side]:
        """The sides of a migration that it was on."""
        return {role for x in self.records if (role := role_of(x))}

    @property
    def devices(self) -> set[str]:
        """The names of its devices."""
        return {x.device for x in self.records if x.device}

    def begin(self, side: Side) -> Record:
        """Return its first line on a side, or its first line at all.

        :param side: The side.
        """
        return next(
            (x for x in self.records if role_of(x) is side), self.records[0]
        )


def role_of(record: Record) -> Side | None:
    """Return the side that prints such a line; None if both do.

    :param record: The line.
    """
    event = record.event
    if record.kind in _REQUESTS:
        return _STATES.get(str(record.fields.get("state")))
    if event.startswith(_SAVES):
        return Side.SOURCE
    if event.startswith(_LOADS):
        return Side.DESTINATION
    checkpoint = record.fields.get("checkpoint")
    return _CHECKPOINTS.get(str(checkpoint)[:3]) if checkpoint else None


def processes(records: Sequence[Record], name: str) -> list[Writer]:
    """Tell the QEMUs apart that wrote one log.

    :param records: The log's records.
    :param name: What to call the log in messages.
    :return: One process for each that has a line about a device; one with
        all records if there is no such line, and none without records.
    :raise TraceError: When there is more than one, and the lines do not tell
        whose they are.
    """
    found: list[Writer] = []
    for segment in _starts(records):
        threads = {x.thread for x in segment if x.event}
        if None not in threads and len(threads) > 1:
            found += _by_threads(segment, name)
        else:
            found += _by_devices(segment, name)
    telling = [x for x in found if x.devices]
    if telling:
        return telling
    return [Writer(list(records))] if records else []


def _starts(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Split a log where libvirt says that it starts another QEMU."""
    segment: list[Record] = []
    for record in records:
        if (
            record.kind is Kind.REMARK
            and segment
            and words.is_start(record.text)
        ):
            yield segment
            segment = []
        segment.append(record)
    if segment:
        yield segment


@dataclass(slots=True)
class _Thread:
    """What is known of a thread, or of several of one process."""

    devices: set[str] = field(default_factory=set)
    realized: set[str] = field(default_factory=set)
    saves: list[int] = field(default_factory=list)
    loads: list[int] = field(default_factory=list)

    def contradicts(self, other: _Thread) -> bool:
        """Return whether the two cannot be of one process.

        A QEMU can load first and save later, but not the other way round,
        and not both at a time.
        """
        if self.realized & other.realized:
            return True
        if (self.saves and self.loads) or (other.saves and other.loads):
            return False
        saves = self.saves or other.saves
        loads = self.loads or other.loads
        return bool(saves and loads) and min(saves) < max(loads)

    def join(self, other: _Thread) -> None:
        """Take in what is known of the other one."""
        self.devices |= other.devices
        self.realized |= other.realized
        self.saves += other.saves
        self.loads += other.loads


def _by_threads(segment: Sequence[Record], name: str) -> list[Writer]:
    known: dict[int | None, _Thread] = {}
    for record in segment:
        if not record.event:
            continue
        thread = known.setdefault(record.thread, _Thread())
        if record.device:
            thread.devices.add(record.device)
        if record.kind is Kind.REALIZE:
            thread.realized.add(record.device)
        role = role_of(record)
        if role is Side.SOURCE:
            thread.saves.append(record.line)
        elif role is Side.DESTINATION:
            thread.loads.append(record.line)
    # The main threads come first, and take in the others.
    order = sorted(
        known, key=lambda x: (not known[x].realized, not known[x].devices)
    )
    groups: list[tuple[_Thread, set[int | None]]] = []
    for number in order:
        thread = known[number]
        fits = [x for x in groups if not x[0].contradicts(thread)]
        if thread.devices:
            fits = [x for x in fits if x[0].devices & thread.devices]
        elif not (thread.saves or thread.loads):
            # The line before decides.
            continue
        # Of several, the one that was on the same side is right.
        fits.sort(
            key=lambda x: not (
                (x[0].saves and thread.saves) or (x[0].loads and thread.loads)
            )
        )
        if fits:
            fits[0][0].join(thread)
            fits[0][1].add(number)
        else:
            groups.append((thread, {number}))
            if len(groups) > _MOST_QEMUS:
                raise TraceError(
                    f"{printable(name)}: more than {_MOST_QEMUS} QEMUs "
                    "wrote this log",
                    _SPLIT,
                )
    found = [Writer(threads=numbers) for _, numbers in groups]
    owner = {x: process for process in found for x in process.threads}
    if not found:
        return [Writer(list(segment))]
    last = found[0]
    for record in segment:
        last = owner.get(record.thread, last) if record.event else last
        last.records.append(record)
    return found


def _by_devices(segment: Sequence[Record], name: str) -> list[Writer]:
    """Tell QEMUs apart whose lines name no thread."""
    runs = list(_realized_again(segment))
    if len(runs) > 1:
        return [y for run in runs for y in _by_devices(run, name)]
    roles: dict[str, _Thread] = {}
    for record in segment:
        if not record.device:
            continue
        device = roles.setdefault(record.device, _Thread())
        role = role_of(record)
        if role is Side.SOURCE:
            device.saves.append(record.line)
        elif role is Side.DESTINATION:
            device.loads.append(record.line)
    for both, seen in roles.items():
        if seen.saves and seen.loads and min(seen.saves) < max(seen.loads):
            raise TraceError(
                f"{printable(name)}: {printable(both)} both saves and "
                "loads, so two QEMUs wrote this log, and its lines do not "
                "tell which one each is of",
                _SPLIT,
            )
    savers = {x for x, y in roles.items() if y.saves and not y.loads}
    loaders = {x for x, y in roles.items() if y.loads and not y.saves}
    if not savers or not loaders:
        return [Writer(list(segment))]
    return _interleaved(segment, savers, loaders)


def _realized_again(segment: Sequence[Record]) -> Iterator[list[Record]]:
    """Split a log where a QEMU plugs devices that another one has had."""
    run: list[Record] = []
    plugged: set[str] = set()
    over: set[str] = set()
    for record in segment:
        if record.kind is Kind.REALIZE:
            # One that is plugged again alone was unplugged before.
            if record.device in plugged & over:
                yield run
                run, plugged, over = [], set(), set()
            plugged.add(record.device)
        elif record.kind in (Kind.SAVE_CLEANUP, Kind.LOAD_CLEANUP):
            # Its QEMU has done its part of a migration.
            over.add(record.device)
        run.append(record)
    yield run


def _interleaved(
    segment: Sequence[Record], savers: set[str], loaders: set[str]
) -> list[Writer]:
    """Give each line to the side whose devices are next to it."""
    pair = Writer(sure=False), Writer(sure=False)

    def owner(record: Record) -> Writer | None:
        role = role_of(record)
        if record.device in savers or role is Side.SOURCE:
            return pair[0]
        if record.device in loaders or role is Side.DESTINATION:
            return pair[1]
        return None

    nearest = pair[0]
    # The side whose callbacks come next after a run-state change.
    announced: dict[tuple[int | str, int | str], Writer | None] = {}
    for record in reversed(segment):
        own = owner(record)
        found = own
        if record.kind is Kind.NOTIFY or record.kind in _CALLBACKS:
            what = record.fields["running"], record.fields["reason"]
            if record.kind in _CALLBACKS:
                announced[what] = own
            elif own is None:
                found = announced.get(what)
        nearest = own or nearest
        (found or nearest).records.append(record)
    for writer in pair:
        writer.records.reverse()
    return [x for x in pair if x.records]
