# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge trace logs from any machine, or a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.oracle import Criteria, Judgement, judge
from vfio_p2p.report.document import Document
from vfio_p2p.report.runs import run_of
from vfio_p2p.side import Side
from vfio_p2p.timeline import Timeline, read_log


@dataclass(frozen=True)
class LogsRequest:
    """The logs of one migration, and what is known of it.

    :param source: The trace of the source.
    :param destination: The trace of the destination, if there is one.
    :param devices: The number of devices that can migrate; None takes as
        many as QEMU reported.
    :param expect_p2p: Whether logs without P2P states fail.
    """

    source: Path
    destination: Path | None = None
    devices: int | None = None
    expect_p2p: bool = False


@dataclass(frozen=True)
class JudgedLogs:
    """The verdict on logs.

    :param judgement: The verdict.
    :param sides: What the logs show, the source first.
    """

    judgement: Judgement
    sides: tuple[Timeline, ...]


def check_logs(request: LogsRequest) -> JudgedLogs:
    """Judge the P2P order from the files of QEMU's trace backends.

    :raise TraceError: When a log cannot be read or is not a trace.
    """
    source = read_log(request.source, Side.SOURCE)
    destination = None
    if request.destination is not None:
        destination = read_log(request.destination, Side.DESTINATION)
    judgement = judge(
        source,
        destination,
        Criteria(
            devices=request.devices,
            p2p=True if request.expect_p2p else None,
        ),
    )
    sides = (source,) if destination is None else (source, destination)
    return JudgedLogs(judgement, sides)


def check_bundle(path: Path) -> Document:
    """Judge a bundle by what its scenario expects.

    :param path: Its folder or zip file.
    :raise BundleError: When it is damaged or newer than this program.
    """
    bundle = open_bundle(path)
    return Document.of(
        (run_of(bundle),), qemu=bundle.manifest.inputs.source.version
    )
