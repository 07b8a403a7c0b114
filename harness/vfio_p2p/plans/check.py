# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge trace logs from any machine, or a bundle."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vfio_p2p.bundle.read import is_attached, is_bundle, open_bundle
from vfio_p2p.downtime.logs import is_host_run, log_files, logs_in
from vfio_p2p.downtime.model import Beside
from vfio_p2p.oracle import Criteria, Judgement, judge
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.report.document import Document
from vfio_p2p.report.runs import run_of
from vfio_p2p.timeline import Timeline
from vfio_p2p.timeline.logs import LoggedMigration, read_migrations


@dataclass(frozen=True)
class LogsRequest:
    """The logs of one migration, and what is known of it.

    :param source: The trace of the source or of both sides, or a folder with
        the logs.
    :param destination: The trace of the destination, if it is another file.
    :param devices: The number of devices that can migrate; None takes as
        many as QEMU reported.
    :param expect_p2p: Whether logs without P2P states fail.
    :param explain: Whether each migration is told in a paragraph.
    """

    source: Path
    destination: Path | None = None
    devices: int | None = None
    expect_p2p: bool = False
    explain: bool = False


@dataclass(frozen=True)
class JudgedMigration:
    """The verdict on one migration.

    :param judgement: The verdict.
    :param migration: What the logs show.
    :param beside: Other figures, if the logs are those of a recording.
    """

    judgement: Judgement
    migration: LoggedMigration
    beside: Beside = field(default_factory=Beside)

    @property
    def sides(self) -> tuple[Timeline, ...]:
        """The timelines, the source first."""
        return self.migration.sides


@dataclass(frozen=True)
class JudgedLogs:
    """The verdict on logs.

    :param migrations: The migrations that they show, at least one.
    :param notes: What was told apart in the logs, or left out.
    """

    migrations: tuple[JudgedMigration, ...]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of the verdicts."""
        return worst(x.judgement.verdict for x in self.migrations)


def has_logs(folder: Path) -> bool:
    """Return whether a folder has logs, which may be too many to judge.

    :param folder: Any path; a bundle with a scenario is none.
    """
    if not folder.is_dir():
        return False
    if is_bundle(folder):
        return is_attached(folder)
    return is_host_run(folder) or bool(logs_in(folder))


def check_logs(request: LogsRequest) -> JudgedLogs:
    """Judge the P2P order from the files of QEMU's trace backends.

    :raise TraceError: When a log cannot be read or is not a trace.
    :raise BundleError: When the logs are in a bundle that is damaged.
    """
    files = log_files(request.source)
    found = read_migrations(
        files.source, request.destination or files.destination, files.plugged
    )
    criteria = Criteria(
        devices=request.devices or files.devices,
        p2p=True if request.expect_p2p else None,
    )
    return JudgedLogs(
        tuple(
            JudgedMigration(
                judge(x.source, x.destination, criteria), x, files.beside
            )
            for x in found.migrations
        ),
        found.notes,
    )


def check_bundle(path: Path) -> Document:
    """Judge a bundle by what its scenario expects.

    :param path: Its folder or zip file.
    :raise BundleError: When it is damaged or newer than this program.
    """
    bundle = open_bundle(path)
    return Document.of(
        (run_of(bundle),), qemu=bundle.manifest.inputs.version
    )
