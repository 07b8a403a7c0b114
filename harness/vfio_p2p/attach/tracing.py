# SPDX-License-Identifier: GPL-2.0-or-later
"""Trace events of a running QEMU: switch them on, and put them back.

QEMU keeps the state of its events when a client goes away.  What was switched
on is therefore noted in a file before it is done, so that it can be put back
even after this process was killed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from vfio_p2p.attach.monitor import Monitor
from vfio_p2p.errors import CommandError
from vfio_p2p.foreign import NOT_JSON
from vfio_p2p.machine.files import write_whole
from vfio_p2p.machine.qemu import TRACE_EVENTS
from vfio_p2p.paths import state_dir

_ENABLED = "enabled"
_UNAVAILABLE = "unavailable"


class EventsNote(msgspec.Struct, frozen=True, kw_only=True):
    """What was switched on in a QEMU.

    :param pid: Its process.
    :param started: When that began, in ticks since its host did.
    :param host: Its host.
    :param events: The events that were off before: names, or patterns of
        names.
    """

    pid: int
    started: int
    host: str
    events: tuple[str, ...]


def note_path(host: str, pid: int, started: int) -> Path:
    """Return where the note about a QEMU is."""
    name = hashlib.sha256(f"{host}\0{pid}\0{started}".encode()).hexdigest()
    return state_dir() / "attached" / f"{name[:32]}.json"


class Tracing:
    """The trace events of one QEMU.

    :param monitor: Its monitor.
    :param host: Its host.
    :param pid: Its process.
    :param started: When that began.
    """

    def __init__(
        self, monitor: Monitor, host: str, pid: int, started: int
    ) -> None:
        self._monitor = monitor
        self._host = host
        self._pid = pid
        self._started = started
        self._path = note_path(host, pid, started)

    async def start(
        self, patterns: Iterable[str] = TRACE_EVENTS
    ) -> tuple[str, ...]:
        """Switch events on that are off.

        :param patterns: Names, with ``*`` for any text.
        :return: The names of all events that are on now.
        :raise CommandError: When QEMU refuses.
        """
        await self.restore()
        on: list[str] = []
        switches: list[str] = []
        for pattern in patterns:
            states = await _states(self._monitor, pattern)
            on += states
            off = [x for x, enabled in states.items() if not enabled]
            # Each command takes a while where QEMU is far away.  What is
            # switched on must be what will be switched off.
            switches += [pattern] if off and len(off) == len(states) else off
        if switches:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            note = EventsNote(
                pid=self._pid,
                started=self._started,
                host=self._host,
                events=tuple(switches),
            )
            write_whole(self._path, msgspec.json.encode(note))
        for name in switches:
            await self._set(name, on=True)
        return tuple(on)

    async def restore(self) -> None:
        """Switch off what a note says was off before.

        :raise CommandError: When QEMU refuses.
        """
        try:
            data = self._path.read_bytes()
            note = msgspec.json.decode(data, type=EventsNote)
        except (OSError, *NOT_JSON):
            return
        for name in note.events:
            await self._set(name, on=False)
        self.forget()

    def forget(self) -> None:
        """Drop the note, since QEMU is gone or as it was."""
        self._path.unlink(missing_ok=True)

    async def _set(self, name: str, *, on: bool) -> None:
        await self._monitor.execute(
            "trace-event-set-state",
            {"name": name, "enable": on, "ignore-unavailable": True},
        )


async def enabled_events(
    monitor: Monitor, patterns: Iterable[str] = TRACE_EVENTS
) -> tuple[str, ...]:
    """Return the names of the events that are on.

    :param monitor: The monitor of a QEMU.
    :param patterns: Names, with ``*`` for any text.
    :raise CommandError: When QEMU refuses.
    """
    found: list[str] = []
    for pattern in patterns:
        states = await _states(monitor, pattern)
        found += [name for name, on in states.items() if on]
    return tuple(found)


async def _states(monitor: Monitor, pattern: str) -> dict[str, bool]:
    """Return whether events are on, without those that cannot be."""
    # QEMU refuses an exact name that it does not know.
    found = await monitor.execute(
        "trace-event-get-state", {"name": f"{pattern.rstrip('*')}*"}
    )
    match found:
        case [*entries]:
            return {
                x["name"]: x["state"] == _ENABLED
                for x in entries
                if x["state"] != _UNAVAILABLE
                and fnmatchcase(x["name"], pattern)
            }
    raise CommandError(monitor.name, "trace-event-get-state: not a list")
