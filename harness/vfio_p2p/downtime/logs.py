# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs of real hosts: the logs of both sides, without a seed.

A run is a folder, or one log that has both sides.  In a folder with the layout
of a bundle, a file that is missing leaves unknown what it would tell::

    source/trace.log  destination/trace.log     of either trace backend
    source/qmp.jsonl  destination/qmp.jsonl     for STOP to RESUME; judged by
                                                their VFIO_MIGRATION events
                                                if there is no trace

Other folders have one or two logs, of any names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vfio_p2p.bundle.manifest import Manifest
from vfio_p2p.bundle.provenance import AttachedProvenance
from vfio_p2p.bundle.read import is_attached, open_bundle
from vfio_p2p.downtime.compare import RunSample
from vfio_p2p.downtime.model import Beside, Breakdown, NotObservable
from vfio_p2p.downtime.phases import phases
from vfio_p2p.downtime.transcript import (
    expected_downtime_ms,
    stop_to_resume_ns,
)
from vfio_p2p.errors import TraceError
from vfio_p2p.foreign import read_file
from vfio_p2p.side import Side
from vfio_p2p.timeline import Blackout, Timeline
from vfio_p2p.timeline.logs import LoggedMigration, read_migrations, saves
from vfio_p2p.trace import printable

_TRACE = "trace.log"
_QMP = "qmp.jsonl"
_MISSING = f"{Side.DESTINATION}/{_TRACE}"
# What a trace has that can be judged, and a transcript.
_TRACES = (b"vfio_migration", b"vfio_vmstate_change", b"vm_state_notify")
_EVENTS = (b"VFIO_MIGRATION",)
_CHUNK_BYTES = 1 << 20
_MAX_TRANSCRIPT_BYTES = 256 << 20
_PACKED = r"(?:\.(?:gz|xz|bz2|zst))?"
_LOG = re.compile(
    rf"[^.].*\.(?:log(?:\.\d{{1,3}})?|trace|txt|out|err|stderr){_PACKED}"
    rf"|trace{_PACKED}",
    re.IGNORECASE,
)
# How people call the logs of the two sides.
_NAMES = {
    Side.SOURCE: re.compile(r"(?:source|src|sender|outgoing)", re.I),
    Side.DESTINATION: re.compile(
        r"(?:destination|dest|dst|target|tgt|receiver|incoming)", re.I
    ),
}


