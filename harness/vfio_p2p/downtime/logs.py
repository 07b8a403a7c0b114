# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs of real hosts: the logs of both sides, without a seed.

A run is a folder with the layout of a bundle.  If one of these files is
missing, what it would tell is unknown::

    source/trace.log  destination/trace.log     of either trace backend
    source/qmp.jsonl  destination/qmp.jsonl     for STOP to RESUME
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.downtime.compare import RunSample
from vfio_p2p.downtime.model import Beside
from vfio_p2p.downtime.phases import phases
from vfio_p2p.downtime.transcript import stop_to_resume_ns
from vfio_p2p.errors import TraceError
from vfio_p2p.side import Side
from vfio_p2p.timeline import Timeline, read_log

_TRACE = "trace.log"
_QMP = "qmp.jsonl"


@dataclass(frozen=True)
class HostRun:
    """A run of real hosts.

    :param sample: Its blackout.
    :param sides: The timelines of the source and of the destination.
    :param versions: The oldest and the newest QEMU that could have written
        its logs; empty if they do not tell.
    """

    sample: RunSample
    sides: tuple[Timeline, Timeline]
    versions: tuple[str, ...]


def is_host_run(folder: Path) -> bool:
    """Return whether a folder holds the logs of a run.

    :param folder: Any path.
    """
    return (folder / Side.SOURCE / _TRACE).is_file()


def read_host_run(folder: Path) -> HostRun:
    """Read the logs of a run and take its blackout apart.

    :param folder: The folder; see the module's docstring.
    :raise TraceError: When a log is missing, or is no log.
    """
    source, destination = (
        read_log(folder / side / _TRACE, side) for side in Side
    )
    parts = phases(
        source,
        destination,
        Beside(
            stop_to_resume_ns=stop_to_resume_ns(
                _transcript(folder / Side.SOURCE / _QMP),
                _transcript(folder / Side.DESTINATION / _QMP),
            )
        ),
    )
    versions = source.summary.versions or ()
    return HostRun(
        RunSample(None, parts, folder.name),
        (source, destination),
        tuple(versions),
    )


def _transcript(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as err:
        raise TraceError(
            f"{path}: {err.strerror}",
            "Give a transcript that can be read, or none.",
        ) from err
