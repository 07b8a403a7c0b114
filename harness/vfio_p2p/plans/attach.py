# SPDX-License-Identifier: GPL-2.0-or-later
"""Listen to QEMUs that somebody else started."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from vfio_p2p.attach.domain import destination_xml
from vfio_p2p.attach.drive import Drive
from vfio_p2p.attach.folder import sweep
from vfio_p2p.attach.process import Process, qemus_of
from vfio_p2p.attach.qemu import explain
from vfio_p2p.attach.recorder import Attachment, Listener, Recorder
from vfio_p2p.attach.target import Target, TargetKind
from vfio_p2p.bundle.provenance import AttachedProvenance
from vfio_p2p.bundle.read import open_bundle
from vfio_p2p.bundle.write import alone_in
from vfio_p2p.errors import TraceError, UsageError
from vfio_p2p.machine.files import room_for, write_whole
from vfio_p2p.machine.host import open_host
from vfio_p2p.oracle.verdict import Verdict, worst
from vfio_p2p.plans.check import JudgedLogs, LogsRequest, check_logs
from vfio_p2p.plans.host.where import Where, locate
from vfio_p2p.report.prometheus import Metrics
from vfio_p2p.report.run import Run
from vfio_p2p.report.runs import HOST_LOGS, LOGS, run_of_logs
from vfio_p2p.side import Side

# The logs of a migration, and what goes with them.
_NEEDED_BYTES = 1 << 20


@dataclass(frozen=True)
class AttachRequest:
    """The QEMUs to listen to, and what becomes of their migrations.

    :param source: The QEMU that is migrated from, if it can be reached.
    :param destination: The QEMU that is migrated to, if it can be reached.
    :param where: Where the source runs, or where both run if it is a pair.
    :param destination_ssh: Where the destination runs,
        ``[USER@]HOST[:PORT]``; empty means where the source does.
    :param libvirt: The URI of libvirt for the source's domain.
    :param destination_libvirt: The same for the destination.
    :param out: The folder of the bundles.
    :param count: After how many migrations to end; 0 means never.
    :param follow: Whether to wait for QEMUs that are gone to come back.
    :param keep: How many bundles to keep; 0 keeps all.
    :param trace: Whether to switch trace events on.
    :param drive: The migration to begin; None waits for somebody else's.
    :param metrics: The file for Prometheus, which is written anew after each
        migration; None writes none.
    """

    source: Target | None = None
    destination: Target | None = None
    where: Where = field(default_factory=Where)
    destination_ssh: str = ""
    libvirt: str = ""
    destination_libvirt: str = ""
    out: Path = Path("out")
    count: int = 1
    follow: bool = False
    keep: int = 0
    trace: bool = True
    drive: Drive | None = None
    metrics: Path | None = None

    @property
    def attachments(self) -> dict[Side, Attachment]:
        """The QEMUs by side.

        :raise UsageError: When there is none, or no such host.
        :raise ConfigError: When ``hosts.toml`` is wrong.
        """
        if self.drive and self.source is None:
            raise UsageError(
                "it is not known what to migrate",
                "Name the QEMU that is to be migrated first.",
            )
        specs = [x.spec for x in locate(self.where)]
        if self.destination_ssh:
            (there,) = locate(Where(ssh=self.destination_ssh))
            specs[1:] = [there.spec]
        found = {}
        for side, target, spec, uri in (
            (Side.SOURCE, self.source, specs[0], self.libvirt),
            (
                Side.DESTINATION,
                self.destination,
                specs[-1],
                self.destination_libvirt or self.libvirt,
            ),
        ):
            if target is not None:
                found[side] = Attachment(target, spec, uri)
        if not found:
            raise UsageError(
                "no QEMU is named",
                "Name the source, or --destination, or both. "
                "'vfio-p2p watch --list' lists the QEMUs of this machine.",
            )
        return found


class JudgingListener(Listener):
    """Judges each migration as soon as its bundle is whole."""

    def __init__(self) -> None:
        # A recording may last for days, and so does not keep every verdict.
        self._verdicts: set[Verdict] = set()
        self._metrics: tuple[Path, Metrics] | None = None

    def measures(self, path: Path) -> None:
        """Write figures into a file from now on.

        :param path: The file.
        :raise UsageError: When it cannot be written.
        """
        self._metrics = path, Metrics()
        _write_metrics(*self._metrics)

    def recorded(self, bundle: Path) -> None:
        """Judge a migration; see `Listener`."""
        found = judged(bundle)
        verdict = found.verdict if found else Verdict.INCONCLUSIVE
        self._verdicts.add(verdict)
        if self._metrics is not None:
            path, metrics = self._metrics
            _measure(metrics, bundle, verdict)
            _write_metrics(path, metrics)
        self.judged(bundle, found)

    def judged(self, bundle: Path, found: JudgedLogs | None) -> None:
        """A migration was judged.

        :param bundle: Its bundle.
        :param found: The verdict; None if no log can be judged.
        """

    @property
    def verdict(self) -> Verdict:
        """The worst verdict; *skip* if there was no migration."""
        return worst(self._verdicts or [Verdict.SKIP])


def list_qemus(where: Where) -> list[Process]:
    """Return the QEMUs of a host, or of both hosts of a pair.

    :param where: Which.
    :raise HostError: When one does not answer.
    """

    async def ask() -> list[Process]:
        found = []
        for located in locate(where):
            async with open_host(located.spec) as opened:
                found += await qemus_of(opened)
        return found

    return asyncio.run(ask())


@dataclass(frozen=True)
class XmlRequest:
    """A domain that will be migrated.

    :param source: What names it.
    :param libvirt: The URI of libvirt.
    """

    source: Target | None
    libvirt: str = ""


def xml_for_destination(request: XmlRequest) -> str:
    """Return the XML with which a domain traces on its destination.

    :param request: The domain.
    :raise UsageError: When it is no domain.
    :raise HarnessError: When libvirt does not answer.
    """
    source = request.source
    if source is None or source.kind is not TargetKind.DOMAIN:
        raise UsageError(
            "only a domain of libvirt has an XML",
            "Name the source with domain:NAME.",
        )
    return asyncio.run(
        destination_xml(str(Side.SOURCE), request.libvirt, source.value)
    )


def record(
    request: AttachRequest, listener: JudgingListener | None = None
) -> JudgingListener:
    """Record migrations until there were enough, or somebody interrupts.

    :param request: The QEMUs, and what becomes of their migrations.
    :param listener: Told of what happens.
    :return: The listener, with the verdicts.
    :raise HarnessError: When a QEMU cannot be attached to.
    :raise SkipError: When another process records into the same folder.
    :raise NoSpaceError: When the disk is full.
    """
    listener = listener or JudgingListener()
    if request.metrics is not None:
        listener.measures(request.metrics)
    recorder = Recorder(
        request.attachments,
        request.out,
        count=request.count,
        follow=request.follow,
        keep=request.keep,
        trace=request.trace,
        drive=request.drive,
        listener=listener,
    )
    with alone_in(request.out), room_for(request.out, _NEEDED_BYTES):
        sweep(request.out)
        asyncio.run(_until_interrupted(recorder))
    return listener


async def _until_interrupted(recorder: Recorder) -> None:
    """Record; SIGINT and SIGTERM end it in order, as events must be put back.

    :raise HarnessError: When a QEMU cannot be attached to.
    """
    task = asyncio.create_task(recorder.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        pass
    except BaseExceptionGroup as err:
        if (why := explain(err)) is None:
            raise
        raise why from err
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def judged(bundle: Path) -> JudgedLogs | None:
    """Judge a recorded migration by its logs.

    :param bundle: Its bundle.
    :return: None if there is no log that can be judged.
    """
    try:
        return check_logs(LogsRequest(bundle))
    except TraceError:
        return None


def _measure(metrics: Metrics, bundle: Path, verdict: Verdict) -> None:
    place = open_bundle(bundle).manifest.inputs.place
    guest = ""
    if isinstance(place, AttachedProvenance):
        machine = place.source or place.destination
        guest = machine.guest if machine else ""
    try:
        run = run_of_logs(bundle)
    except TraceError:
        run = Run(
            variant=LOGS,
            scenario=HOST_LOGS,
            seed=None,
            verdict=verdict,
            summary="",
        )
    metrics.add(run, guest, time.time())


def _write_metrics(path: Path, metrics: Metrics) -> None:
    try:
        write_whole(path, metrics.render())
    except OSError as err:
        raise UsageError(
            f"{path}: {err.strerror}",
            "Name a file that can be written with --metrics.",
        ) from err