@dataclass(frozen=True)
class LogFiles:
    """The logs of one run.

    :param source: The log of the source, or of both sides.
    :param destination: The log of the destination, if it is another one.
    :param beside: Other figures, if a recording has them.
    :param devices: The number of devices, if only a recording tells it.
    :param plugged: The devices that each QEMU was started with, in order, if
        a recording tells them.
    """

    source: Path
    destination: Path | None
    beside: Beside = field(default_factory=Beside)
    devices: int | None = None
    plugged: Mapping[Side, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class HostRun:
    """A run of real hosts.

    :param sample: Its blackout.
    :param migration: The timelines of its sides.
    :param versions: The oldest and the newest QEMU that could have written
        its logs; empty if they do not tell.
    :param notes: What was told apart in its logs, or left out.
    :param devices: The number of devices, if only a recording tells it.
    """

    sample: RunSample
    migration: LoggedMigration
    versions: tuple[str, ...]
    notes: tuple[str, ...] = ()
    devices: int | None = None

    @property
    def sides(self) -> tuple[Timeline, ...]:
        """The timelines of its sides, the source first."""
        return self.migration.sides


def is_host_run(folder: Path) -> bool:
    """Return whether a folder holds the logs of a run.

    :param folder: Any path.
    """
    source = folder / Side.SOURCE
    if (source / _TRACE).is_file() or _has(source / _QMP, _EVENTS):
        return True
    return folder.is_dir() and 0 < len(logs_in(folder)) <= 2


def is_log(path: Path) -> bool:
    """Return whether a path is that of a log, going by its name.

    :param path: Any path.
    """
    return _LOG.fullmatch(path.name) is not None and not path.is_dir()


def log_files(path: Path) -> LogFiles:
    """Find the logs of a run.

    :param path: A folder, or a log.
    :raise TraceError: When a folder has no logs, or so many that it is not
        clear which ones they are.
    :raise BundleError: When the folder is a bundle that is damaged.
    """
    if not path.is_dir():
        return LogFiles(path, None)
    source = _witness(path, Side.SOURCE)
    if source is not None:
        destination = _witness(path, Side.DESTINATION)
        if is_attached(path):
            # It must be whole, and may be of one of the two QEMUs only.
            manifest = open_bundle(path).manifest
            return LogFiles(
                source,
                destination,
                Beside(
                    qmp_downtime_ms=manifest.result.qmp_downtime_ms,
                    expected_downtime_ms=expected_downtime_ms(
                        _transcript(path / Side.SOURCE / _QMP)
                    ),
                ),
                _devices(manifest) if source.name == _QMP else None,
                _plugged(manifest),
            )
        return LogFiles(source, destination or path / _MISSING)
    found = logs_in(path)
    if not found or len(found) > 2:
        raise TraceError(
            f"{printable(str(path))} has {len(found)} logs, and not one or "
            "two of one migration",
            "Name the log of the source, and give the other one with "
            "--destination; or put them into a folder of their own.",
        )
    if len(found) == 1:
        return LogFiles(found[0], None)
    for first, second in (found, found[::-1]):
        if _named(first, Side.SOURCE) and not _named(second, Side.SOURCE):
            return LogFiles(first, second)
        if _named(first, Side.DESTINATION) and not _named(
            second, Side.DESTINATION
        ):
            return LogFiles(second, first)
    if saves(found[1]) and not saves(found[0]):
        found.reverse()
    return LogFiles(found[0], found[1])


def _devices(manifest: Manifest) -> int | None:
    """Return how many devices a recorded QEMU has; events do not tell."""
    place = manifest.inputs.place
    if not isinstance(place, AttachedProvenance):
        return None
    machine = place.source or place.destination
    return len(machine.devices) or None if machine else None


def _plugged(manifest: Manifest) -> dict[Side, tuple[str, ...]]:
    """Return the recorded devices, which a trace names at QEMU's start."""
    place = manifest.inputs.place
    if not isinstance(place, AttachedProvenance):
        return {}
    machines = {Side.SOURCE: place.source, Side.DESTINATION: place.destination}
    return {
        side: machine.devices
        for side, machine in machines.items()
        if machine is not None
    }


def _witness(run: Path, side: Side) -> Path | None:
    """Return the trace of a side, or its QMP events if they tell more."""
    trace, events = (run / side / name for name in (_TRACE, _QMP))
    if _has(events, _EVENTS) and not _has(trace, _TRACES):
        return events
    return trace if trace.is_file() else None


def _has(path: Path, words: tuple[bytes, ...]) -> bool:
    """Return whether a file has one of some words; most have one early."""
    rest = max(map(len, words)) - 1
    data = b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                data = data[-rest:] + chunk
                if any(word in data for word in words):
                    return True
    except OSError:
        pass
    return False


def _named(path: Path, side: Side) -> bool:
    return any(
        _NAMES[side].search(name) is not None
        for name in (path.name, path.parent.name)
    )


def logs_in(folder: Path) -> list[Path]:
    """List the logs in a folder, or else those in the folders of its sides.

    :param folder: The folder.
    """
    try:
        children = sorted(folder.iterdir())
        found = [x for x in children if is_log(x) and x.is_file()]
        if found:
            return found
        for child in children:
            if child.is_dir() and any(
                names.fullmatch(child.name) for names in _NAMES.values()
            ):
                found += [
                    x
                    for x in sorted(child.iterdir())
                    if is_log(x) and x.is_file()
                ]
    except OSError:
        return []
    return found


def read_host_run(path: Path) -> HostRun:
    """Read the logs of a run and take its blackout apart.

    :param path: The folder, or the log; see the module's docstring.
    :raise TraceError: When a log is missing, or is no log, or has more than
        one migration.
    """
    files = log_files(path)
    found = read_migrations(files.source, files.destination, files.plugged)
    if len(found.migrations) > 1:
        raise TraceError(
            f"{printable(str(path))} has {len(found.migrations)} migrations",
            "Judge them with 'vfio-p2p check', or keep the lines of each "
            "migration apart.",
        )
    migration = found.migrations[0]
    source, destination = migration.source, migration.destination
    if destination is None:
        alone = Blackout(None, False, "there is no log of the destination")
        parts = Breakdown(
            alone,
            not_observable=(NotObservable("blackout", alone.note),),
            beside=files.beside,
        )
    else:
        parts = phases(
            source,
            destination,
            replace(
                files.beside,
                stop_to_resume_ns=stop_to_resume_ns(
                    _transcript(path / Side.SOURCE / _QMP),
                    _transcript(path / Side.DESTINATION / _QMP),
                ),
            ),
        )
    return HostRun(
        RunSample(
            None,
            parts,
            path.name,
            tuple(
                (side.side, device)
                for side in migration.sides
                for device in side.plugged or side.devices
            ),
        ),
        migration,
        tuple(source.summary.versions or ()),
        found.notes,
        files.devices,
    )


def _transcript(path: Path) -> bytes:
    try:
        return read_file(path, _MAX_TRANSCRIPT_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as err:
        raise TraceError(
            f"{path}: {err.strerror}",
            "Give a transcript that can be read, or none.",
        ) from err
